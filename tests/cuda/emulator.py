"""The project's CUDA sources compiled by g++ and run on the CPU; ``shim.h`` says how."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel.backends.cuda import source

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-clobbered", "-Werror", "-U_FORTIFY_SOURCE", "-fno-gnu-unique")
# The last: otherwise libraries loaded side by side would share the state of the shim.
OUTCOMES = ("done", "deadlock", "out of bounds")


@dataclass(frozen=True)
class Emulation:
    """How the shim runs a kernel.

    Attributes
    ----------
    seed : int
        Of the order in which the threads run, and of when stores and copies arrive.
    truncate : bool
        The tensor cores cut off what they add up, rather than round it.
    fault_line, fault : int
        A barrier or wait to leave out: 1 removes it, 2 makes a cluster barrier one of the block alone.
    """

    seed: int = 1
    truncate: bool = False
    fault_line: int = 0
    fault: int = 0


def need_compiler() -> str:
    """The C++ compiler, or a skipped test that says so."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no g++: the CUDA kernels cannot be run on the CPU here")
    return compiler


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mlp-accel-cuda-")


@cache
def build(host: str, files: tuple[str, ...], options: tuple[str, ...], more: str = "") -> Any:
    """A library of `host` (in this folder) around the CUDA sources `files` and `more`, compiled with `options`; built once."""
    compiler = need_compiler()
    name = hashlib.sha256(repr((host, files, options, more)).encode()).hexdigest()[:16]
    folder = Path(_folder().name)
    (folder / f"{name}.inc").write_text(source(*files) + more)
    library = folder / f"{name}.so"
    includes = ("-I", str(HERE), f'-DKERNEL_SOURCE="{folder / name}.inc"')
    command = [compiler, *FLAGS, "-shared", "-fPIC", *includes, *options, "-o", str(library), str(HERE / host)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def call(function: Any, *arguments: Any, emulation: Emulation) -> str:
    """Call a kernel with arrays and numbers (int, or NumPy scalars for the rest); returns what became of it."""
    tail = (emulation.seed, int(emulation.truncate), emulation.fault_line, emulation.fault)
    return OUTCOMES[function(*(_argument(value) for value in (*arguments, *tail)))]


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, np.float32):
        return ctypes.c_float(float(value))
    return ctypes.c_int(value) if isinstance(value, int) else value


def barrier_sites(library: Any) -> list[tuple[int, bool]]:
    """Line of each barrier and wait that has run in `library`, and whether it is one of the cluster."""
    lines, of_cluster = (np.zeros(64, np.intc) for _ in range(2))
    count = library.barrier_sites(_argument(lines), _argument(of_cluster), len(lines))
    return sorted((int(line), bool(flag)) for line, flag in zip(lines[:count], of_cluster[:count], strict=True))


def stacked(params: Sequence[tuple[Any, Any]]) -> list[npt.NDArray[np.float32]]:
    """Weights and biases in one list, as new float32 arrays."""
    return [np.array(a, np.float32, order="C") for pair in params for a in pair]
