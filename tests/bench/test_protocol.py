"""The protocol: workers, turns, threads and what is reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlp_accel.bench import runs
from mlp_accel.bench.checks import more_cores
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import Engine, EngineError
from mlp_accel.bench.protocol import run_benchmark
from mlp_accel.bench.results import Run
from mlp_accel.bench.runs import summary
from tests.bench.conftest import there, times, worker


def test_the_reference_runs_even_if_it_is_not_shown(config: Config) -> None:
    heard: list[str] = []
    result = run_benchmark(["numba"], replace(config, epochs=2), heard.append)
    assert [(row.name, row.path) for row in result.results] == [("numba", "loop")]
    assert any("numpy loop" in line for line in heard)


def test_a_right_result_has_all_its_times(config: Config) -> None:
    result = run_benchmark(["numpy"], replace(config, epochs=6))
    (row,) = result.results
    assert (row.status, row.reason, row.kind) == ("ok", None, "backend")
    assert (row.name, row.path, row.passed_over) == ("numpy", "loop", ())
    assert len(times(row).samples) == 6
    assert len(row.loss) == 7
    assert there(row.loss[-1]) < there(row.loss[0])
    assert there(row.cold_start_seconds) > 0
    assert there(row.transfer_seconds) >= 0
    assert there(row.train_accuracy) > 0.9
    assert there(row.test_accuracy) > 0.9
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_worker_that_hangs_is_given_up() -> None:
    engine = Engine(worker("BackendWorker.__init__ = lambda self, *_: time.sleep(100)"), timeout=0.5)
    try:
        with pytest.raises(EngineError, match=r"no answer to 'create' within 0\.5 s"):
            engine.call("create", "backend", "numpy", {})
    finally:
        engine.close()


NOISY = """
import os
def noisy(self, *_):
    print("from a library", flush=True)
    os.system("echo from a child process")
BackendWorker.__init__ = noisy"""


def test_what_a_library_prints_is_no_answer(config: Config) -> None:
    engine = Engine(worker(NOISY))
    try:
        assert engine.call("create", "backend", "numpy", config.to_dict()) == {}
    finally:
        engine.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to read CPU times from")
def test_an_engine_uses_no_cpu_while_it_waits_even_if_its_threads_spin(config: Config) -> None:
    spin = "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()"
    engine = Engine(worker(spin))
    try:
        engine.call("create", "backend", "numpy", config.to_dict())
        before = cpu_seconds(engine._process.pid)
        time.sleep(0.5)
        assert cpu_seconds(engine._process.pid) - before < 0.1
        assert before > 0
    finally:
        engine.close()


CHILD = """
import subprocess, sys
def init(self, *_):
    self.child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
BackendWorker.__init__ = init
BackendWorker.child_pid = lambda self: {"pid": self.child.pid}"""


def gone(pid: int) -> bool:
    """Whether a process has ended, at the latest in some seconds; a zombie has."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to read CPU times from")
@pytest.mark.parametrize("death", ["", "import os\nBackendWorker.die = lambda self: os._exit(7)"], ids=["closed", "dead"])
def test_children_of_a_worker_stop_and_end_with_it(config: Config, death: str) -> None:
    engine = Engine(worker(CHILD + "\n" + death))
    try:
        engine.call("create", "backend", "numpy", config.to_dict())
        pid = engine.call("child_pid")["pid"]
        before = cpu_seconds(pid)
        time.sleep(0.5)
        assert cpu_seconds(pid) - before < 0.1
        if death:  # its child still holds its streams
            with pytest.raises(EngineError, match="exit status 7"):
                engine.call("die")
            assert gone(pid)
    finally:
        engine.close()
    assert gone(pid)


def test_a_worker_outlives_the_thread_that_has_made_it(config: Config) -> None:
    engines: list[Engine] = []
    thread = threading.Thread(target=lambda: engines.append(Engine()))
    thread.start()
    thread.join()
    (engine,) = engines
    try:
        assert engine.call("create", "backend", "numpy", config.to_dict()) == {}
        time.sleep(0.2)
        assert engine.call("warm_up")["device"] == "cpu"
    finally:
        engine.close()


