"""Sweeps, time to an accuracy, rooflines, and all of them in one call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_accel import SettingError, get_backend
from mlp_accel.bench import runs, suite
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import Engine
from mlp_accel.bench.engines.op_times import seconds_per_call, step_ops
from mlp_accel.bench.output.tables import until_table
from mlp_accel.bench.output.until import until_notes
from mlp_accel.bench.results import Cell, Result, Run, Summary
from mlp_accel.bench.suite import Extras, run_suite
from mlp_accel.bench.sweeps import changed, crossovers
from mlp_accel.bench.until import time_to_accuracy
from tests.bench.conftest import there, times, worker

N = 800
"""Training samples."""

OK = [Run(name="numpy", path="loop", status="ok"), Run(name="numpy-handwritten", kind="peer", status="ok")]


def cells(times: dict[str, list[float]], values: list[int]) -> list[Cell]:
    """Rows of backends have a path behind their names; the others are peers."""

    def row(name: str, seconds: float) -> Run:
        name, _, path = name.partition(" ")
        kind = "backend" if path else "peer"
        return Run(name=name, path=path or None, kind=kind, status="ok", epoch_seconds=Summary.of([seconds]))

    return [Cell(value=value, results=tuple(row(name, t[i]) for name, t in times.items())) for i, value in enumerate(values)]


@given(exponent=st.floats(0.2, 2), where=st.floats(1.5, 63), level=st.floats(0.01, 10))
def test_two_power_laws_cross_where_they_are_equal(exponent: float, where: float, level: float) -> None:
    flat = [level, level]
    rising = [level * (value / where) ** exponent for value in (1, 64)]
    (crossing,) = crossovers(cells({"numpy loop": flat, "numba sparse": rising}, [1, 64]), N)
    assert crossing.value == pytest.approx(where, rel=1e-6)
    assert crossing.seconds == pytest.approx(level, rel=1e-6)
    assert (crossing.faster_below, crossing.faster_above) == ("numba sparse", "numpy loop")


def test_two_paths_of_one_backend_can_overtake_each_other() -> None:
    (crossing,) = crossovers(cells({"numba loop": [1.0, 2.0], "numba sparse": [2.0, 1.0], "jax": [0.1, 0.1]}, [32, 128]), N)
    assert (crossing.faster_below, crossing.faster_above, crossing.shown) == ("numba loop", "numba sparse", True)


def test_engines_that_never_meet_have_no_crossover_and_a_missing_time_is_left_out() -> None:
    assert crossovers(cells({"numpy loop": [1.0, 2.0], "numba sparse": [0.5, 1.9]}, [32, 128]), N) == ()
    some = cells({"numpy loop": [1.0, 2.0], "numba sparse": [0.5, 3.0]}, [32, 128])
    there, missing = some[1].results
    some[1] = replace(some[1], results=(there, replace(missing, epoch_seconds=None)))
    assert crossovers(some, N) == ()


def test_a_crossover_of_two_slow_peers_is_not_shown() -> None:
    found = crossovers(cells({"numba sparse": [0.1, 0.1], "jax": [1.0, 2.0], "pytorch": [2.0, 1.0]}, [32, 128]), N)
    assert [crossing.shown for crossing in found] == [False]
    found = crossovers(cells({"numba sparse": [0.1, 0.1], "jax": [0.01, 1.0]}, [32, 128]), N)
    assert [crossing.shown for crossing in found] == [True]


def test_a_hidden_width_is_that_of_every_hidden_layer(config: Config) -> None:
    assert changed(replace(config, layer_sizes=(8, 6, 5, 3)), "hidden", 20).layer_sizes == (8, 20, 20, 3)
    assert changed(config, "batch_size", 20).batch_size == 20


@pytest.mark.parametrize(
    ("extras", "words"),
    [
        (Extras(sweep_batch=(32,)), "--sweep-batch needs two or more"),
        (Extras(sweep_hidden=(8, 8)), "--sweep-hidden needs two or more"),
        (Extras(sweep_batch=(32, 801)), "801 is more than the 800 training samples"),
        (Extras(until={95.5: Config()}), "between 0 and 1"),
        (Extras(until={0.5: Config(), 0.0: Config()}), "between 0 and 1"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(extras: Extras, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        extras.check(n_train=800)


def test_one_call_measures_everything_that_was_asked_for(config: Config) -> None:
    extras = Extras(sweep_batch=(40, 16), sweep_hidden=(4, 12), until={0.8: config})
    heard: list[str] = []
    result = run_suite(["numpy", "numpy-handwritten"], config, extras, heard.append)
    batch, hidden = result.sweeps
    assert [cell.value for cell in batch.cells] == [16, 40]
    assert [cell.value for cell in hidden.cells] == [4, 12]
    for cell in (*batch.cells, *hidden.cells):
        for row in cell.results:
            assert row.status == "ok", row.reason
            assert row.samples_per_second == pytest.approx(800 / times(row).median)
    (until,) = result.until
    assert [row.status for row in until.results] == ["ok", "ok"]
    assert 0.8 * extras.lines(["numpy", "numpy-handwritten"], 5) <= len(heard) <= 1.2 * extras.lines(["numpy"] * 2, 5) + 5


def test_the_lines_to_come_are_counted_by_engines() -> None:
    assert Extras().lines(["numba"], 10, "loop") == 2 + 1 + 10  # the reference runs too
    assert Extras().lines(["numba"], 10) == 3 + 1 + 10


def test_everybody_trains_from_the_same_five_seeds_until_it_is_good_enough(config: Config) -> None:
    (found,) = time_to_accuracy(OK, config, [0.85])
    assert found.seeds == (0, 1, 2, 3, 4)
    for row in found.results:
        assert row.status == "ok", row.reason
        assert len(row.epochs) == 5
        assert len(there(row.seconds).samples) == 5
        assert there(row.seconds).median == pytest.approx(np.median(there(row.seconds).samples))


def test_the_clock_starts_before_the_engine_has_touched_the_data(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a worker that takes its time to make a trainer and to place the data, only the times with the preparation show it."""
    slow = """
import time
from mlp_accel.bench.engines.peers.numpy_handwritten import NumpyHandwrittenPeer
trainer, place = BackendWorker._trainer, NumpyHandwrittenPeer.place
def slow_trainer(self, *data): time.sleep(0.05); return trainer(self, *data)
def slow_place(self, *data): time.sleep(0.05); place(self, *data)
BackendWorker._trainer, NumpyHandwrittenPeer.place = slow_trainer, slow_place"""
    monkeypatch.setattr(runs, "Engine", lambda timeout, **_: Engine(worker(slow), timeout))
    (found,) = time_to_accuracy(OK, config, [0.5])
    for row in found.results:
        both = zip(there(row.seconds_with_preparation).samples, there(row.seconds).samples, strict=True)
        assert all(total - training > 0.05 for total, training in both), row.label


