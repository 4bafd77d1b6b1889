"""A training problem for the kernels, and what float64 says they should compute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.cupy.source import ceil_div
from mlp_accel.backends.loop import LoopPath
from mlp_accel.backends.paths import State, Task
from mlp_accel.network import init_params
from mlp_accel.optimizers import Optimizer
from tests.backends.cupy.small import RULES, Reference

RATES = {"sgd": 0.4, "sgd with decay": 0.4, "momentum": 0.1, "nesterov": 0.1, "adam": 0.01, "adamw": 0.01, "chase": 0.1}


@dataclass
class Result:
    """What a training epoch leaves behind, network by network."""

    states: list[State]
    losses: npt.NDArray[Any]
    hits: npt.NDArray[Any]


@dataclass
class Problem:
    """Networks with random data, order, learning rates, parameters and slots, all of which differ from network to network."""

    task: Task
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int32]
    orders: npt.NDArray[np.int32]
    scalars: npt.NDArray[np.float64]
    states: list[State]

    @classmethod
    def random(cls, task: Task, n: int, optimizer: Optimizer | None = None, seed: int = 0) -> Problem:
        """`optimizer` is that of the task's rule: by default the one of that name."""
        rng = np.random.default_rng(seed)
        inputs, classes, networks = task.layer_sizes[0], task.layer_sizes[-1], task.networks
        optimizer = optimizer or next(o for o in RULES.values() if Optimizer.record_for([o]) is task.rule)
        pixels = (rng.integers(0, 256, (n, inputs)) * (rng.random((n, inputs)) < 0.3)).astype(np.uint8)
        x = pixels if task.data == "uint8" else rng.normal(size=(n, inputs)).astype(np.float32)
        rate = RATES.get(optimizer.name, 0.1) / (20 if task.gradient == "notebook" else 1)  # a sum, not a mean
        steps = ceil_div(n, task.batch_size)
        rates = rate * (1 + 0.3 * np.arange(networks))[:, None] * np.linspace(1, 0.5, steps)
        scalars = np.stack([optimizer.scalars(task.rule, of_network, first_step=3) for of_network in rates])
        params = [init_params(task.layer_sizes, seed=seed, random_bias=True) for seed in range(networks)]
        states = [State([_single(pair) for pair in one], [_slots(pair, task.rule.n_slots, rng) for pair in one]) for one in params]
        orders = np.stack([rng.permutation(n) for _ in range(networks)]).astype(np.int32)
        labels = rng.integers(0, classes, n).astype(np.int32)
        return cls(task, x, labels, orders, scalars.astype(np.float32).astype(np.float64), states)

    def only(self, network: int) -> Problem:
        """The same for one of the networks alone."""
        one = slice(network, network + 1)
        task = replace(self.task, networks=1)
        return replace(self, task=task, orders=self.orders[one], scalars=self.scalars[one], states=self.states[one])


def _single(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return pair[0].astype(np.float32), pair[1].astype(np.float32)


def _slots(pair: tuple[Any, Any], count: int, rng: np.random.Generator) -> list[tuple[Any, Any]]:
    """As after some steps; positive, as a mean of squares is."""
    return [_single((0.01 * rng.random(pair[0].shape), 0.01 * rng.random(pair[1].shape))) for _ in range(count)]


def reference(problem: Problem) -> Result:
    """The loop over the base ops in float64."""
    backend, task = Reference("float64"), replace(problem.task, dtype="float64")
    x = problem.x if task.data == "uint8" else problem.x.astype(np.float64)
    run = LoopPath(backend).start(task, problem.states, x, problem.y)
    losses, hits = run.epoch(problem.orders, problem.scalars)
    return Result(run.states(), losses, hits)


def arrays(result: Result) -> list[npt.NDArray[Any]]:
    """Parameters and slots of all networks."""
    planes = [(*s.params, *(pair for layer in s.slots for pair in layer)) for s in result.states]
    return [array for plane in planes for pair in plane for array in pair]


def distance(result: Result, expected: Result) -> float:
    """Largest difference of a parameter or slot, in units of the largest of its array."""
    pairs = zip(arrays(result), arrays(expected), strict=True)
    differences = [float(np.abs(a - b).max() / (np.abs(b).max() or 1.0)) for a, b in pairs]
    return float(np.max(differences))  # NaN stays NaN


def assert_same_bits(result: Result, other: Result) -> None:
    for one, two in zip(arrays(result), arrays(other), strict=True):
        np.testing.assert_array_equal(one, two, err_msg="the order of the threads changes the result")
    np.testing.assert_array_equal(result.losses, other.losses)
    np.testing.assert_array_equal(result.hits, other.hits)
