"""The search: the same results whoever trains, and nothing lost whatever happens to workers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel import OutputError, SettingError, evaluate, load, mini_batch_sgd, train_many
from mlp_accel.training.recipes import Recipe
from mlp_accel.tune import grid, tune
from mlp_accel.tune import worker as worker_module
from mlp_accel.tune.data import Split, UnfitWorkerError, shared
from mlp_accel.tune.executors import Pending, WorkerLostError, Workers
from mlp_accel.tune.journal import Journal
from mlp_accel.tune.plan import Network
from mlp_accel.tune.tuner import MAX_LOSSES, Progress, Search
from mlp_accel.tune.worker import Answer, Job, train, versions

SPACE = grid(learning_rate=[0.05, 0.2], hidden=[4, (6, 5)])


@pytest.fixture
def here() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def numbers(rows: Sequence[Any]) -> list[Any]:
    names = ("settings", "seed", "status", "accuracy", "loss", "train_accuracy", "train_loss", "epochs")
    return sorted(([row[name] for name in names] for row in rows), key=str)


def test_results_are_those_of_each_network_alone(clouds: Path, here: ThreadPoolExecutor, backend_name: str) -> None:
    found = tune(SPACE, str(clouds), seeds=2, validation=0.25, backend=backend_name, executor=here, threads=1)
    assert (found.wanted, found.missing, found.failed, found.interrupted) == (8, 0, [], None)
    data = load(clouds)
    train_rows, judge_rows = Split(0.25).rows(data.y_train, None)
    x, y = data.x_train[train_rows], data.y_train[train_rows]
    for row in found.rows:
        settings = row["settings"]
        recipe = Recipe(hidden=tuple(settings["hidden"]), learning_rate=settings["learning_rate"], seed=row["seed"])
        history = mini_batch_sgd(
            *(x, y, recipe.initial_params(8, 3)),
            learning_rate=recipe.learning_rate,
            seed=recipe.seed,
            backend=backend_name,
            threads=1,
        )
        assert (row["train_loss"], row["train_accuracy"], row["epochs"]) == (history.loss[-1], history.accuracy[-1], 5)
        judge = (data.x_train[judge_rows], data.y_train[judge_rows])
        loss, accuracy = evaluate(backend_name, history.params, *judge, "tanh", threads=1)
        assert row["accuracy"] == accuracy
        assert row["loss"] == pytest.approx(loss, rel=1e-6)


def test_the_ranking_has_mean_and_spread_over_the_seeds(clouds: Path, here: ThreadPoolExecutor) -> None:
    found = tune(SPACE, str(clouds), seeds=3, backend="numpy", executor=here)
    ranking = found.ranking()
    assert len(ranking) == 4
    assert [place.accuracy for place in ranking] == sorted((place.accuracy for place in ranking), reverse=True)
    for place in ranking:
        accuracies = [row["accuracy"] for row in found.rows if row["settings"] == place.settings]
        assert place.accuracy == pytest.approx(np.mean(accuracies))
        assert place.spread == pytest.approx(np.std(accuracies, ddof=1))
        assert place.networks == 3
    assert found.varied() == ["hidden", "learning_rate"]


def test_a_network_that_diverges_is_a_result_and_ranks_last(clouds: Path, here: ThreadPoolExecutor) -> None:
    found = tune(grid(learning_rate=[1e30, 0.1], activation=["relu"]), str(clouds), backend="numpy", executor=here)
    assert {row["settings"]["learning_rate"]: row["status"] for row in found.rows} == {1e30: "diverged", 0.1: "done"}
    assert (found.missing, found.failed) == (0, [])
    assert [place.settings["learning_rate"] for place in found.ranking()] == [0.1, 1e30]
    assert (found.ranking()[1].diverged, found.ranking()[1].loss) == (1, None)


def test_each_fold_judges_once(clouds: Path, here: ThreadPoolExecutor) -> None:
    found = tune(grid(hidden=[4]), str(clouds), seeds=2, folds=3, backend="numpy", executor=here)
    assert sorted((row["fold"], row["seed"]) for row in found.rows) == [(fold, seed) for fold in range(3) for seed in range(2)]
    data = load(clouds)
    train_rows, judge_rows = Split(None, 3).rows(data.y_train, 1)
    recipe = Recipe(hidden=(4,))
    history = mini_batch_sgd(data.x_train[train_rows], data.y_train[train_rows], recipe.initial_params(8, 3), backend="numpy")
    judged = evaluate("numpy", history.params, data.x_train[judge_rows], data.y_train[judge_rows], "tanh")
    (row,) = [row for row in found.rows if (row["fold"], row["seed"]) == (1, 0)]
    assert (row["loss"], row["accuracy"]) == pytest.approx(judged)


def test_the_folds_share_a_launch_and_have_the_bits_of_each_network_alone(clouds: Path, backend_name: str) -> None:
    with shared(str(clouds)) as source:
        job = Job(source, Split(None, 7), backend_name, None, versions(), 1)  # folds of 85 and 86 of 600 samples
        given = [Network(recipe.recipe, part) for recipe in networks(2) for part in range(7)]
        together = train(job, given).rows
        alone = [row for network in given for row in train(job, [network]).rows]
    assert numbers(together) == numbers(alone)
    assert [row["fold"] for row in together] == [*range(7)] * 2


def test_patience_ends_a_training_and_the_best_epoch_is_what_counts(
    clouds: Path, here: ThreadPoolExecutor, tmp_path: Path, backend_name: str
) -> None:
    options: dict[str, Any] = {
        "folds": 2,
        "seeds": 2,
        "backend": backend_name,
        "executor": here,
        "results": tmp_path / "tune.jsonl",
    }
    space = grid(learning_rate=[0.5], hidden=[8], epochs=[40], batch_size=[16])
    found = tune(space, str(clouds), patience=2, min_delta=0.001, **options)
    assert {row["status"] for row in found.rows} == {"stopped"}
    data = load(clouds)
    for row in found.rows:
        train_rows, judge_rows = Split(None, 2).rows(data.y_train, row["fold"])
        recipe = Recipe(hidden=(8,), seed=row["seed"])
        history = mini_batch_sgd(
            *(data.x_train[train_rows], data.y_train[train_rows], recipe.initial_params(8, 3)),
            epochs=40,
            batch_size=16,
            learning_rate=0.5,
            seed=row["seed"],
            backend=backend_name,
            validation=(data.x_train[judge_rows], data.y_train[judge_rows]),
            patience=2,
            min_delta=0.001,
        )
        assert history.best_epoch is not None
        assert (row["epochs"], row["best_epoch"]) == (len(history), history.best_epoch)
        assert row["loss"] == history.validation_loss[history.best_epoch - 1] == min(history.validation_loss)
        assert row["accuracy"] == history.validation_accuracy[history.best_epoch - 1]
    assert tune(space, str(clouds), patience=2, min_delta=0.001, **options).rows == found.rows
    more = tune(space, str(clouds), patience=3, min_delta=0.001, **options)  # another search, in the same file
    assert len((tmp_path / "tune.jsonl").read_text().splitlines()) == 8
    assert {row["early_stopping"]["patience"] for row in more.rows} == {3}


def test_arrays_can_be_given_and_the_test_set_is_not_touched(clouds: Path, here: ThreadPoolExecutor) -> None:
    data = load(clouds)
    by_name = tune(SPACE, str(clouds), backend="numpy", executor=here)
    by_arrays = tune(SPACE, (data.x_train, data.y_train), backend="numpy", executor=here)
    without_test = tune(SPACE, replace(data, x_test=data.x_test * np.nan), backend="numpy", executor=here)
    assert numbers(by_name.rows) == numbers(by_arrays.rows) == numbers(without_test.rows)


def test_the_same_search_again_trains_only_what_is_missing(clouds: Path, here: ThreadPoolExecutor, tmp_path: Path) -> None:
    file = tmp_path / "tune.jsonl"
    whole = tune(SPACE, str(clouds), seeds=2, backend="numpy", executor=here, results=file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]) + lines[3][:50])
    heard: list[Progress] = []
    again = tune(SPACE, str(clouds), seeds=2, backend="numpy", executor=here, results=file, listen=heard.append)
    assert heard[0].done == 3
    assert sum(len(progress.new) for progress in heard) == 5
    assert numbers(again.rows) == numbers(whole.rows)
    more = tune(SPACE, str(clouds), seeds=3, backend="numpy", executor=here, results=file)
    assert (more.wanted, more.missing) == (12, 0)
    assert len(file.read_text().splitlines()) == 12


def test_a_search_that_is_done_needs_no_workers(clouds: Path, here: ThreadPoolExecutor, tmp_path: Path) -> None:
    tune(SPACE, str(clouds), backend="numpy", executor=here, results=tmp_path / "tune.jsonl")
    here.shutdown()
    assert tune(SPACE, str(clouds), backend="numpy", executor=here, results=tmp_path / "tune.jsonl").missing == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 0}, "seeds must be one or more"),
        ({"seeds": [-1]}, "none negative"),
        ({"timeout": 0.0}, "the timeout must be a positive number"),
        ({"folds": 1}, "the number of folds must be at least 2"),
        ({"patience": 0}, "patience must be at least 1 epoch; got 0"),
        ({"min_delta": 0.1}, "monitor and min_delta are those of early stopping: give patience"),
        ({"sampler": object()}, "for a sampler, a mapping of ranges"),
        ({"validation": 1.5}, "between 0 and 1"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, Any], message: str, clouds: Path) -> None:
    with pytest.raises(SettingError, match=message):
        tune(SPACE, str(clouds), **change)


# What a worker does -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(clouds: Path) -> Iterator[Job]:
    with shared(str(clouds)) as source:
        yield Job(source, Split(), "numpy", None, versions(), 1)


def networks(count: int, **settings: Any) -> list[Network]:
    return [
        Network(replace(Recipe(hidden=(4,), epochs=1, learning_rate=0.1, weight_decay=0.0), seed=seed, **settings))
        for seed in range(count)
    ]


def test_out_of_memory_halves_the_launch_until_it_fits(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = train_many, list[int]()

    def small(x: Any, y: Any, given: Any, **options: Any) -> Any:
        sizes.append(len(given))
        if len(given) > 2:
            raise MemoryError("no more")
        return real(x, y, given, **options)

    expected = train(job, networks(7)).rows
    monkeypatch.setattr(worker_module, "train_many", small)
    answer = train(job, networks(7))
    assert numbers(answer.rows) == numbers(expected)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]


def test_a_network_that_alone_does_not_fit_fails_and_the_others_do_not(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = train_many

    def full(x: Any, y: Any, given: Any, **options: Any) -> Any:
        if 3 in options["seeds"]:
            raise MemoryError("no more")
        return real(x, y, given, **options)

    monkeypatch.setattr(worker_module, "train_many", full)
    rows = train(job, networks(5)).rows
    assert [(row["seed"], row["status"]) for row in rows] == [(0, "done"), (1, "done"), (2, "done"), (3, "failed"), (4, "done")]
    assert rows[3]["reason"] == "out of memory: no more"


def test_other_versions_are_an_error_that_names_them(job: Job) -> None:
    with pytest.raises(UnfitWorkerError, match=r"numpy .* in place of 1\.0: install the same versions everywhere"):
        train(replace(job, versions={**versions(), "numpy": "1.0"}), networks(1))


def test_a_path_that_cannot_be_taken_fails_with_its_reason(job: Job) -> None:
    (row,) = train(replace(job, path="sparse"), networks(1)).rows
    assert row["status"] == "failed"
    assert "no path 'sparse'" in row["reason"]


# Workers that are lost --------------------------------------------------------------------------------------------------------


class AccidentError(Exception):
    """What happens to a worker in these tests."""


class Imagined(Workers):
    """Workers in a time of their own: `fate` says what happens to each task that is submitted."""

    def __init__(self, count: int, fate: Callable[[int, Sequence[Network]], str] = lambda number, given: "ok") -> None:
        self.count, self.fate, self.clock = count, fate, 0.0
        self.pending: list[tuple[float, int, Future[Any]]] = []
        self.submitted: list[Sequence[Network]] = []
        self.ended = 0
        self.numbers = itertools.count()

    @property
    def slots(self) -> int:
        return self.count

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        job, given = arguments
        future: Future[Any] = Future()
        number = next(self.numbers)
        self.submitted.append(given)
        fate = self.fate(number, given)
        if fate == "lost":
            future.set_exception(AccidentError())
        elif fate == "ok":
            rows = [{**worker_module.identity(job, network), "status": "done", "accuracy": 0.5} for network in given]
            future.set_result(Answer(rows, 0.1 * len(given), 1))
        end = math.inf if fate == "hangs" else self.clock + 0.1 * len(given)
        self.pending.append((end, number, future))
        return future

    def wait(self, seconds: float) -> list[Pending]:
        self.pending.sort(key=lambda entry: entry[:2])
        if not self.pending or self.pending[0][0] > self.clock + seconds:
            self.clock += seconds
            return []
        self.clock = max(self.clock, self.pending[0][0])
        return [self.pending.pop(0)[2]]

    def result(self, task: Pending) -> Any:
        try:
            return task.result()
        except AccidentError:
            raise WorkerLostError("it had an accident") from None

    def end(self, task: Pending) -> bool:
        self.ended += 1
        return True

    def now(self) -> float:
        return self.clock


def search(job: Job, workers: Imagined, count: int = 200) -> Any:
    job = replace(job, source=replace(job.source, shape=(60_000, 784)))  # imagined too, so that a task is some networks
    with Journal() as journal:
        found = Search(job, networks(count), journal, timeout=60).run(workers)
    trained = [row["seed"] for row in found.rows]
    assert len(set(trained)) == len(trained)
    return found


def test_what_is_lost_with_a_worker_is_trained_again(job: Job) -> None:
    generator = np.random.default_rng(0)
    found = search(job, Imagined(3, lambda *_: "lost" if generator.random() < 0.2 else "ok"))
    assert (found.missing, found.failed) == (0, [])


def test_a_network_that_takes_its_worker_down_runs_again_three_times_and_costs_no_other(job: Job) -> None:
    workers = Imagined(2, lambda _, given: "lost" if any(network.recipe.seed == 77 for network in given) else "ok")
    found = search(job, workers)
    runs = sum(any(network.recipe.seed == 77 for network in given) for given in workers.submitted)
    assert runs == 1 + MAX_LOSSES
    assert [row["seed"] for row in found.failed] == [77]
    assert found.missing == 1
    assert found.reasons() == {"it had an accident, after it was tried 4 times": 1}


def test_a_task_that_hangs_is_ended_and_runs_again(job: Job) -> None:
    workers = Imagined(2, lambda number, _: "hangs" if number in (1, 4) else "ok")
    found = search(job, workers)
    assert (found.missing, workers.ended) == (0, 2)


def test_an_error_of_a_task_costs_that_task_alone(job: Job) -> None:
    class Failing(Imagined):
        def result(self, task: Pending) -> Any:
            answer = task.result()
            if answer.rows[0]["seed"] == 0:
                raise RuntimeError("a bug")
            return answer

    found = search(job, Failing(2))
    assert found.missing == len(found.failed) > 0
    assert set(found.reasons()) == {"RuntimeError: a bug"}


def test_ctrl_c_keeps_what_there_is(job: Job) -> None:
    class Interrupted(Imagined):
        def wait(self, seconds: float) -> list[Pending]:
            if self.clock > 3:
                raise KeyboardInterrupt
            return super().wait(seconds)

    found = search(job, Interrupted(2))
    assert found.interrupted == "Ctrl-C"
    assert 0 < found.missing < 200


def test_a_full_disk_ends_the_search(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OutputError("cannot write tune.jsonl: No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(OutputError, match="No space left"):
        search(job, Imagined(2))
