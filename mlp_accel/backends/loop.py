"""The loop: `mlp_accel.network.train_step` on every minibatch. Every backend has it, and every faster path is tested against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel import network
from mlp_accel.backends.arrays import Array, Params
from mlp_accel.backends.base import Backend
from mlp_accel.backends.memory import Arena
from mlp_accel.backends.paths import LOOP, EpochPath, PathRun, State, Task, check_orders

Step = Callable[..., tuple[Any, Any, Any, Any]]
"""A function with the arguments and results of `mlp_accel.network.train_step`."""


class LoopPath(EpochPath):
    """Training op by op.

    Parameters
    ----------
    backend : Backend
    step : callable, optional
        A step of the user's own, in place of `mlp_accel.network.train_step`.
    """

    name = LOOP

    def __init__(self, backend: Backend, step: Step | None = None) -> None:
        self.backend, self.step = backend, step

    def why_not(self, task: Task) -> str | None:
        return None

    def start(self, task: Task, states: Sequence[State], x: Array, y: Array) -> PathRun:
        return LoopRun(self.backend, self.step, task, states, x, y)


class LoopRun(PathRun):
    """Networks that are trained step by step, independently of each other."""

    def __init__(self, backend: Backend, step: Step | None, task: Task, states: Sequence[State], x: Array, y: Array) -> None:
        self.backend, self.step, self.task, self.x, self.y = backend, step, task, x, y
        self.networks = [
            State(to_backend(backend, state.params), [to_backend(backend, slots) for slots in state.slots]) for state in states
        ]
        self._arenas = [Arena() for _ in states]
        self._rests = 0

    def epoch(self, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]) -> tuple[Array, Array]:
        check_orders(orders, self.x.shape[0])
        on_device = self.backend.asarray(orders)
        jobs = [partial(self._train, i, orders[i], on_device[i, ...], scalars[i]) for i in range(len(self.networks))]
        sums = self.backend.spread(jobs) if self.step is None else [job() for job in jobs]  # a user's step may not know threads
        losses, hits = zip(*sums, strict=True)
        return self.backend.join(losses), self.backend.join(hits)

    def _train(self, index: int, host_order: npt.NDArray[Any], order: Array, table: npt.NDArray[np.float64]) -> tuple[Array, Array]:
        backend, task, size = self.backend, self.task, self.task.batch_size
        state, arena = self.networks[index], self._arenas[index]
        rows = backend.scalar_rows(table)
        params, slots, losses, hits = state.params, state.slots, [], []
        n = order.shape[0]
        with (
            backend.reusing(arena if self.step is None else None),  # a step of the user's own may keep what it computes
            backend.step_threads(task) as pace,
        ):
            train_step = self.step or network.train_step
            for batch in range(len(table)):
                start = perf_counter()
                arena.restart()
                minibatch = slice(batch * size, min((batch + 1) * size, n))
                if task.sparse:
                    x = backend.asarray(self.x[host_order[minibatch]].toarray())
                    y = backend.xp.take(self.y, order[minibatch], axis=0)
                else:
                    x, y = backend.minibatch(self.x, self.y, order[minibatch])
                params, slots, loss, hit = train_step(backend, params, slots, x, y, task, rows[batch])
                losses.append(loss)
                hits.append(hit)
                pace.step(perf_counter() - start)
        self._rests += pace.rests
        state.params, state.slots = params, slots
        return backend.join(losses), backend.join(hits)

    @property
    def rests(self) -> int:
        return self._rests

    def states(self) -> list[State]:
        host = self.backend.to_numpy

        def copies(params: Params) -> Params:
            return [(np.array(host(weights)), np.array(host(bias))) for weights, bias in params]

        return [State(copies(state.params), [copies(slots) for slots in state.slots]) for state in self.networks]

    def keep(self, networks: Sequence[int]) -> None:
        self.networks = [self.networks[i] for i in networks]
        self._arenas = [self._arenas[i] for i in networks]


def to_backend(backend: Backend, params: Sequence[tuple[Any, Any]]) -> Params:
    """Parameters in new memory of `backend`."""
    return [(backend.copy(backend.asarray(weights)), backend.copy(backend.asarray(bias))) for weights, bias in params]
