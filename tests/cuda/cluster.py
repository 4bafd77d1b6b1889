"""The cluster kernel on the CPU, and what float64 says it should compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.cuda import ceil_div, round_up
from mlp_accel.backends.cuda.cluster import ClusterShape, cluster_source
from mlp_accel.network import init_params
from mlp_accel.training import SGDStep, to_backend
from mlp_accel.workspace import NO_WORKSPACE
from tests.cuda.emulator import DEFAULT, Emulation, Program, stacked
from tests.reference import ReferenceBackend


@dataclass
class Result:
    """What a training epoch leaves behind, for one network or several stacked ones."""

    params: list[npt.NDArray[Any]]
    losses: npt.NDArray[Any]
    hits: npt.NDArray[Any]


@dataclass
class Problem:
    """Random images, labels, orders, learning rates and initial parameters for `networks` networks."""

    shape: ClusterShape
    n: int
    networks: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        shape, n = self.shape, self.n
        ink = rng.random((n, shape.inputs)) < 0.3
        self.images = (rng.integers(0, 256, (n, shape.inputs)) * ink).astype(np.uint8)
        self.labels = rng.integers(0, shape.classes, n).astype(np.int32)
        self.orders = np.stack([rng.permutation(n) for _ in range(self.networks)]).astype(np.int32)
        rate = 0.02 if shape.gradient == "notebook" else 0.4  # the notebook's gradient is a sum, not a mean
        self.learning_rates = (rate * (1 + 0.3 * np.arange(self.networks))).astype(np.float32)
        sizes = [shape.inputs, shape.hidden, shape.classes]
        networks = [init_params(sizes, seed=seed, random_bias=True) for seed in range(self.networks)]
        self.params = [np.stack(layer) for layer in zip(*(stacked(params) for params in networks), strict=True)]

    def only(self, network: int) -> Problem:
        """The same for one of the networks alone."""
        problem = Problem(self.shape, self.n, 1, self.seed)
        problem.images, problem.labels = self.images, self.labels
        problem.orders, problem.learning_rates = self.orders[[network]], self.learning_rates[[network]]
        problem.params = [a[[network]] for a in self.params]
        return problem


def program(shape: ClusterShape) -> Program:
    """The kernel for `shape`."""
    return Program(cluster_source(), shape.options())


def emulate(problem: Problem, emulation: Emulation = DEFAULT) -> Result:
    """Train on the shim; an outcome other than "done" is an AssertionError."""
    shape, n = problem.shape, problem.n
    params = [a.copy() for a in problem.params]
    images = aligned(n, round_up(shape.inputs, 16))
    images[:, : shape.inputs] = problem.images
    steps = ceil_div(n, shape.batch)
    losses, hits = np.full((problem.networks, n), np.nan, np.float32), np.zeros((problem.networks, n), np.uint8)
    sums = [np.full((problem.networks, steps), np.nan) for _ in range(2)]
    data: list[Any] = [images, problem.labels, problem.orders, problem.learning_rates, *params]
    arguments = [*data, losses, hits, *sums, np.int32(n)]
    blocks = problem.networks * shape.cluster
    program(shape).launch("train_epoch", blocks, shape.threads, shape.shared_bytes, arguments, emulation)
    return Result(params, sums[0], sums[1])


def aligned(rows: int, width: int) -> npt.NDArray[np.uint8]:
    """Zeros that begin at a multiple of 16 bytes, as memory of a GPU does."""
    memory = np.zeros(rows * width + 16, np.uint8)
    start = -memory.ctypes.data % 16
    return memory[start : start + rows * width].reshape(rows, width)


def reference(problem: Problem, dtype: str = "float64") -> Result:
    """The base backend's training epoch on the same data, network by network."""
    backend = ReferenceBackend(dtype)
    shape, results = problem.shape, []
    for network in range(problem.networks):
        arrays = [a[network] for a in problem.params]
        params = to_backend(backend, list(zip(arrays[::2], arrays[1::2], strict=True)))
        step = SGDStep(float(problem.learning_rates[network]), shape.activation, shape.gradient)
        data = (problem.images, problem.labels, problem.orders[network])
        params, losses, hits = backend.train_epoch(step, params, *data, shape.batch, NO_WORKSPACE)
        results.append(([a for pair in params for a in pair], losses, hits))
    params_of_each, losses_of_each, hits_of_each = zip(*results, strict=True)
    return Result([np.stack(a) for a in zip(*params_of_each, strict=True)], np.stack(losses_of_each), np.stack(hits_of_each))


def distance(result: Result, expected: Result) -> float:
    """Largest difference of a parameter, in units of the largest of its array."""
    pairs = zip(result.params, expected.params, strict=True)
    differences = [float(np.abs(a - b).max() / (np.abs(b).max() or 1.0)) for a, b in pairs]
    return float(np.max(differences))  # NaN stays NaN
