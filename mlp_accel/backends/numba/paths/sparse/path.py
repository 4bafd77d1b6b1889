"""The sparse path of the Numba backend: whole epochs on uint8 images whose pixels are mostly zero, of one network or of several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.arrays import Array
from mlp_accel.backends.base import Backend
from mlp_accel.backends.numba.compiler import usable_threads
from mlp_accel.backends.numba.emit.simd import NUMBER_BITS
from mlp_accel.backends.numba.generated import ActivationAddresses, activation_addresses, rule_address
from mlp_accel.backends.numba.paths.sparse import epoch, lists, packing
from mlp_accel.backends.numba.paths.sparse.memory import N_OUT, EpochInput, Network, Rules, Scratch
from mlp_accel.backends.paths import EpochPath, PathRun, State, Task

MAX_PIXELS = 1 << NUMBER_BITS
"""The number of a pixel must fit into an entry of a list."""

DENSITY = 0.5
"""The share of pixels that are not zero up to which skipping the others is faster than the loop."""


class SparsePath(EpochPath):
    """Trains whole epochs and skips the pixels that are zero."""

    name = "sparse"

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def why_not(self, task: Task) -> str | None:
        if task.data != "uint8":
            return f"it skips zero pixels of uint8 images, these samples are {task.data}"
        if task.density > DENSITY:
            return f"it pays where up to {DENSITY:.0%} of the pixels are not zero, here {task.density:.0%} are not"
        if task.layer_sizes[0] > MAX_PIXELS:
            return f"it takes images of up to {MAX_PIXELS} pixels, these have {task.layer_sizes[0]}"
        return None

    def start(self, task: Task, states: Sequence[State], x: Array, y: Array) -> PathRun:
        return SparseRun(self.backend, task, states, x, y)


class _Trainee:
    """One network, and the memory to train it."""

    def __init__(self, task: Task, state: State, n: int, n_threads: int) -> None:
        self.network: Network = packing.pack_network(state, task.batch_size, n_threads)
        n_batches = -(-n // task.batch_size)
        self.scratch: Scratch = packing.allocate_scratch(self.network, task.batch_size, n_batches, task.activation.of_input)
        self.in_order = np.empty((3, n), np.int64)
        """Starts and stops of the lists, and labels, in the order of an epoch."""


class SparseRun(PathRun):
    """One network that is trained on all threads, or several on one thread each."""

    def __init__(self, backend: Backend, task: Task, states: Sequence[State], x: Array, y: Array) -> None:
        self.backend, self.task, self.y = backend, task, y
        self.dtype = np.dtype(task.dtype)
        self.lists = lists.list_pixels(x)
        self.values = lists.pixel_values(self.dtype)
        rule, hidden = task.rule, len(task.layer_sizes) > 2
        addresses = activation_addresses(task.activation, task.dtype) if hidden else ActivationAddresses()
        rate_index = -1 if rule.rate_index is None else rule.rate_index
        self.rules = Rules(*addresses, rule_address(rule, task.dtype), rule.n_scalars, rate_index, int(task.gradient == "notebook"))
        threads = 1 if len(states) > 1 else usable_threads()
        converted = [_as_type(state, self.dtype) for state in states]
        self.trainees = [_Trainee(task, state, x.shape[0], threads) for state in converted]
        self.shares = lists.share_out(self.lists, -(-threads // packing.n_blocks(self.trainees[0].network)))

    def epoch(self, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]) -> tuple[Array, Array]:
        arguments = zip(self.trainees, orders, scalars.astype(self.dtype), strict=True)
        self.backend.spread([partial(self._train, *of_network) for of_network in arguments])
        losses, hits = zip(*((trainee.scratch.batch_losses, trainee.scratch.batch_hits) for trainee in self.trainees), strict=True)
        return np.stack(losses), np.stack(hits)

    def _train(self, trainee: _Trainee, order: npt.NDArray[Any], scalars: npt.NDArray[Any]) -> None:
        n_classes = int(trainee.network.layers[-1, N_OUT])
        if not lists.follow_order(order, self.lists.starts, self.lists.stops, self.y, n_classes, trainee.in_order):
            what = f"numbers of the {len(self.y)} samples, the labels numbers of the {n_classes} classes"
            raise IndexError(f"the order must hold {what}")
        starts, stops, labels = trainee.in_order
        inputs = EpochInput(
            self.lists.entries, starts, stops, labels, self.values, self.shares, np.ascontiguousarray(scalars).reshape(-1)
        )
        epoch.train_epoch(inputs, self.rules, trainee.network, trainee.scratch, self.task.batch_size)

    def states(self) -> list[State]:
        return [packing.unpack_network(trainee.network) for trainee in self.trainees]

    def keep(self, networks: Sequence[int]) -> None:
        self.trainees = [self.trainees[i] for i in networks]


def _as_type(state: State, dtype: np.dtype[Any]) -> State:
    """The state in the dtype that the task computes in."""

    def converted(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return [(np.asarray(weights, dtype), np.asarray(bias, dtype)) for weights, bias in pairs]

    return State(converted(state.params), [converted(slots) for slots in state.slots])
