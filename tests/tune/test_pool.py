"""The pool: processes of this host, each of which can be lost alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlp_accel.tune.executors import Pending, Pool, WorkerLostError

SCRIPT = """
from mlp_accel.tune import grid, tune
print(tune(grid(hidden=[4]), DATA, backend="numpy", seeds=2).missing)
"""

PARENT = """
import time
from mlp_accel.tune.executors import Pool
if __name__ == "__main__":
    pool = Pool(1)
    print(pool._processes[0].pid.result(), flush=True)
    time.sleep(600)
"""


def test_a_worker_that_ends_is_noticed_replaced_and_costs_the_others_nothing() -> None:
    with Pool(2) as pool:
        slow, pid = pool.submit(time.sleep, 0.5), pool.submit(os.getpid)
        assert pool.wait(60) == [pid]
        assert pool.result(pid) != os.getpid()
        lost = pool.submit(os._exit, 1)
        ended = set[Pending]()
        while len(ended) < 2:
            ended |= set(pool.wait(60))
        assert ended == {slow, lost}
        assert pool.result(slow) is None
        with pytest.raises(WorkerLostError, match="its worker process ended"):
            pool.result(lost)
        again = pool.submit(os.getpid)
        assert pool.wait(60) == [again]
        assert isinstance(pool.result(again), int)


def test_a_worker_that_hangs_can_be_ended() -> None:
    with Pool(1) as pool:
        hung = pool.submit(time.sleep, 600)
        assert pool.end(hung)
        assert pool.wait(60) == [hung]
        with pytest.raises(WorkerLostError):
            pool.result(hung)


def test_each_process_sees_its_gpu() -> None:
    with Pool(2, ["0", "1"]) as pool:
        seen = [pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES") for _ in range(2)]
        waited = list[Pending]()
        while len(waited) < 2:
            waited += pool.wait(60)
        assert [pool.result(task) for task in seen] == ["0", "1"]


def test_a_script_without_the_guard_is_told_what_is_missing(clouds: Path, tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(SCRIPT.replace("DATA", repr(str(clouds))))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "if __name__ == '__main__'" in done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
