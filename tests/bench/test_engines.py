"""Which engines a benchmark has: of each backend the loop and its fastest path, each by the name of its path."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from mlp_accel import get_backend
from mlp_accel.backends.numpy.backend import NumpyBackend
from mlp_accel.bench import runs
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines import op_times
from mlp_accel.bench.engines.engine import Engine
from mlp_accel.bench.engines.op_times import whole_step
from mlp_accel.bench.output.tables import bench_notes, bench_table, sweep_lines
from mlp_accel.bench.protocol import engines, run_benchmark
from mlp_accel.bench.result_files import SCHEMA
from mlp_accel.bench.results import PassedOver, Run
from mlp_accel.bench.roofline import run_roofline
from mlp_accel.bench.sweeps import run_sweep
from mlp_accel.bench.until import time_to_accuracy
from tests.bench.conftest import planted, there, worker

QUICK = """
from mlp_accel.backends.loop import LoopPath
from mlp_accel.backends.numpy.backend import NumpyBackend
class QuickPath(LoopPath):
    name = "quick"
    def why_not(self, task):
        return {}
NumpyBackend.paths = property(lambda self: (QuickPath(self),))"""
"""A worker whose NumPy backend has a faster path, or says that it has none for this."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the NumPy backend a path that takes everything, or nothing for the reason that is given."""

    def give(reason: str) -> None:
        monkeypatch.setattr(NumpyBackend, "path_names", ("quick",))
        monkeypatch.setattr(runs, "Engine", lambda timeout, **_: Engine(worker(QUICK.format(reason)), timeout))

    return give


def test_the_loop_and_the_fastest_path_are_rows_of_their_own(both: Config, quick: Any) -> None:
    quick("None")
    heard: list[str] = []
    result = run_benchmark(["numpy", "numpy-handwritten"], replace(both, epochs=5), heard.append)
    assert result.schema == SCHEMA == 2
    assert [row.label for row in result.results] == ["numpy loop", "numpy quick", "numpy-handwritten"]
    assert [row.path for row in result.results] == ["loop", "quick", None]
    assert [row.status for row in result.results] == ["ok"] * 3
    assert result.results[0].loss == result.results[1].loss
    assert result.no_faster_path == ()
    assert any(line.startswith("numpy quick on cpu") for line in heard)
    table = bench_table(result)
    assert list(table.columns[0].cells) == ["numpy loop", "numpy quick", "numpy-handwritten"]
    assert str(table.columns[4].header) == "× numpy\nloop"
    assert next(iter(table.columns[4].cells)) == "1.00"
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_backend_that_ends_on_the_loop_has_one_row_and_a_note(both: Config, quick: Any) -> None:
    quick("'the data is dense'")
    heard: list[str] = []
    result = run_benchmark(["numpy"], replace(both, epochs=1), heard.append)
    assert [row.label for row in result.results] == ["numpy loop"]
    assert result.no_faster_path == (PassedOver(name="numpy", passed_over=(("quick", "the data is dense"),)),)
    assert "numpy: no faster path: quick: the data is dense" in bench_notes(result)


