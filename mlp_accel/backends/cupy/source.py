"""CUDA C++ kernels, and what the host has to know to compile them: no CuPy and no GPU is needed here.

The sources include nothing, so NVRTC compiles them with nothing installed beside it. Their sizes are compile-time constants: what
host and kernel both need to know is defined here or beside the path and passed to the compiler, or computed by both and compared by
a static_assert. Activation and update rule are functions that `elementwise` puts before the sources. The tests compile the same
sources for a CPU, with the names of ``device.cuh`` taken from ``tests/backends/cupy/shim.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

DEVICE, BASICS = "device.cuh", "basics.cuh"

WARP = 32
"""Threads that an NVIDIA GPU runs in step; kernels and hosts count threads in warps."""

TILE = 16
"""Rows of a product that a tensor core computes at a time."""

PIECE = 16
"""Bytes that an asynchronous copy moves at a time, from an address that is a multiple of it."""


def source(*names: str) -> str:
    """The text of several source files in one, as a compiler should report places in it."""
    return "".join(f'#line 1 "{name}"\n{_file(name).read_text(encoding="utf-8")}' for name in names)


def _file(name: str) -> Traversable:
    """The kernels of a path are beside it, all others here."""
    here = resources.files(__package__)
    return next(file for file in (here / name, here / "paths" / name) if file.is_file())


def defines(constants: Mapping[str, int | str]) -> tuple[str, ...]:
    """Compile-time constants as options of a compiler."""
    return tuple(f"-D{name}={value}" for name, value in constants.items())


def product_constants(gradient: str, tf32: bool, tensor_cores: bool = True) -> dict[str, int | str]:
    """What ``common.cuh`` has to know beside the sizes."""
    sizes = {"WARP": WARP, "TILE": TILE, "PIECE": PIECE}
    products = {"TENSOR_CORES": int(tensor_cores), "SPLIT_TF32": int(tensor_cores and not tf32)}
    return {**sizes, **products, "NOTEBOOK_GRADIENT": int(gradient == "notebook")}


def padded_pixels(n_in: int) -> int:
    """Bytes from one sample of uint8 pixels to the next, as the kernels of the paths read them."""
    return round_up(n_in, PIECE)


def ceil_div(n: int, unit: int) -> int:
    """The least number of units that hold `n`."""
    return -(-n // unit)


def round_up(n: int, unit: int) -> int:
    """The least multiple of `unit` that holds `n`."""
    return ceil_div(n, unit) * unit
