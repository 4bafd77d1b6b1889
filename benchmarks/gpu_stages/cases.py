"""The trainings that are measured: networks, and the data for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel import get_backend, init_params, load
from mlp_accel.backends.base import Backend
from mlp_accel.backends.threads import default_threads
from mlp_accel.training.trainer import Trainer

BATCH = 128
LEARNING_RATE = 0.5


@dataclass(frozen=True)
class Case:
    """A network, and the kind of its data.

    Attributes
    ----------
    data : {"mnist", "mnist-float32", "table"}
        Images as they are, uint8; the same divided by 255; or 60,000 samples of normal numbers, labelled by a random linear map.
    """

    layer_sizes: tuple[int, ...] = (784, 32, 10)
    data: str = "mnist"
    learning_rate: float = LEARNING_RATE

    def __str__(self) -> str:
        return f"{self.data} {'-'.join(map(str, self.layer_sizes))}"


MNIST = Case()
DEEP = Case((784, 64, 32, 10))
FLOATS = Case((784, 128, 10), "mnist-float32")
TABLE = Case((54, 32, 7), "table", 0.1)

Samples = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@cache
def samples(case: Case, n: int | None = None) -> Samples:
    """Samples and labels for training; the first `n` of them."""
    if case.data == "table":
        rng = np.random.default_rng(0)
        x = rng.normal(size=(60_000, case.layer_sizes[0])).astype(np.float32)
        return x[:n], (x @ rng.normal(size=(x.shape[1], case.layer_sizes[-1])).astype(np.float32)).argmax(axis=1)[:n]
    mnist = load("mnist")
    x = mnist.x_train[:n]
    return (x.astype(np.float32) / np.float32(255) if case.data == "mnist-float32" else x), mnist.y_train[:n]


def trainer(
    case: Case,
    data: Samples,
    backend: Backend,
    path: str | None,
    networks: int = 1,
    *,
    batch_size: int = BATCH,
    first_seed: int = 0,
) -> Trainer:
    """Networks about to be trained; weights and order of each are drawn from a seed of its own, `first_seed` and those after it."""
    seeds = list(range(first_seed, first_seed + networks))
    params = [init_params(case.layer_sizes, seed=seed) for seed in seeds]
    return Trainer(
        *(*data, params, backend),
        batch_size=batch_size,
        learning_rates=case.learning_rate,
        seeds=seeds,
        path=path,
        threads=default_threads(),
    )


@cache
def reference_losses(case: Case, n: int | None = None, epochs: int = 2) -> list[float]:
    """The NumPy backend's losses of the first epochs."""
    training = trainer(case, samples(case, n), get_backend("numpy"), "loop")
    return [training.epoch().losses[0] for _ in range(epochs)]
