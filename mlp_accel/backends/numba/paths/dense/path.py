"""The dense path of the Numba backend: whole epochs on samples of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.numba.paths.dense import first_layer
from mlp_accel.backends.numba.paths.dense.rows import Rows
from mlp_accel.backends.numba.paths.shared.memory import INPUTS, aligned_empty
from mlp_accel.backends.numba.paths.shared.packing import division_of
from mlp_accel.backends.numba.paths.shared.run import CompiledPath, Functions, Samples, threads_for
from mlp_accel.backends.paths import Task

SEGMENTS = 4
"""Segments of the inputs, if the threads divide those among them."""


class FloatRows(Samples):
    """Floating samples, read where they lie."""

    functions: Functions = None, first_layer.first_layer, first_layer.update_first_layer

    def __init__(self, x: npt.NDArray[Any], task: Task) -> None:
        self.x, n_in = x, x.shape[1]
        self.division = division_of(task.layer_sizes, task.dtype, sparse=False)
        self.numbers = (x.ctypes.data + np.arange(x.shape[0], dtype=np.int64) * x.strides[0])[:, None]
        n_tiles = -(-n_in // first_layer.TILE_INPUTS)
        n_segments = min(n_tiles, SEGMENTS if self.division == INPUTS else threads_for(task))
        tiles = np.linspace(0, n_tiles, n_segments + 1).astype(np.int64)
        self.segments = np.minimum(tiles * first_layer.TILE_INPUTS, n_in)

    def memory(self, batch_size: int) -> Any:
        return np.zeros(0, self.x.dtype)

    def in_order(self, numbers: npt.NDArray[np.int64], memory: Any) -> tuple[Any, ...]:
        return Rows(numbers[:, 0], numbers[:, 0], memory, 1)


class PixelRows(FloatRows):
    """uint8 samples, scaled a minibatch at a time."""

    functions: Functions = first_layer.scale_pixels, first_layer.first_layer, first_layer.update_first_layer

    def __init__(self, x: npt.NDArray[np.uint8], task: Task) -> None:
        super().__init__(x, task)
        self.scale = np.array([1.0 / 255.0], task.dtype)

    def memory(self, batch_size: int) -> Any:
        return aligned_empty((2 * batch_size, self.x.shape[1]), self.scale.dtype)

    def in_order(self, numbers: npt.NDArray[np.int64], memory: Any) -> tuple[Any, ...]:
        rows = memory.ctypes.data + np.arange(len(memory), dtype=np.int64) * memory.strides[0]
        return Rows(numbers[:, 0], rows, self.scale, 0)


class DensePath(CompiledPath):
    """Trains whole epochs on floating samples, and on uint8 samples of which few values are zero."""

    name = "dense"

    def samples(self, x: npt.NDArray[Any], task: Task) -> Samples:
        return PixelRows(x, task) if task.data == "uint8" else FloatRows(x, task)
