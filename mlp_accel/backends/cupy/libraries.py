"""The CUDA libraries that the CuPy backend computes with, and the commands that bring them; needs neither driver nor device."""

from __future__ import annotations

import ctypes
import importlib
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from operator import attrgetter
from typing import Any

from mlp_accel.errors import BackendUnavailableError

WHEELS = {13: "cupy-cuda13x", 12: "cupy-cuda12x"}
"""The distribution of CuPy for each major version of CUDA. They install the same folder: never two of them."""

LIBRARIES = {"NVRTC": "nvidia-cuda-nvrtc", "cuBLAS": "nvidia-cublas"}
"""The distributions that bring them; for CUDA 12 their names end in ``-cu12``."""


def installed_wheels() -> list[str]:
    """Names of the distributions of CuPy that are recorded as installed, whether or not their files are there."""
    return _recorded(r"cupy(-cuda.*|-rocm.*)?")


def _recorded(pattern: str) -> list[str]:
    """Names of the distributions that are recorded as installed and match."""
    names = {re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower() for distribution in metadata.distributions()}
    return sorted(name for name in names if re.fullmatch(pattern, name))


def driver_cuda_version() -> int | None:
    """The newest CUDA that the NVIDIA driver knows, as 1000 major + 10 minor, or None without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        version = ctypes.c_int()
        return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else None
    except (OSError, AttributeError):
        return None


def suitable_wheel() -> str:
    """The distribution of CuPy for this machine: by its driver, else the one that is installed, else the newest."""
    version = driver_cuda_version()
    if version is not None:
        return WHEELS[13 if version >= 13000 else 12]
    return next((wheel for wheel in reversed(installed_wheels()) if wheel in WHEELS.values()), WHEELS[13])


def install_command() -> str:
    """The command that installs CuPy, or the CUDA libraries that an installed one lacks."""
    return f'python -m pip install "{suitable_wheel()}[ctk]"'


def check_cuda_libraries() -> None:
    """Load NVRTC, which compiles kernels, and cuBLAS, which multiplies matrices.

    Raises
    ------
    BackendUnavailableError
        If one of them is missing.
    """
    missing = {}
    for library, load in {"NVRTC": _load_nvrtc, "cuBLAS": _load_cublas}.items():
        try:
            load()
        except Exception as error:  # CuPy raises what its loader raises
            missing[library] = str(error).partition(": ")[0].strip() or type(error).__name__
    if missing:
        detail = "; ".join(f"{library}: {problem}" for library, problem in missing.items())
        raise BackendUnavailableError("cupy", "CUDA libraries missing", detail, _libraries_command(missing))


def _libraries_command(missing: Iterable[str]) -> str:
    """Libraries that are recorded as installed are put back, others come with CuPy's extra ``ctk``."""
    recorded = [name for library in missing for name in _recorded(f"{LIBRARIES[library]}(-cu12)?")]
    return f"python -m pip install --force-reinstall --no-deps {' '.join(recorded)}" if recorded else install_command()


def _load_nvrtc() -> None:
    """CuPy loads it at the first call."""
    nvrtc: Any = importlib.import_module("cupy.cuda").nvrtc
    nvrtc.getVersion()


def _load_cublas() -> None:
    """CuPy loads it with its module, which is imported when it is first named."""
    attrgetter("cublas")(importlib.import_module("cupy.cuda"))
