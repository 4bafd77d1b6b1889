"""The project's CUDA sources compiled by g++ and run on the CPU; ``shim.h`` says how."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
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

from mlp_accel.backends.cupy.source import DEVICE, source

HERE = Path(__file__).parent
FLAGS = (
    "-std=c++17",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-clobbered",
    "-Werror",
    "-U_FORTIFY_SOURCE",
    "-fno-gnu-unique",
    "-shared",
    "-fPIC",
)
# The last: otherwise libraries loaded side by side would share the state of the shim.
OUTCOMES = ("done", "deadlock", "out of bounds", "wrong arguments")


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


DEFAULT = Emulation()


def need_compiler() -> str:
    """The C++ compiler, or a skipped test that says so."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no g++: the CUDA kernels cannot be run on the CPU here")
    return compiler


FOLDER_VARIABLE = "EMULATED_KERNELS"
"""Names the folder of compiled kernels, for processes that share it; by default each has one of its own for as long as it runs."""


@cache
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mlp-accel-cuda-")


def _folder() -> Path:
    shared = os.environ.get(FOLDER_VARIABLE)
    return Path(shared or _own_folder().name)


class Program:
    """CUDA sources compiled for the CPU.

    Parameters
    ----------
    code : str
        The sources as NVRTC gets them; what speaks CUDA in them (``device.cuh``) is left to the shim.
    options : sequence of str
        As for NVRTC; what is no compile-time constant is left out.
    """

    def __init__(self, code: str, options: Sequence[str]) -> None:
        self._library = _build(code.replace(source(DEVICE), ""), tuple(option for option in options if option.startswith("-D")))

    def launch(
        self,
        kernel: str,
        blocks: int,
        threads: int,
        shared_bytes: int,
        arguments: Sequence[npt.NDArray[Any] | np.generic],
        emulation: Emulation = DEFAULT,
    ) -> None:
        """Run a kernel to its end. Arrays are passed by address, NumPy scalars by value.

        Raises
        ------
        AssertionError
            If threads wait for each other forever, one writes outside of the shared memory, or the arguments do not fit the kernel.
        """
        values = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else _value(a) for a in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = (ctypes.c_int * len(values))(*(ctypes.sizeof(value) for value in values))
        chaos = (emulation.seed, int(emulation.truncate), emulation.fault_line, emulation.fault)
        function = getattr(self._library, f"emulate_{kernel}")
        outcome = OUTCOMES[function(addresses, sizes, len(values), blocks, threads, shared_bytes, *chaos)]
        assert outcome == "done", f"{kernel}: {outcome}"

    def barrier_sites(self) -> list[tuple[int, bool]]:
        """Line of each barrier and wait that has run, and whether it is one of the cluster."""
        lines, of_cluster = ((ctypes.c_int * 64)() for _ in range(2))
        count = self._library.barrier_sites(lines, of_cluster, 64)
        return sorted((line, bool(flag)) for line, flag in zip(lines[:count], of_cluster[:count], strict=True))


@cache
def _build(code: str, options: tuple[str, ...]) -> Any:
    compiler = need_compiler()
    name = hashlib.sha256(repr((code, options)).encode()).hexdigest()[:16]
    text, library = _folder() / f"{name}.{os.getpid()}.cpp", _folder() / f"{name}.so"
    if library.exists():
        return ctypes.CDLL(str(library))
    exports = "".join(f"SHIM_EXPORT({kernel})\n" for kernel in kernels(code))
    text.write_text(f'#include "shim.h"\n{code}\n{exports}')
    command = [compiler, *FLAGS, "-I", str(HERE), *options, "-o", str(text.with_suffix(".so")), str(text)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text.with_suffix(".so").rename(library)
    return ctypes.CDLL(str(library))


def kernels(code: str) -> list[str]:
    """Names of the kernels that are defined in `code`."""
    return re.findall(r"^(?:KERNEL |(?:STEP|FORWARD|CLUSTER)_KERNEL\()(\w+)", code, re.MULTILINE)


def _value(scalar: np.generic) -> Any:
    assert isinstance(scalar, np.generic), (
        f"CuPy takes the size of an argument from its NumPy type; this is {type(scalar).__name__}"
    )
    dtype: Any = scalar.dtype
    return np.ctypeslib.as_ctypes_type(dtype)(scalar.item())
