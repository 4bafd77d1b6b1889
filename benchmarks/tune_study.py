"""What a search costs: beside GridSearchCV and Optuna, beside training directly, on Dask, and with a thousand workers.

    python benchmarks/tune_study.py [--networks 200] [--rounds 3] [--only PART]    # 20 minutes on two cores that are free

Networks 784-32-10 on MNIST, 5 epochs, one share of 10 % that judges, each engine from its start to its results, in a process of
its own. The engines of a pair take turns, so that both meet the same machine. The thousand workers are simulated: the search is the
real one and the CPU time that it takes counts; only the workers and their time are imagined. Writes ``results/tune_study.json``.
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import itertools
import json
import pickle
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlp_accel.environment import environment
from mlp_accel.files import write_json
from mlp_accel.training.recipes import Recipe
from mlp_accel.tune.data import Source, Split, shared
from mlp_accel.tune.executors import Pending, WorkerLostError, Workers
from mlp_accel.tune.journal import Journal
from mlp_accel.tune.plan import Network, Plan
from mlp_accel.tune.space import Range, recipes_of, sample
from mlp_accel.tune.tuner import Search, tune
from mlp_accel.tune.worker import Answer, Job, identity, train, versions

RESULT = Path(__file__).parent / "results" / "tune_study.json"
EPOCHS = 5
BASE = Recipe(epochs=EPOCHS)


def space(networks: int) -> tuple[list[dict[str, Any]], int]:
    """Settings, and seeds for each: so many networks in all."""
    seeds = 5 if networks % 5 == 0 else 1
    return [{"learning_rate": float(rate)} for rate in np.geomspace(0.05, 0.8, networks // seeds).round(4)], seeds


# Engines, each in a process of its own ---------------------------------------------------------------------------------------


def ours(networks: int, scheduler: str | None = None, workers: int | None = None) -> float:
    """A search by the pool, or on a Dask cluster that is started here; the seconds that the training took."""
    settings, seeds = space(networks)
    if scheduler is None:
        return tune(settings, "mnist", seeds=seeds, base=BASE, workers=workers).seconds
    from mlp_accel.tune.cluster import connect

    with connect(scheduler, workers) as cluster:
        return tune(settings, "mnist", seeds=seeds, base=BASE, executor=cluster).seconds


def direct(networks: int) -> float:
    """The same networks in one launch, without a search around it: trained and judged in this process."""
    settings, seeds = space(networks)
    recipes = recipes_of(settings, BASE)
    with shared("mnist") as source:
        job = Job(source, Split(), None, None, versions())
        train(job, [Network(replace(BASE, epochs=1, seed=seed)) for seed in (0, 1)])  # kernels from the cache, and the samples
        start = time.perf_counter()
        train(job, [Network(replace(recipe, seed=seed)) for recipe in recipes for seed in range(seeds)])
        return time.perf_counter() - start


def scikit_learn(networks: int) -> float:
    """GridSearchCV over MLPClassifier with two processes, which is what its users would write."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, ShuffleSplit
    from sklearn.neural_network import MLPClassifier

    from mlp_accel import load

    settings, seeds = space(networks)
    data = load("mnist")
    x = data.x_train.astype(np.float32) / 255
    network = MLPClassifier((32,), activation="tanh", solver="sgd", batch_size=128, momentum=0.0, alpha=0.0, max_iter=EPOCHS)
    grid = {"learning_rate_init": [one["learning_rate"] for one in settings], "random_state": list(range(seeds))}
    warnings.simplefilter("ignore", ConvergenceWarning)
    start = time.perf_counter()
    GridSearchCV(network, grid, cv=ShuffleSplit(1, test_size=0.1, random_state=0), n_jobs=2, refit=False).fit(x, data.y_train)
    return time.perf_counter() - start


