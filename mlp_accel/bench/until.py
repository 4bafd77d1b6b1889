"""Time to stated test accuracies, in the manner of MLPerf.

Every engine trains from the same five seeds, and the median counts. The clock starts with the samples and labels in memory, as they
were read, before the engine has touched them: scaling, layout, lists and transfer count, and are also stated apart. It runs on over
whole epochs. Compilation and initial weights are before it, as in MLPerf. Unlike there, reading the file is left out, and so is the
test after each epoch, because peers are tested by our code. The engines take turns seed by seed, in random order.

A learning rate that falls has a number of epochs to fall in: a training ends there. An engine that has no schedule keeps to the
first rate, and may take `MAX_EPOCHS`.

MLPerf Training, https://github.com/mlcommons/training_policies: time to a quality target, and when the clock starts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import CALL_TIMEOUT
from mlp_accel.bench.engines.peers import peer_class
from mlp_accel.bench.results import Run, Summary, TimeToAccuracy, Until
from mlp_accel.bench.runs import Listener, Measurement, attempt, start, train_epoch

SEEDS = 5
MAX_EPOCHS = 50
"""An engine that has not reached the accuracy by then does not reach it."""

CONSTANT_RATE = "at a constant rate: it has no schedule"


def time_to_accuracy(
    runs: Sequence[Run],
    config: Config,
    accuracies: Sequence[float],
    listen: Listener = lambda _: None,
    timeout: float = CALL_TIMEOUT,
    max_epochs: int = MAX_EPOCHS,
) -> tuple[Until, ...]:
    """Train every engine from several seeds until it reaches the accuracies on the test set.

    Parameters
    ----------
    runs : sequence of Run
        Results of `run_benchmark`: an engine whose training was not right there does not take part.
    config, listen, timeout
        As for `run_benchmark`.
    accuracies : sequence of float
        Fractions of the test set, between 0 and 1. One training goes through all of them.
    max_epochs : int
        Where no schedule ends the training before.

    Returns
    -------
    tuple of Until
        One for each accuracy, in rising order.
    """
    goals = sorted(set(accuracies))
    seeds = tuple(config.seed + index for index in range(SEEDS))
    trials = [Trials(run, config, goals, max_epochs) for run in runs]
    interrupted = False
    rng = random.Random(config.seed)
    try:
        for trial in trials:
            attempt(trial.measurement, listen, lambda measurement: start(measurement, config, timeout, listen))
            attempt(trial.measurement, listen, train_epoch)  # to warm up
        for seed in seeds:
            for trial in rng.sample(trials, len(trials)):
                attempt(trial.measurement, listen, partial(trial.train, seed=seed))
            listen(f"seed {seed}: {', '.join(trial.latest() for trial in trials if trial.measurement.running)}")
    except KeyboardInterrupt:
        interrupted = True
    finally:
        for trial in trials:
            trial.measurement.close()
    return tuple(
        Until(
            accuracy=accuracy,
            seeds=seeds,
            max_epochs=config.schedule_epochs or max_epochs,
            interrupted=interrupted,
            config=config,
            results=tuple(trial.result(accuracy) for trial in trials),
        )
        for accuracy in goals
    )


class Reached(NamedTuple):
    """An accuracy is reached: seconds until the engine could train, seconds of training since then, and its epochs."""

    preparation: float
    training: float
    epochs: int


class Trials:
    """The trainings of one engine, a seed each.

    Parameters
    ----------
    run : Run
        Its result in the benchmark.
    goals : sequence of float
        Accuracies in rising order.
    """

    def __init__(self, run: Run, config: Config, goals: Sequence[float], max_epochs: int) -> None:
        self.measurement = Measurement.of(run.name, run.path)
        self.measurement.path, self.measurement.status, self.measurement.reason = run.path, run.status, run.reason
        constant = config.schedule == "constant"
        self.remark = CONSTANT_RATE if not constant and run.kind == "peer" and not peer_class(run.name).schedules else None
        self.max_epochs = max_epochs if constant or self.remark else config.schedule_epochs or max_epochs
        self.reached: dict[float, list[Reached]] = {goal: [] for goal in goals}
        self.missed: dict[float, str] = {}

    def train(self, measurement: Measurement, seed: int) -> None:
        """Train from `seed` until all accuracies are reached that every seed before it has reached."""
        engine = measurement.engine
        assert engine is not None
        ahead = [goal for goal in self.reached if goal not in self.missed]
        if not ahead:
            return
        preparation = engine.call("restart", seed)["preparation_seconds"]
        training = best = 0.0
        for epoch in range(1, self.max_epochs + 1):
            training += engine.call("epoch", False)["seconds"]
            best = max(best, engine.call("evaluate")["test_accuracy"])
            while ahead and best >= ahead[0]:
                self.reached[ahead.pop(0)].append(Reached(preparation, training, epoch))
            if not ahead:
                return
        for goal in ahead:
            self.missed[goal] = f"it reached {best:.2%} in {self.max_epochs} epochs with seed {seed}, not {goal:.2%}"

    def latest(self) -> str:
        """The last training in words."""
        times = [(goal, found[-1]) for goal, found in self.reached.items() if found and goal not in self.missed]
        if not times:
            return self.measurement.label
        words = (f"{found.preparation + found.training:.3f} s to {goal:.2%} ({found.epochs} epochs)" for goal, found in times)
        return f"{self.measurement.label} {', '.join(words)}"

    def result(self, accuracy: float) -> TimeToAccuracy:
        """What was found; seconds only if every seed reached the accuracy."""
        found, reached = self.measurement, self.reached[accuracy]
        answer = TimeToAccuracy(
            name=found.name,
            path=found.path,
            kind=found.kind,
            status=found.status,
            reason=found.reason,
            remark=self.remark,
            epochs=tuple(training.epochs for training in reached),
        )
        if found.status != "ok":
            return answer
        if accuracy in self.missed:
            return replace(answer, status="failed", reason=self.missed[accuracy])
        if not reached:
            return replace(answer, status="failed", reason="interrupted before the end of its first training")
        return replace(
            answer,
            seconds=Summary.of([training.training for training in reached]),
            seconds_with_preparation=Summary.of([training.preparation + training.training for training in reached]),
        )
