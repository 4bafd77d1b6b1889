"""The sparse path of the Numba backend: whole epochs on samples whose values are mostly zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.numba.emit.simd import NUMBER_BITS
from mlp_accel.backends.numba.paths.shared.packing import MANY_INPUTS, division_of
from mlp_accel.backends.numba.paths.shared.run import CompiledPath, Functions, Samples
from mlp_accel.backends.numba.paths.sparse import first_layer, lists
from mlp_accel.backends.paths import Task

MAX_INPUTS = 1 << NUMBER_BITS
"""While a list is made, the number of an input has so many bits."""

DENSITY = 0.35
"""The share of values that are not zero up to which skipping the others is faster than the dense path."""


class SparseSamples(Samples):
    """Samples as lists of their values that are not zero."""

    functions: Functions = None, first_layer.first_layer, first_layer.update_first_layer

    def __init__(self, x: npt.NDArray[Any], task: Task) -> None:
        self.division = division_of(task.layer_sizes, task.dtype, sparse=True)
        make = lists.list_matrix if task.sparse else lists.list_samples
        self.lists = make(x, task.dtype, lists.SEGMENTS if x.shape[1] >= MANY_INPUTS else 1)
        self.numbers, self.segments = self.lists.bounds, self.lists.segments

    def memory(self, batch_size: int) -> Any:
        return None

    def in_order(self, numbers: npt.NDArray[np.int64], memory: Any) -> tuple[Any, ...]:
        return lists.Lists(self.lists.entries, numbers)


class SparsePath(CompiledPath):
    """Trains whole epochs and skips the values that are zero."""

    name = "sparse"
    takes_sparse = True

    def why_not(self, task: Task) -> str | None:
        if task.sparse:
            return super().why_not(task)
        if task.density > DENSITY:
            return f"it pays where up to {DENSITY:.0%} of the values are not zero, here {task.density:.0%} are not"
        if task.layer_sizes[0] > MAX_INPUTS:
            return f"it takes samples of up to {MAX_INPUTS} values, these have {task.layer_sizes[0]}"
        return super().why_not(task)

    def samples(self, x: npt.NDArray[Any], task: Task) -> Samples:
        return SparseSamples(x, task)
