"""CUDA C++ kernels, and what the host has to know to compile them: no CuPy and no GPU is needed here.

The sources include nothing, so NVRTC compiles them with nothing installed beside it. Their sizes are compile-time constants, and
activation and update rule are functions that `elementwise` puts before them. The tests compile the same sources for a CPU, with the
names of ``device.cuh`` taken from ``tests/backends/cupy/shim.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

DEVICE = "device.cuh"

TILE = 16
"""Rows of a product that a tensor core computes at a time."""


def source(*names: str) -> str:
    """The text of several source files in one, as a compiler should report places in it."""
    return "".join(f'#line 1 "{name}"\n{_file(name).read_text(encoding="utf-8")}' for name in names)


def _file(name: str) -> Traversable:
    """The kernels of a path are beside it, all others here."""
    here = resources.files(__package__)
    return next(place for place in (here / name, here / "paths" / name) if place.is_file())


def defines(constants: Mapping[str, int | str]) -> tuple[str, ...]:
    """Compile-time constants as options of a compiler."""
    return tuple(f"-D{name}={value}" for name, value in constants.items())


def product_constants(gradient: str, tf32: bool) -> dict[str, int | str]:
    """What ``common.cuh`` has to know beside the sizes."""
    return {"TILE": TILE, "NOTEBOOK_GRADIENT": int(gradient == "notebook"), "SPLIT_TF32": int(not tf32)}


def ceil_div(n: int, unit: int) -> int:
    """The least number of units that hold `n`."""
    return -(-n // unit)


def round_up(n: int, unit: int) -> int:
    """The least multiple of `unit` that holds `n`."""
    return ceil_div(n, unit) * unit