def test_a_backend_that_cannot_run_has_one_row_without_a_path(both: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = """
from mlp_accel.errors import BackendUnavailableError
def init(self, name, *_): raise BackendUnavailableError(name, "not installed", "no module", "install it")
BackendWorker.__init__ = init"""
    monkeypatch.setattr(runs, "Engine", lambda timeout, **_: Engine(planted("cupy", absent), timeout))
    rows = run_benchmark(["cupy"], replace(both, epochs=1)).results
    assert [(row.name, row.path, row.status) for row in rows] == [("cupy", None, "unavailable")]


def test_a_path_that_is_named_is_the_only_one_and_the_reference_is_still_the_loop(both: Config, quick: Any) -> None:
    quick("None")
    result = run_benchmark(["numpy"], replace(both, path="quick", epochs=1))
    assert [row.label for row in result.results] == ["numpy quick"]
    assert there(result.reference).label == "numpy loop"


def test_a_named_path_that_cannot_train_this_is_refused_with_the_reason(both: Config, quick: Any) -> None:
    quick("'the data is dense'")
    (row,) = run_benchmark(["numpy"], replace(both, path="quick", epochs=1)).results
    assert (row.path, row.status, row.refused) == ("quick", "failed", True)
    assert "the data is dense" in str(row.reason)


def test_a_row_says_which_paths_were_passed_over(both: Config, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = (
        QUICK.format("None")
        + """
class BestPath(QuickPath):
    name = "best"
    def why_not(self, task):
        return "no room"
NumpyBackend.paths = property(lambda self: (BestPath(self), QuickPath(self)))"""
    )
    quick("None")
    monkeypatch.setattr(runs, "Engine", lambda timeout, **_: Engine(worker(slow), timeout))
    result = run_benchmark(["numpy"], replace(both, epochs=1))
    assert result.results[1].passed_over == (("best", "no room"),)
    assert "numpy quick: not best: no room" in bench_notes(result)


def test_a_sweep_knows_engines_by_name_and_path(both: Config, quick: Any) -> None:
    quick("None if task.batch_size < 40 else 'batches are large'")
    sweep = run_sweep(["numpy"], replace(both, epochs=1), "batch_size", [16, 40])
    small, large = sweep.cells
    assert [row.label for row in small.results] == ["numpy loop", "numpy quick"]
    assert [row.label for row in large.results] == ["numpy loop"]
    assert sweep_lines(sweep)[0] == "batch size 40: numpy: no faster path: quick: batches are large"


def test_the_race_to_an_accuracy_is_run_by_the_same_paths(both: Config, quick: Any) -> None:
    quick("None")
    rows = [Run(name="numpy", path=path, status="ok") for path in ("loop", "quick")]
    heard: list[str] = []
    (until,) = time_to_accuracy(rows, both, [0.5], heard.append)
    found = until.results
    assert [(row.label, row.status) for row in found] == [("numpy loop", "ok"), ("numpy quick", "ok")]
    assert found[0].epochs == found[1].epochs
    assert "numpy quick on cpu" in "".join(heard)


def test_the_roofline_has_the_ops_of_the_loop_and_a_whole_step_of_every_path(both: Config, quick: Any) -> None:
    quick("None")
    rows = [Run(name="numpy", path=path, status="ok") for path in ("loop", "quick")]
    found = run_roofline(rows, replace(both, layer_sizes=(8, 6, 3)))
    assert [entry.label for entry in found] == ["numpy loop", "numpy quick"]
    assert [op.op for op in found[0].ops] == ["minibatch", "dense", "classify", "hidden_delta", "update", "whole step"]
    assert [op.op for op in found[1].ops] == ["whole step"]
    assert found[0].ops[-1].flops == found[1].ops[0].flops


def test_operations_that_no_path_can_avoid() -> None:
    """By hand: 16 samples, 8-6-4-3, a quarter of the values zero."""
    step = whole_step(Config(batch_size=16, layer_sizes=(8, 6, 4, 3), n_train=800), 0.75, 1, 0.5)
    assert step["flops"] == 2 * (2 * 16 * 8 * 6) * 0.75 + 3 * (2 * 16 * 6 * 4) + 3 * (2 * 16 * 4 * 3)
    assert step["bytes"] == 16 * 8 + 2 * 4 * (8 * 6 + 6 * 4 + 4 * 3)
    assert step["seconds"] == 0.5


@pytest.mark.parametrize("threads", [1, 3])
def test_every_thread_copies_a_part(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(op_times, "COPY_BYTES", 4 * 1000)
    copied: list[int] = []

    def once(_: Any, call: Any) -> float:
        copied.append(len(call()))
        return 2.0

    monkeypatch.setattr(op_times, "seconds_per_call", once)
    assert op_times.bandwidth(get_backend("numpy"), threads) == 4000
    assert copied == [threads]


def test_listing_the_engines_of_all_backends_imports_none_of_their_libraries() -> None:
    code = (
        "import sys; from mlp_accel.bench.protocol import engines\n"
        "found, reference = engines(['numpy', 'numba', 'cupy', 'jax'], None)\n"
        "print([run.label for run in found], [name for name in ('numba', 'cupy', 'jax') if name in sys.modules])"
    )
    expected = "['numpy loop', 'numba loop', 'numba auto', 'cupy loop', 'cupy auto', 'jax'] []\n"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == expected


def test_the_reference_is_added_where_it_is_missing() -> None:
    found, reference = engines(["numba"], "sparse")
    assert [run.label for run in found] == ["numpy loop", "numba sparse"]
    assert (reference.label, reference.shown) == ("numpy loop", False)


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "adam", "adamw"])
def test_other_optimizers_are_measured_and_checked_and_a_peer_without_them_says_so(both: Config, optimizer: str) -> None:
    rule: dict[str, Any] = {
        "optimizer": optimizer,
        "momentum": 0.9 if optimizer in ("momentum", "nesterov") else None,
        "weight_decay": 0.01,
    }
    names = ["numba", "numpy", "numpy-handwritten", "notebook"]
    *ours, peer = run_benchmark(names, replace(both, **rule, learning_rate=0.005, epochs=1)).results
    assert {row.name for row in ours} == {*names} - {"notebook"}
    for row in ours:
        assert row.status in ("ok", "unavailable"), row.reason
    assert (peer.status, peer.reason) == ("unavailable", f"it has no {optimizer}, only sgd")