def optuna_pytorch(networks: int) -> float:
    """An Optuna study with PyTorch, one network a trial, which is what its users would write."""
    optuna, torch = map(importlib.import_module, ("optuna", "torch"))

    from mlp_accel import load

    data = load("mnist")
    rows, judge = Split().rows(data.y_train, None)
    x, y = torch.from_numpy(data.x_train[rows].astype(np.float32) / 255), torch.from_numpy(data.y_train[rows])
    x_judge, y_judge = torch.from_numpy(data.x_train[judge].astype(np.float32) / 255), torch.from_numpy(data.y_train[judge])

    def objective(trial: Any) -> float:
        torch.manual_seed(trial.number)
        rate = trial.suggest_float("learning_rate", 0.05, 0.8, log=True)
        model = torch.nn.Sequential(torch.nn.Linear(784, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for _ in range(EPOCHS):
            for batch in torch.split(torch.randperm(len(x)), 128):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
        with torch.no_grad():
            return float((model(x_judge).argmax(1) == y_judge).double().mean())

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    start = time.perf_counter()
    optuna.create_study(direction="maximize").optimize(objective, n_trials=networks)
    return time.perf_counter() - start


ENGINES: dict[str, Callable[[int], float]] = {
    "tune, pool": ours,
    "tune, pool of 2": lambda networks: ours(networks, workers=2),
    "tune, Dask LocalCluster of 2": lambda networks: ours(networks, "local", 2),
    "train_many": direct,
    "GridSearchCV, n_jobs=2": scikit_learn,
    "Optuna and PyTorch": optuna_pytorch,
}

PAIRS = {
    "scikit-learn": ("tune, pool", "GridSearchCV, n_jobs=2"),
    "optuna": ("tune, pool", "Optuna and PyTorch"),
    "overhead": ("train_many", "tune, pool"),
    "dask": ("tune, pool of 2", "tune, Dask LocalCluster of 2"),
}
"""Of each pair the figure is the second one's time over the first one's."""

FEWER = {"GridSearchCV, n_jobs=2": 5, "Optuna and PyTorch": 10}
"""The slow ones train a part of the networks; their seconds are per network."""


def measured(engine: str, networks: int) -> dict[str, float]:
    """An engine in a process of its own: seconds from its start to its end, and of the search alone, per network."""
    count = max(10, networks // FEWER.get(engine, 1))
    command = [sys.executable, __file__, "--engine", engine, "--networks", str(count)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"networks": count, "whole": (time.perf_counter() - start) / count, "search": float(done.stdout.split()[-1]) / count}


def pair(first: str, second: str, networks: int, rounds: int) -> dict[str, Any]:
    """Both engines in turns, and the median of the ratios of neighbours, of the search and from start to end."""
    answers: dict[str, list[dict[str, float]]] = {first: [], second: []}
    for number in range(rounds):
        for engine in (first, second) if number % 2 == 0 else (second, first):
            answers[engine].append(measured(engine, networks))
    result: dict[str, Any] = {"engines": [first, second], "networks": networks, "rounds": answers}
    for what in ("search", "whole"):
        ratios = [b[what] / a[what] for a, b in zip(answers[first], answers[second], strict=True)]
        result[what] = {"ratio": float(np.median(ratios)), "lowest": min(ratios), "highest": max(ratios)}
    return result


# A plan of 100,000 settings --------------------------------------------------------------------------------------------------


def plan_many(count: int = 100_000) -> dict[str, float]:
    """Draw settings and plan their networks, in this process; its CPU seconds and the most memory it ever had."""
    start = time.process_time()
    ranges = {"learning_rate": Range(0.01, 1, log=True), "hidden": Range(16, 256, whole=True), "weight_decay": Range(0, 0.01)}
    recipes = recipes_of(sample(count, 0, **ranges, activation=["tanh", "relu"]), BASE)
    job = Job(Source("mnist", "", "0" * 16, (60_000, 784), 10), Split(), None, None, versions())
    with Journal() as journal:
        search = Search(job, [Network(recipe) for recipe in recipes], journal)
        plan = Plan(search.missing, 60_000, 784, 10)
    planned = 0
    while plan:
        planned += len(plan.next(8, 2).networks)
    assert planned == len(recipes)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"settings": planned, "seconds": time.process_time() - start, "megabytes": megabytes}


# A thousand workers, imagined ------------------------------------------------------------------------------------------------


class Imagined(Workers):
    """Workers in a time of their own, which the CPU time of the search itself moves on as well.

    What the workers do in `submit` is not the search's; it gets their answers as they would come from another process, pickled.
    """

    LATENCY = 0.01
    LOST_PER_HOUR = 0.01
    RESTART = 30.0

    def __init__(self, count: int, seconds: dict[Network, float]) -> None:
        self.count, self.seconds, self.rng = count, seconds, random.Random(0)
        self.clock, self.busy, self.losses = 0.0, 0.0, 0
        self.pending: list[tuple[float, int, Future[Any]]] = []
        self.back: list[float] = []
        self.numbers = itertools.count()
        self.left = time.process_time()

    @property
    def slots(self) -> int:
        while self.back and self.back[0] <= self.clock:
            heapq.heappop(self.back)
        return self.count - len(self.back)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        self._count_search()
        job, networks = arguments
        future: Future[Any] = Future()
        seconds = sum(self.seconds[network] for network in networks)
        if self.rng.random() < self.LOST_PER_HOUR * seconds / 3600:
            seconds *= self.rng.random()
            future.set_exception(WorkerLostError("lost"))
        else:
            self.busy += seconds
            rows = [{**identity(job, network), "status": "done", "accuracy": 0.5} for network in networks]
            future.set_result(pickle.dumps(Answer(rows, seconds, 1)))
        heapq.heappush(self.pending, (self.clock + self.LATENCY + seconds, next(self.numbers), future))
        self.left = time.process_time()
        return future

    def result(self, task: Pending) -> Any:
        return pickle.loads(task.result())

    def _count_search(self) -> None:
        """Move the clock on by what the search has computed since the workers had it last."""
        self.clock += time.process_time() - self.left

    def wait(self, seconds: float) -> list[Pending]:
        self._count_search()
        until = self.clock + seconds
        found: list[Pending] = []
        if self.pending and self.pending[0][0] <= until:
            self.clock = max(self.clock, self.pending[0][0])
            while self.pending and self.pending[0][0] <= self.clock:
                end, _, future = heapq.heappop(self.pending)
                if future.exception() is not None:
                    self.losses += 1
                    heapq.heappush(self.back, end + self.RESTART)
                found.append(future)
        else:
            self.clock = until
        self.left = time.process_time()
        return found

    def now(self) -> float:
        return self.clock


def simulate(workers: int = 1000, networks: int = 200_000) -> dict[str, Any]:
    """A search on many workers with networks of 1 to 10 seconds; the share of their time in which they train."""
    rng = random.Random(1)
    job = Job(Source("mnist", "", "0" * 16, (60_000, 784), 10), Split(), None, None, versions())
    given = [Network(replace(BASE, seed=seed)) for seed in range(networks)]
    seconds = {network: rng.uniform(1, 10) for network in given}
    imagined = Imagined(workers, seconds)
    with Journal() as journal:  # without a file, whose disk would be waited for in another time
        search = Search(job, given, journal)
        found = search.run(imagined)
    assert found.missing == 0
    share = imagined.busy / (workers * imagined.clock)
    return {"workers": workers, "networks": networks, "hours": imagined.clock / 3600, "lost": imagined.losses, "utilisation": share}


PARTS = (*PAIRS, "plan", "simulation")


def main() -> None:
    """Measure all parts, or one, and write them into the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        sys.stdout.write(f"{ENGINES[options.engine](options.networks)}\n")
        return
    result: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {"schema": 1, "parts": {}}
    for part in options.only or PARTS:
        report = environment()
        found: dict[str, Any]
        if part in PAIRS:
            found = pair(*PAIRS[part], options.networks, options.rounds)
        else:
            found = plan_many() if part == "plan" else simulate()
        result["parts"][part] = {**found, "environment": report}
        write_json(str(options.output), result)
        shown = {name: value for name, value in found.items() if name not in ("rounds", "environment")}
        sys.stdout.write(f"{part}: {json.dumps(shown)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
