"""NVRTC from the package nvidia-cuda-nvrtc: compiles for a GPU without one, and says what the kernels need."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

NVRTC_SUCCESS = 0


@dataclass(frozen=True)
class Needs:
    """What one kernel asks of a GPU; spills and stack in bytes."""

    registers: int
    spills: int
    stack: int
    static_shared: int


def need_nvrtc() -> Any:
    """The library, or a skipped test that says what is missing."""
    library = _load()
    if library is None:
        pytest.skip("no NVRTC: the kernels are not compiled for a GPU here (python -m pip install nvidia-cuda-nvrtc)")
    return library


def version() -> str:
    """Of NVRTC: ``"13.5"``."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    assert need_nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)) == NVRTC_SUCCESS
    return f"{major.value}.{minor.value}"


@cache
def _load() -> Any:
    try:
        files = metadata.files("nvidia-cuda-nvrtc") or []
    except metadata.PackageNotFoundError:
        return None
    # The other library of the package must be in the process for the first one to find it.
    wanted = [[f for f in files if re.fullmatch(rf"lib{name}\.so(\.\d+)+", f.name)] for name in ("nvrtc-builtins", "nvrtc")]
    if not all(wanted):
        return None
    paths = [Path(str(found[0].locate())) for found in wanted]
    return [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in paths][-1]


def compile_for(architecture: str, source: str, options: Sequence[str] = ()) -> dict[str, Needs]:
    """Compile to a cubin for ``"sm_90"`` or the like; returns what each kernel needs, by its name."""
    log, _ = compiled(architecture, source, options)
    return _read(log)


def compiled(architecture: str, source: str, options: Sequence[str] = ()) -> tuple[str, bytes]:
    """What the compiler reports, and the cubin."""
    nvrtc = need_nvrtc()
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"mlp_accel.cu", 0, None, None) == NVRTC_SUCCESS
    flags = [f"-arch={architecture}", "-std=c++17", "--ptxas-options=-v", "-ftz=true", *options]
    array = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
    status = nvrtc.nvrtcCompileProgram(program, len(flags), array)
    log = _fetch(nvrtc, program, "ProgramLog").decode().rstrip("\0")
    cubin = _fetch(nvrtc, program, "CUBIN") if status == NVRTC_SUCCESS else b""
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    assert status == NVRTC_SUCCESS, log
    assert "warning" not in log, log
    return log, cubin


def _fetch(nvrtc: Any, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def _read(log: str) -> dict[str, Needs]:
    """The report of ptxas, as ``-v`` prints it."""
    needs = {}
    for part in log.split("Compiling entry function '")[1:]:
        name = part.partition("'")[0]
        stack, stores, loads = (
            int(n) for n in _find(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        )
        (registers,) = _find(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        needs[name] = Needs(int(registers), stores + loads, stack, int(shared.group(1)) if shared else 0)
    return needs


def _find(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    assert found, text
    return found.groups()
