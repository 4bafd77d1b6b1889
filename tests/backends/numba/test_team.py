"""Threads that share the work of an epoch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed")

from mlp_accel.backends.numba.compiler import c_function, numba
from mlp_accel.backends.numba.emit.addresses import array_at
from mlp_accel.backends.numba.emit.atomics import atomic_add, atomic_load
from mlp_accel.backends.numba.team import REST_END, Team, Waits

TURN, WRONG, BY_JOB = range(3)
"""What the jobs below find in their table: a counter of jobs begun, of jobs that came too early, and of each job's runs."""


def _work(table: int, phase: int, job: int) -> int:
    """A job that looks whether those of the phase before are all done."""
    counters = array_at(table, 1000, 0)
    n_jobs = counters[999]
    begun = atomic_add(table + TURN * 8, 1)
    if not phase * n_jobs <= begun < (phase + 1) * n_jobs:
        atomic_add(table + WRONG * 8, 1)
    atomic_add(table + (BY_JOB + job) * 8, 1)
    total = 0.0
    for k in range(100 + 50 * job):  # some work
        total += k**0.5
    return int(total)


@pytest.fixture(scope="module")
def work() -> int:
    i = numba.int64
    return int(c_function(_work, i(i, i, i)).address)


@pytest.mark.parametrize("n_jobs", [1, 2, 3, 8])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
def test_every_job_of_every_phase_is_done_once_and_after_those_before(work: int, n_threads: int, n_jobs: int) -> None:
    team, n_phases = Team(n_threads, n_jobs), 400
    for _ in range(3):  # a team is used for many epochs
        counters = np.zeros(1000, np.int64)
        counters[999] = n_jobs
        team.work(work, counters.ctypes.data, n_phases)
        assert counters[TURN] == n_jobs * n_phases
        assert counters[WRONG] == 0
        assert (counters[BY_JOB : BY_JOB + n_jobs] == n_phases).all()


def test_who_is_away_is_helped_and_not_waited_for(work: int) -> None:
    team, counters = Team(2, 2), np.zeros(1000, np.int64)
    counters[999] = 2
    start = time.perf_counter()
    team._threads[1, REST_END] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 10**12  # rests, as on a crowded machine
    team.work(work, counters.ctypes.data, 20_000)
    assert time.perf_counter() - start < 30
    assert counters[WRONG] == 0
    assert team.waits.taken_over == 20_000


def test_waits_are_counted_from_epoch_to_epoch() -> None:
    assert Waits(5, 7, 2) - Waits(1, 7, 0) == Waits(4, 0, 2)
    assert Team(3, 2).waits == Waits(0, 0, 0)


def test_a_thread_waits_for_a_job_that_another_is_in_the_middle_of(work: int) -> None:
    """It must not go on, and sleeps meanwhile: it uses little time of its core."""
    i = numba.int64
    gate = np.zeros(2, np.int64)

    def slow(table: int, phase: int, job: int) -> int:
        if phase == 3 and job == 0:
            while atomic_load(table) == 0:
                pass
        return 0

    address = int(c_function(slow, i(i, i, i)).address)
    team = Team(2, 2)
    opener = threading.Timer(0.2, lambda: gate.__setitem__(0, 1))
    opener.start()
    cpu, wall = time.process_time(), time.perf_counter()
    team.work(address, gate.ctypes.data, 6)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert wall > 0.15
    assert cpu < 1.5 * wall, "the thread that waited kept its core busy"
    assert team.waits.sleeps > 0
    assert team.waits.rests <= 1


FORK = """
import os, sys
import numpy as np
from mlp_accel import get_backend, init_params, mini_batch_sgd
rng = np.random.default_rng(0)
x, y = rng.normal(size=(400, 60)).astype("float32"), rng.integers(0, 4, 400)
def train():
    return mini_batch_sgd(x, y, init_params([60, 20, 4]), backend="numba", epochs=2, path="dense")
here = train()
child = os.fork()
if child == 0:
    there = train()
    same = all((a == b).all() for ours, theirs in zip(here.params, there.params) for a, b in zip(ours, theirs))
    os._exit(0 if same and there.loss == here.loss else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_trains_to_the_same_bits() -> None:
    result = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
