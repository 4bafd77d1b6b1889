"""The base class itself as a backend: the oracle that the overrides are held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_accel.backends.base import Backend
from mlp_accel.backends.memory import Arena


class ReferenceBackend(Backend):
    """The base ops on NumPy."""

    name = "reference"
    xp: Any = np


class PoisonedArena(Arena):
    """Memory that a step finds full of NaN, again and again: what an op reads before it has written it shows."""

    def take(self, shape: tuple[int, ...], dtype: Any, make: Callable[[tuple[int, ...], Any], Any]) -> Any:
        array = super().take(shape, dtype, make)
        array[...] = float("nan") if np.dtype(array.dtype).kind == "f" else 1
        return array
