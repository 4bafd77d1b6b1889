"""The base class itself as a backend: the oracle that the overrides are held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import numpy.typing as npt

from mlp_accel.backends.base import Array, Backend
from mlp_accel.backends.memory import Arena


class ReferenceBackend(Backend):
    """The base ops on NumPy."""

    name = "reference"
    xp: Any = np


class StrictBackend(Backend):
    """The base ops on the strict implementation of the array API, on a device that refuses silent conversion to NumPy."""

    name = "strict"
    xp: Any = array_api_strict
    _device = array_api_strict.Device("device1")

    def asarray(self, array: Any) -> Array:
        if isinstance(array, np.ndarray):
            array = self.xp.asarray(array, device=self._device)
        return super().asarray(array)

    def _new(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.xp.empty(shape, dtype=dtype, device=self._device)

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(self.xp.asarray(array, device=array_api_strict.Device("CPU_DEVICE")))


class PoisonedArena(Arena):
    """Memory that a step finds full of NaN, again and again: what an op reads before it has written it shows."""

    def take(self, shape: tuple[int, ...], dtype: Any, make: Callable[[tuple[int, ...], Any], Any]) -> Any:
        array = super().take(shape, dtype, make)
        array[...] = float("nan") if np.dtype(array.dtype).kind == "f" else 1
        return array
