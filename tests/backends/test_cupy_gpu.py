"""What only a GPU can show: each path against NumPy, the same bits run after run, one network or many, and a steady memory pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlp_accel import get_backend, init_params, mini_batch_sgd, train_many
from mlp_accel.backends.cupy_backend import CupyBackend
from mlp_accel.backends.cupy_paths import PathSettings
from mlp_accel.benchmarking.checks import parameters_differ
from mlp_accel.datasets import Dataset
from mlp_accel.training import SGDStep, Trainer
from tests.conftest import require

pytestmark = pytest.mark.cupy
PATHS = [("ops", None), ("steps", None), ("graph", None), *(("cluster", size) for size in (2, 4, 8, 16))]


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> CupyBackend:
    require(request, "cupy")
    path, cluster = request.param
    backend = CupyBackend(settings=PathSettings(path, cluster))
    if path == "cluster" and backend.gpu.capability < (9, 0):
        pytest.skip(f"clusters need compute capability 9.0, {backend.device} has {backend.gpu.capability}")
    return backend


each_path = pytest.mark.parametrize("gpu", PATHS, indirect=True, ids=lambda value: value[0] + str(value[1] or ""))


@each_path
@pytest.mark.parametrize(("activation", "gradient"), [("tanh", "exact"), ("relu", "notebook"), ("sigmoid", "exact")])
def test_parameters_agree_with_numpy_after_20_steps(mnist: Dataset, gpu: CupyBackend, activation: str, gradient: str) -> None:
    rate = 0.01 if gradient == "notebook" else 0.5
    n = 20 * 128 - 50  # the last minibatch is short
    results = []
    for backend in (gpu, get_backend("numpy")):
        step = SGDStep(rate, activation, gradient)
        trainer = Trainer(mnist.x_train[:n], mnist.y_train[:n], init_params([784, 32, 10]), step, backend)
        trainer.epoch()
        results.append(trainer.host_params())
    assert parameters_differ(results[0], results[1], "float32") is None


@each_path
def test_the_same_run_gives_the_same_bits_and_keeps_its_memory(mnist: Dataset, gpu: CupyBackend) -> None:
    def train() -> tuple[Any, list[int]]:
        trainer = Trainer(mnist.x_train, mnist.y_train, init_params([784, 32, 10]), SGDStep(0.5), gpu)
        pool = gpu.xp.get_default_memory_pool()
        sizes = []
        for _ in range(3):
            trainer.epoch()
            sizes.append(pool.total_bytes())
        return trainer.host_params(), sizes

    first, sizes = train()
    again, _ = train()
    assert sizes[1] == sizes[2]
    for one, other in zip(first, again, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@each_path
def test_many_networks_are_bit_equal_to_one_by_one(mnist: Dataset, gpu: CupyBackend) -> None:
    x, y = mnist.x_train[:3000], mnist.y_train[:3000]
    networks = [init_params([784, 32, 10], seed=seed) for seed in range(40)]
    rates = [0.1 + 0.01 * i for i in range(40)]
    together = train_many(x, y, networks, learning_rates=rates, epochs=2, backend=gpu)
    for index in (0, 17, 39):
        alone = mini_batch_sgd(x, y, networks[index], learning_rate=rates[index], seed=index, epochs=2, backend=gpu)
        assert together[index].loss == alone.loss
        for one, other in zip(together[index].params, alone.params, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)