def test_workers_do_not_outlive_a_benchmark_that_is_killed(config: Config) -> None:
    code = f"""
import os, time
from mlp_accel.bench.engines.engine import Engine
engine = Engine()
engine.call("create", "backend", "numpy", {config.to_dict()!r})
print(engine._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout)
    assert gone(pid)


def test_the_summary_is_median_minimum_and_quartiles() -> None:
    assert summary([4.0, 1.0, 3.0, 2.0, 5.0]) == {
        "median": 3.0,
        "min": 1.0,
        "q1": 2.0,
        "q3": 4.0,
        "samples": [4.0, 1.0, 3.0, 2.0, 5.0],
    }


# Turns, threads, warm-up ------------------------------------------------------------------------------------------------------


class Recorder(Engine):
    """An engine that notes its commands."""

    commands: ClassVar[list[tuple[str, str, float]]] = []

    def call(self, command: str, *arguments: Any) -> dict[str, Any]:
        if command == "create":
            self.name = arguments[1]
        answer = super().call(command, *arguments)
        self.commands.append((self.name, command, time.monotonic()))
        return answer


def test_engines_take_turns_epoch_by_epoch_in_random_order(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    Recorder.commands.clear()
    monkeypatch.setattr(runs, "Engine", Recorder)
    names = ["numpy", "numpy-handwritten", "notebook"]
    result = run_benchmark(names, replace(config, epochs=12))
    assert [row.status for row in result.results] == ["ok"] * 3
    evaluated = next(i for i, (_, command, _) in enumerate(Recorder.commands) if command == "evaluate")
    epochs = [name for name, command, _ in Recorder.commands[:evaluated] if command == "epoch"]
    rounds = [tuple(epochs[start : start + 3]) for start in range(0, len(epochs), 3)]
    assert len(rounds) == 13, "one to warm up and twelve"
    assert all(sorted(turn) == sorted(names) for turn in rounds)
    assert len(set(rounds)) > 3, "not in a circle, where everybody always comes after the same one"


def test_every_start_counts_and_the_first_finds_empty_caches(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    started: list[tuple[str, bool]] = []

    def start(timeout: float, variables: dict[str, str]) -> Engine:
        folder = Path(variables["MLP_ACCEL_CACHE_DIR"])
        started.append((folder.parent.name, folder.exists()))
        folder.mkdir(exist_ok=True)
        return Engine(timeout=timeout, variables=variables)

    monkeypatch.setattr(runs, "Engine", start)
    rows = run_benchmark(["numpy", "numpy-handwritten"], replace(config, epochs=1), starts=3).results
    assert sorted(started) == sorted([(name, there) for name in ("caches-0", "caches-1") for there in (False, True, True)])
    for row in rows:
        assert row.status == "ok", row.reason
        assert there(row.first_start_seconds) > 0
        assert (len(there(row.cold_starts).samples), len(there(row.transfers).samples)) == (2, 3)
        assert row.cold_start_seconds == there(row.cold_starts).median
        assert row.transfer_seconds == there(row.transfers).median
        assert Run.from_dict(row.to_dict()) == row


def test_what_was_compiled_and_loaded_is_not_timed(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    """Warm-up comes before the data, and the first epoch is no steady one."""
    Recorder.commands.clear()
    monkeypatch.setattr(runs, "Engine", Recorder)
    (row,) = run_benchmark(["numpy"], replace(config, epochs=5)).results
    commands = [command for _, command, _ in Recorder.commands]
    assert commands == [
        "create",
        "warm_up",
        "versions",
        "libraries",
        "load",
        "check",
        *["epoch"] * 6,
        "evaluate",
        "restart",
        "epoch",
    ]
    assert (len(row.loss), len(times(row).samples)) == (6, 5)
    assert row.first_start_seconds is None
    assert "cold_starts" not in row.to_dict()


@pytest.mark.parametrize("name", ["numpy", "numba", "pytorch"])
def test_one_thread_keeps_one_core_busy(config: Config, name: str) -> None:
    row = run_benchmark([name], replace(config, threads=1, epochs=5)).results[0]
    if row.status == "unavailable":
        pytest.skip(f"{name}: {row.reason}")
    assert row.status == "ok", row.reason
    blas = [pool for pool in there(row.thread_pools) if "openblas" in pool or "mkl" in pool]
    assert blas
    assert all(pool.endswith(" 1 threads") for pool in blas)
    assert there(row.cores_used) < 1.15


def test_an_engine_with_more_threads_than_allowed_is_found_out() -> None:
    assert more_cores(1.9, 1) == "it kept 1.90 cores busy with 1 thread"
    assert more_cores(2.6, 2) == "it kept 2.60 cores busy with 2 threads"
    assert more_cores(1.05, 1) is None
    assert more_cores(0.3, 2) is None
    assert more_cores(None, 1) is None


def test_warming_up_takes_no_more_samples_than_there_are(config: Config) -> None:
    rows = run_benchmark(["numpy", "numpy-handwritten"], replace(config, batch_size=10**12, epochs=1)).results
    assert [row.status for row in rows] == ["ok", "ok"], rows


def test_the_reference_is_in_the_file_even_if_it_is_not_shown(config: Config) -> None:
    result = run_benchmark(["notebook"], replace(config, epochs=1))
    assert [row.name for row in result.results] == ["notebook"]
    assert there(result.reference).name == "numpy"
    assert times(there(result.reference)).median > 0
