"""What the tests of the CuPy backend on the shim share."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_accel.backends.cupy_backend import CupyBackend
from mlp_accel.backends.cupy_paths import PathSettings

SIZES = [20, 12, 5]


def backend_by(path: str, dtype: str = "float32", cluster: int | None = None, tf32: bool = False) -> CupyBackend:
    return CupyBackend(dtype, settings=PathSettings(path, cluster, tf32))


def data(n: int = 50, n_in: int = 20, classes: int = 5) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, n_in), dtype=np.uint8), rng.integers(0, classes, n)


def bits(params: Any) -> list[bytes]:
    return [np.ascontiguousarray(a).tobytes() for pair in params for a in pair]
