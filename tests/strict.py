"""The base ops on the strict implementation of the array API; without array-api-strict what imports this is skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel.backends.base import Array, Backend

array_api_strict: Any = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")


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
