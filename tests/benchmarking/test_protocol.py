"""The protocol: workers, turns, checks, and failures that cost only their own row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel.benchmarking import protocol
from mlp_accel.benchmarking.engine import Engine, EngineError
from mlp_accel.benchmarking.environment import environment
from mlp_accel.benchmarking.protocol import run_benchmark, summary


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 900)
    x = rng.normal(size=(900, 8)) + 3 * np.eye(3, 8)[y]
    path = tmp_path_factory.mktemp("data") / "clouds.npz"
    np.savez(path, x_train=x[:800], y_train=y[:800], x_test=x[800:], y_test=y[800:])
    return {
        "layer_sizes": [8, 6, 3],
        "activation": "tanh",
        "gradient": "exact",
        "dtype": "float32",
        "batch_size": 16,
        "learning_rate": 0.1,
        "seed": 0,
        "threads": 1,
        "fused": True,
        "data": str(path),
        "n_train": 800,
    }


def worker(behaviour: str) -> list[str]:
    """A worker that behaves as the real one, except for what `behaviour` (Python) plants in it."""
    code = f"from mlp_accel.benchmarking import worker\nfrom mlp_accel.benchmarking.worker import *\n{behaviour}\nworker.main()"
    return [sys.executable, "-c", code]


def plant(monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    """Make the second engine that starts a misbehaving one; the first is the reference."""
    count = iter(range(100))
    monkeypatch.setattr(protocol, "Engine", lambda: Engine(worker(behaviour) if next(count) == 1 else None))


def test_the_reference_runs_even_if_it_is_not_shown(config: dict[str, Any]) -> None:
    heard: list[str] = []
    result = run_benchmark(["numba"], config, 2, heard.append)
    assert [row["name"] for row in result["results"]] == ["numba"]
    assert any("numpy" in line for line in heard)


def test_a_right_result_has_all_its_times(config: dict[str, Any]) -> None:
    result = run_benchmark(["numpy"], config, 6)
    (row,) = result["results"]
    assert (row["status"], row["reason"], row["kind"]) == ("ok", None, "backend")
    assert len(row["epoch_seconds"]["samples"]) == 6
    assert len(row["loss"]) == 7
    assert row["loss"][-1] < row["loss"][0]
    assert row["cold_start_seconds"] > 0
    assert row["transfer_seconds"] >= 0
    assert row["train_accuracy"] > 0.9
    assert row["test_accuracy"] > 0.9
    json.dumps(result, allow_nan=False)


LIES = {
    "half of the data": """
original = BackendEngine._trainer
def half(self, x, y):
    return original(self, x[: len(x) // 2], y[: len(y) // 2]) if len(x) == 800 else original(self, x, y)
BackendEngine._trainer = half""",
    "a wrong gradient": """
from mlp_accel.backends.numpy_backend import NumpyBackend
original = NumpyBackend.dense_gradient
def wrong(self, x, delta, out=None):
    weights, bias = original(self, x, delta, out)
    return weights * 1.001, bias
NumpyBackend.dense_gradient = wrong""",
    "no training at all": """
BackendEngine.epoch = lambda self: (1.0, 0.5)""",
    "a loss that is not a number": """
BackendEngine.epoch = lambda self: (float("nan"), 0.5)""",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_wrong_result_is_a_mismatch_and_never_a_time(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], lie: str) -> None:
    plant(monkeypatch, LIES[lie] + AS_NUMPY)
    result = run_benchmark(["numpy", "numba"], config, 2)
    honest, liar = result["results"]
    assert honest["status"] == "ok"
    assert liar["status"] == "mismatch", liar
    assert liar["reason"]
    assert liar["epoch_seconds"] is None
    assert liar["cold_start_seconds"] is None
    json.dumps(result, allow_nan=False)


AS_NUMPY = """
init = BackendEngine.__init__
BackendEngine.__init__ = lambda self, name, config: init(self, "numpy", config)"""
"""The planted worker computes with NumPy, whatever it is called: it starts faster."""


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("import ctypes\nBackendEngine.epoch = lambda self: ctypes.string_at(0)", "SIGSEGV"),
        ("import os\nBackendEngine.epoch = lambda self: os._exit(7)", "exit status 7"),
        (
            "def epoch(self): raise MemoryError('no room for 3 TiB')\nBackendEngine.epoch = epoch",
            "out of memory: no room for 3 TiB",
        ),
        ("import sys\nsys.exit('cannot even start')", "cannot even start"),
    ],
)
def test_a_crash_costs_only_its_own_row(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], behaviour: str, reason: str
) -> None:
    plant(monkeypatch, behaviour + AS_NUMPY)
    honest, broken = run_benchmark(["numpy", "numba"], config, 2)["results"]
    assert honest["status"] == "ok"
    assert broken["status"] == "failed"
    assert reason in broken["reason"]
    assert broken["epoch_seconds"] is None


def test_without_the_reference_nothing_is_called_right(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    count = iter(range(100))
    monkeypatch.setattr(protocol, "Engine", lambda: Engine(worker("import sys\nsys.exit(1)") if next(count) == 0 else None))
    reference, other = run_benchmark(["numpy", "numba"], config, 1)["results"]
    assert reference["status"] == "failed"
    assert other["status"] == "mismatch"
    assert "the reference (numpy) has failed" in other["reason"]


def test_a_worker_that_hangs_is_given_up() -> None:
    engine = Engine(worker("BackendEngine.__init__ = lambda self, name, config: time.sleep(100)"))
    try:
        with pytest.raises(EngineError, match=r"no answer to 'create' within 0\.5 s"):
            engine.call("create", "backend", "numpy", {}, timeout=0.5)
    finally:
        engine.close()


NOISY = """
import os
def noisy(self, name, config):
    print("from a library", flush=True)
    os.system("echo from a child process")
BackendEngine.__init__ = noisy"""


def test_what_a_library_prints_is_no_answer(config: dict[str, Any]) -> None:
    engine = Engine(worker(NOISY))
    try:
        assert engine.call("create", "backend", "numpy", config) == {}
    finally:
        engine.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to read CPU times from")
def test_an_engine_uses_no_cpu_while_it_waits_even_if_its_threads_spin(config: dict[str, Any]) -> None:
    spin = "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()"
    engine = Engine(worker(spin))
    try:
        engine.call("create", "backend", "numpy", config)
        before = cpu_seconds(engine._process.pid)
        time.sleep(0.5)
        assert cpu_seconds(engine._process.pid) - before < 0.1
        assert before > 0
    finally:
        engine.close()


def test_workers_do_not_outlive_a_benchmark_that_is_killed(config: dict[str, Any]) -> None:
    code = f"""
import os, time
from mlp_accel.benchmarking.engine import Engine
engine = Engine()
engine.call("create", "backend", "numpy", {config!r})
print(engine._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)


def test_the_summary_is_median_minimum_and_quartiles() -> None:
    assert summary([4.0, 1.0, 3.0, 2.0, 5.0]) == {
        "median": 3.0,
        "min": 1.0,
        "q1": 2.0,
        "q3": 4.0,
        "samples": [4.0, 1.0, 3.0, 2.0, 5.0],
    }


def test_the_environment_report_names_what_a_time_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    report = environment()
    for name in ("cpu", "cores", "python", "numpy", "mlp_accel", "system", "date"):
        assert report[name], name
    assert report["variables"]["OMP_NUM_THREADS"] == "3"
    json.dumps(report)
