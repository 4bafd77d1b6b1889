"""What only a GPU can show: each path against NumPy, the same bits run after run, one network or many, and a steady memory pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlp_accel import get_backend, init_params, mini_batch_sgd, train_many
from mlp_accel.activations import ACTIVATIONS
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.bench.checks import PARAMETER_TOLERANCE
from mlp_accel.datasets import Dataset
from mlp_accel.optimizers import OPTIMIZERS
from mlp_accel.training.trainer import Trainer
from tests.conftest import require

pytestmark = pytest.mark.cupy
PATHS = ("loop", "steps", "graph", "cluster:2", "cluster:4", "cluster:8", "cluster:16")
PAIRS = [(activation, list(OPTIMIZERS)[i % len(OPTIMIZERS)], "exact") for i, activation in enumerate(ACTIVATIONS)]


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> CupyBackend:
    require(request, "cupy")
    return CupyBackend()


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, gpu: CupyBackend) -> str:
    name: str = request.param
    if name.startswith("cluster") and gpu.gpu.capability < (9, 0):
        pytest.skip(f"clusters need compute capability 9.0, {gpu.device} has {gpu.gpu.capability}")
    return name


@pytest.mark.parametrize(("activation", "optimizer", "gradient"), [*PAIRS, ("relu", "sgd", "notebook")])
def test_parameters_agree_with_numpy_after_20_steps(
    mnist: Dataset, gpu: CupyBackend, path: str, activation: str, optimizer: str, gradient: str
) -> None:
    n = 20 * 128 - 50  # the last minibatch is short
    results = []
    for backend, by in ((gpu, path), (get_backend("numpy"), "loop")):
        options: dict[str, Any] = {
            "activation": activation,
            "gradient": gradient,
            "optimizers": [OPTIMIZERS[optimizer]],
            "path": by,
        }
        trainer = Trainer(mnist.x_train[:n], mnist.y_train[:n], [init_params([784, 32, 10])], backend, **options)
        trainer.epoch()
        results.append(trainer.params())
    # Where gradients are tiny, what Adam makes of them depends on their last bits.
    tolerance = PARAMETER_TOLERANCE["float32"] * (10 if optimizer.startswith("adam") else 1)
    for ours, theirs in zip(*results, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(np.abs(b).max()))


def test_the_same_run_gives_the_same_bits_and_keeps_its_memory(mnist: Dataset, gpu: CupyBackend, path: str) -> None:
    def train() -> tuple[Any, list[int]]:
        trainer = Trainer(mnist.x_train, mnist.y_train, [init_params([784, 32, 10])], gpu, path=path)
        pool = gpu.xp.get_default_memory_pool()
        sizes = []
        for _ in range(3):
            trainer.epoch()
            sizes.append(pool.total_bytes())
        return trainer.params(), sizes

    first, sizes = train()
    again, _ = train()
    assert sizes[1] == sizes[2]
    for one, other in zip(first, again, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_many_networks_are_bit_equal_to_one_by_one(mnist: Dataset, gpu: CupyBackend, path: str) -> None:
    x, y = mnist.x_train[:3000], mnist.y_train[:3000]
    networks = [init_params([784, 32, 10], seed=seed) for seed in range(40)]
    rates = [0.1 + 0.01 * i for i in range(40)]
    options: dict[str, Any] = {"epochs": 2, "backend": gpu, "path": path}
    together = train_many(x, y, networks, learning_rates=rates, **options)
    for index in (0, 17, 39):
        alone = mini_batch_sgd(x, y, networks[index], learning_rate=rates[index], seed=index, **options)
        assert together[index].loss == alone.loss
        for one, other in zip(together[index].params, alone.params, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)