def test_one_training_goes_through_several_accuracies_and_each_has_its_own_time(config: Config) -> None:
    slowly = replace(config, learning_rate=0.01)
    low, high, never = time_to_accuracy(OK, slowly, [0.95, 0.6, 1.1], max_epochs=20)
    assert (low.accuracy, high.accuracy, never.accuracy) == (0.6, 0.95, 1.1)
    for first, then, last in zip(low.results, high.results, never.results, strict=True):
        assert (first.status, then.status, last.status) == ("ok", "ok", "failed")
        assert sum(first.epochs) < sum(then.epochs)
        assert there(first.seconds_with_preparation).median < there(then.seconds_with_preparation).median
        assert "in 20 epochs with seed 0, not 110.00%" in str(last.reason)


def test_what_is_trained_for_several_accuracies_is_trained_once(config: Config) -> None:
    wide = replace(config, layer_sizes=(8, 12, 3))
    assert Extras(until={0.5: config, 0.9: wide, 0.7: config}).races() == [(config, [0.5, 0.7]), (wide, [0.9])]


def test_a_falling_rate_ends_the_training_and_who_has_none_says_so_and_goes_on(config: Config) -> None:
    falling = replace(config, schedule="linear", schedule_epochs=3, learning_rate=1e-9)
    pytest.importorskip("sklearn")
    rows = [*OK, Run(name="scikit-learn", kind="peer", status="ok")]
    (found,) = time_to_accuracy(rows, falling, [0.999], max_epochs=4)
    assert [int(str(row.reason).partition(" epochs")[0].rpartition(" ")[2]) for row in found.results] == [3, 3, 4]
    assert [row.remark for row in found.results] == [None, None, "at a constant rate: it has no schedule"]
    *_, note = until_notes(found)
    assert note.startswith("scikit-learn to 99.90%: at a constant rate: it has no schedule; failed: it reached ")


