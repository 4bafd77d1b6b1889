"""How many threads the steps of a loop are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import threadpoolctl

from mlp_accel import get_backend, init_params, network
from mlp_accel.backends.pace import LONGEST_REST, SHORTEST_REST, STEPS_ALONE, Pace
from mlp_accel.backends.threads import available_cores
from mlp_accel.training.trainer import Trainer

ALONE = 0.001


class Machine:
    """Steps that take as long as it is said, by a clock of its own."""

    def __init__(self, n_threads: int) -> None:
        self.now, self.given = 0.0, [0]
        self.pace = Pace(n_threads, self.given.append)

    @property
    def threads(self) -> int:
        return self.given[-1]

    def step(self, by_all: float) -> int:
        """A step that takes `ALONE` on one thread, and so many times that on all; how many threads it had."""
        threads = self.threads
        seconds = ALONE * (by_all if threads > 1 else 1)
        self.now += seconds
        self.pace.step(seconds, self.now)
        return threads

    def steps(self, count: int, by_all: float) -> list[int]:
        return [self.step(by_all) for _ in range(count)]


def test_after_a_few_steps_alone_threads_that_pay_are_all_given() -> None:
    machine = Machine(4)
    assert machine.steps(200, by_all=0.4) == [1] * STEPS_ALONE + [4] * (200 - STEPS_ALONE)
    assert machine.pace.rests == 0


def test_where_threads_wait_for_each_other_nearly_all_steps_are_of_one() -> None:
    machine = Machine(2)
    threads = machine.steps(2000, by_all=50)
    assert threads.count(2) == machine.pace.rests
    assert 0 < threads.count(2) < 20
    assert machine.now < 2 * 2000 * ALONE, "it would be fifty times with all threads"


def test_a_rest_is_twice_as_long_as_the_last_one_up_to_a_limit_and_short_again_after_a_calm_time() -> None:
    machine = Machine(2)
    machine.steps(STEPS_ALONE, by_all=50)
    rests = []
    for _ in range(12):
        machine.step(by_all=50)
        start = machine.now
        while machine.threads == 1:
            machine.step(by_all=50)
        rests.append(machine.now - start)
    expected = [min(SHORTEST_REST * 2**i, LONGEST_REST) for i in range(12)]
    np.testing.assert_allclose(rests, expected, atol=1.5 * ALONE)
    machine.steps(200, by_all=0.6)
    machine.step(by_all=50)
    assert machine.threads == 1
    machine.steps(4, by_all=0.6)
    assert machine.threads == 2


def test_all_threads_are_given_back_at_the_end() -> None:
    machine = Machine(3)
    machine.pace.close()
    assert machine.threads == 3


def test_with_one_thread_there_is_nothing_to_decide() -> None:
    machine = Machine(1)
    assert machine.steps(50, by_all=50) == [1] * 50
    assert machine.pace.rests == 0


def blas_threads(layer_sizes: list[int], batch_size: int, backend_name: str = "numpy") -> set[int]:
    """Of BLAS in the steps of an epoch on all cores."""
    seen: set[int] = set()

    def step(*arguments: Any) -> Any:
        seen.update(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")
        return network.train_step(*arguments)

    backend, cores = get_backend(backend_name), available_cores()
    x, y = np.zeros((2 * batch_size, layer_sizes[0]), np.float32), np.zeros(2 * batch_size, np.int64)
    with backend.limit_threads(cores):
        Trainer(x, y, [init_params(layer_sizes)], backend, batch_size=batch_size, threads=cores, step=step).epoch()
    return seen


@pytest.mark.skipif(available_cores() == 1, reason="one core")
def test_numpy_gives_small_products_one_thread_and_large_ones_all() -> None:
    assert blas_threads([784, 32, 10], 128) == {1}
    assert blas_threads([784, 512, 10], 128) == {available_cores()}


@pytest.mark.skipif(available_cores() == 1, reason="one core")
def test_numba_has_its_threads_back_after_an_epoch() -> None:
    numba = pytest.importorskip("numba")
    backend, cores = get_backend("numba"), available_cores()
    x, y = np.ones((64, 8), np.float32), np.zeros(64, np.int64)
    with backend.limit_threads(cores):
        Trainer(x, y, [init_params([8, 4, 2])], backend, batch_size=32, threads=cores, path="loop").epoch()
        assert numba.get_num_threads() == cores
