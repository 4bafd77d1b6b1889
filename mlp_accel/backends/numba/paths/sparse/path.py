"""The sparse path of the Numba backend: whole epochs on images whose pixels are mostly zero, and several networks at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.base import Array
from mlp_accel.backends.numba.compiler import usable_threads
from mlp_accel.backends.numba.generated import ActivationAddresses, activation_addresses, rule_address
from mlp_accel.backends.numba.paths.sparse import epoch as pixel_epoch
from mlp_accel.backends.numba.paths.sparse import packing, pixel_lists
from mlp_accel.backends.numba.paths.sparse.memory import N_OUT, Data, Network, Rules, Scratch
from mlp_accel.backends.paths import EpochPath, PathRun, State, Task

if TYPE_CHECKING:
    from mlp_accel.backends.numba.backend import NumbaBackend

MAX_PIXELS = 1 << 16
"""The number of a pixel has 16 bits in an entry."""

DENSITY = 0.5
"""Share of pixels that are not zero up to which it pays to skip the others."""


class SparsePath(EpochPath):
    """Skips the pixels that are zero."""

    name = "sparse"

    def __init__(self, backend: NumbaBackend) -> None:
        self.backend = backend

    def why_not(self, task: Task) -> str | None:
        if task.data != "uint8":
            return f"it skips zero pixels of uint8 images, these are {task.data}"
        if task.density > DENSITY:
            return f"it pays where up to {DENSITY:.0%} of the pixels are not zero, here {task.density:.0%} are not"
        if task.layer_sizes[0] > MAX_PIXELS:
            return f"it knows images of up to {MAX_PIXELS} pixels, these have {task.layer_sizes[0]}"
        return None

    def start(self, task: Task, states: Sequence[State], x: Array, y: Array) -> PathRun:
        return SparseRun(self.backend, task, states, x, y)


class _Place:
    """One network, and the memory to train it."""

    def __init__(self, task: Task, state: State, n: int, n_threads: int) -> None:
        self.network: Network = packing.pack_network(state, task.batch_size, n_threads)
        n_batches = -(-n // task.batch_size)
        self.scratch: Scratch = packing.allocate_scratch(self.network, task.batch_size, n_batches, task.activation.of_input)
        self.in_order = np.empty((3, n), np.int64)
        """Starts, stops and labels in the order of an epoch."""


class SparseRun(PathRun):
    """Networks that are trained on all threads, one after another, or on one thread each."""

    def __init__(self, backend: NumbaBackend, task: Task, states: Sequence[State], x: Array, y: Array) -> None:
        self.backend, self.task, self.y = backend, task, y
        self.dtype = np.dtype(task.dtype)
        self.lists = packing.list_pixels(x)
        self.values = packing.pixel_values(self.dtype)
        rule, hidden = task.rule, len(task.layer_sizes) > 2
        addresses = activation_addresses(task.activation, task.dtype) if hidden else ActivationAddresses()
        column = -1 if rule.rate_column is None else rule.rate_column
        self.rules = Rules(*addresses, rule_address(rule, task.dtype), rule.n_scalars, column, int(task.gradient == "notebook"))
        threads = 1 if len(states) > 1 else usable_threads()
        converted = [_as_type(state, self.dtype) for state in states]
        self.places = [_Place(task, state, x.shape[0], threads) for state in converted]
        self.shares = packing.share_out(self.lists, self.places[0].network, threads)

    def epoch(self, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]) -> tuple[Array, Array]:
        each = zip(self.places, orders, scalars.astype(self.dtype), strict=True)
        self.backend.spread([partial(self._train, *of_network) for of_network in each])
        losses, hits = zip(*((place.scratch.batch_losses, place.scratch.batch_hits) for place in self.places), strict=True)
        return np.stack(losses), np.stack(hits)

    def _train(self, place: _Place, order: npt.NDArray[Any], scalars: npt.NDArray[Any]) -> None:
        n_classes = int(place.network.layers[-1, N_OUT])
        if not pixel_lists.follow_order(order, self.lists.starts, self.lists.stops, self.y, n_classes, place.in_order):
            what = f"numbers of the {len(self.y)} samples, the labels numbers of the {n_classes} classes"
            raise IndexError(f"the order must hold {what}")
        starts, stops, labels = place.in_order
        data = Data(self.lists.entries, starts, stops, labels, self.values, self.shares, np.ascontiguousarray(scalars).reshape(-1))
        pixel_epoch.train_epoch(data, self.rules, place.network, place.scratch, self.task.batch_size)

    def states(self) -> list[State]:
        return [packing.unpack_network(place.network) for place in self.places]

    def keep(self, networks: Sequence[int]) -> None:
        self.places = [self.places[i] for i in networks]


def _as_type(state: State, dtype: np.dtype[Any]) -> State:
    """The state in the dtype of the task."""

    def converted(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return [(np.asarray(weights, dtype), np.asarray(bias, dtype)) for weights, bias in pairs]

    return State(converted(state.params), [converted(slots) for slots in state.slots])