def test_an_accuracy_that_is_not_reached_is_no_time(config: Config) -> None:
    (found,) = time_to_accuracy(OK[:1], replace(config, learning_rate=1e-9), [0.999], max_epochs=2)
    (row,) = found.results
    assert (row.status, row.seconds, row.seconds_with_preparation) == ("failed", None, None)
    assert "in 2 epochs with seed 0, not 99.90%" in str(row.reason)


@pytest.mark.parametrize(
    ("seeds_before", "words"),
    [
        (0, "failed: interrupted before the end of its first training"),
        (2, "Seconds to 50.00% on the test set, 2 of 5 seeds: 8-6-3"),
    ],
)
def test_ctrl_c_in_a_race_leaves_a_time_that_says_from_how_many_seeds_it_is(config: Config, seeds_before: int, words: str) -> None:
    def press_ctrl_c(line: str) -> None:
        if line.startswith("seed 1:" if seeds_before else "numpy loop on"):
            raise KeyboardInterrupt

    (found,) = time_to_accuracy(OK, config, [0.5], press_ctrl_c)
    assert found.interrupted
    assert [len(row.epochs) for row in found.results] == [seeds_before] * 2
    shown = str(until_table(found, Result(environment={}, config=config, results=())).title)
    assert all(words in line for line in (until_notes(found) if seeds_before == 0 else [shown]))


def test_an_engine_that_was_not_right_does_not_race(config: Config) -> None:
    wrong = Run(name="numba", path="sparse", status="mismatch", reason="a wrong gradient")
    (found,) = time_to_accuracy([OK[0], wrong], config, [0.5])
    _, row = found.results
    assert (row.status, row.reason, row.epochs) == ("mismatch", "a wrong gradient", ())


def test_ctrl_c_leaves_what_was_measured_before(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "run_roofline", interrupted)
    result = run_suite(["numpy"], config, Extras(roofline=True), lambda _: None)
    assert result.interrupted is True
    assert result.results[0].status == "ok", result.results[0].reason


def test_the_operations_of_the_ops_of_a_step_are_counted_by_their_shapes(config: Config) -> None:
    backend = get_backend("numpy")
    ops = {name: (flops, size) for name, flops, size, _ in step_ops(backend, replace(config, layer_sizes=(100, 20, 3)))}
    assert ops["dense"] == (2 * 16 * 100 * 20 + 2 * 16 * 20, 4 * (16 * 100 + 100 * 20 + 16 * 20))
    assert ops["update"] == (2 * 16 * 100 * 20 + 16 * 20 + 3 * 100 * 20, 4 * (16 * 100 + 16 * 20 + 2 * 100 * 20))
    assert ops["hidden_delta"] == (2 * 16 * 20 * 3 + 3 * 16 * 20, 4 * (16 * 3 + 20 * 3 + 2 * 16 * 20))
    assert ops["classify"] == (6 * 16 * 3, 4 * 2 * 16 * 3)
    assert ops["minibatch"] == (16 * 100, 16 * 100 * 5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_ops_of_a_step_run_on_every_backend(config: Config, backend_name: str, optimizer: str) -> None:
    backend = get_backend(backend_name)
    for _, _, _, call in step_ops(backend, replace(config, optimizer=optimizer)):
        call()
    assert seconds_per_call(backend, backend.synchronize) > 0
