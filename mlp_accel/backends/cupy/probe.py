"""Whether CuPy can run here; if not, why not and what fixes it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from mlp_accel.backends.cupy.libraries import check_cuda_libraries, install_command, installed_wheels, suitable_wheel
from mlp_accel.backends.install_hints import install_driver, show_device
from mlp_accel.errors import BackendUnavailableError


def probe(device: int | None = None) -> None:
    """Run a real kernel and a real product on a device, by default the current one.

    Raises
    ------
    BackendUnavailableError
        With the cause, told apart, and the command that fixes it.
    """
    cp = import_cupy()
    check_cuda_libraries()
    try:
        driver = cp.cuda.runtime.driverGetVersion()
    except Exception as error:
        raise _unavailable("CUDA libraries missing", first_line(error), install_command()) from error
    if driver == 0:
        raise _unavailable("no driver", "libcuda was not found", install_driver())
    _check_device(cp, driver, device)
    try:
        if device is None:
            _check_results(cp)
        else:
            with cp.cuda.Device(device):
                _check_results(cp)
    except ImportError as error:  # cuBLAS and NVRTC are loaded at first use
        raise _unavailable("CUDA libraries missing", first_line(error), install_command()) from error
    except Exception as error:
        libraries = isinstance(error, RuntimeError) and "CuPy failed to load" in str(error)
        cause = "CUDA libraries missing" if libraries else "a kernel failed"
        raise _unavailable(cause, first_line(error), install_command()) from error


def import_cupy() -> Any:
    """CuPy, or why it cannot be imported."""
    try:
        cp = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise _unavailable("broken installation", first_line(error), install_command()) from error
        wheels = installed_wheels()
        if wheels:
            raise _unavailable("broken installation", f"{wheels[0]} is recorded, its files are gone", _reinstall()) from error
        raise _unavailable("not installed", "no module named cupy", install_command()) from error
    except Exception as error:
        raise _unavailable("broken installation", first_line(error), install_command()) from error
    if not hasattr(cp, "ndarray"):  # an empty folder left behind imports as a namespace package
        raise _unavailable("broken installation", "the folder cupy holds no CuPy", _reinstall())
    return cp


def _reinstall() -> str:
    """Puts the files back and leaves everything else as it is: a NumPy too new would stop Numba."""
    return f"python -m pip install --force-reinstall --no-deps {next(iter(installed_wheels()), suitable_wheel())}"


def _check_device(cp: Any, driver: int, device: int | None) -> None:
    try:
        count = cp.cuda.runtime.getDeviceCount()
    except cp.cuda.runtime.CUDARuntimeError as error:
        if "InsufficientDriver" in str(error):
            found = f"the driver knows CUDA {driver // 1000}.{driver % 1000 // 10}, CuPy needs a newer one"
            fix = f"python -m pip uninstall --yes {' '.join(installed_wheels())} && {install_command()}"
            raise _unavailable("no driver", found, fix) from error
        count, detail = 0, first_line(error)
    else:
        detail = "the driver sees none"
    if count == 0:
        raise _unavailable("no device", detail, show_device())
    if device is not None and device >= count:
        numbers = "cupy:0" if count == 1 else f"cupy:0 to cupy:{count - 1}"
        raise _unavailable(
            "no device", f"there is no device {device}", f"choose {numbers}; see nvidia-smi and CUDA_VISIBLE_DEVICES"
        )


def _check_results(cp: Any) -> None:
    """A kernel compiled by NVRTC and a product by cuBLAS, both against NumPy."""
    host = np.arange(16, dtype=np.float32).reshape(4, 4)
    device = cp.asarray(host)
    if float((device * 2 + 1).sum()) != float((host * 2 + 1).sum()):
        raise ArithmeticError("an elementwise kernel computes wrong numbers")
    if float((device @ device).sum()) != float((host @ host).sum()):
        raise ArithmeticError("a matrix product computes wrong numbers")


def _unavailable(cause: str, detail: str, fix: str) -> BackendUnavailableError:
    return BackendUnavailableError("cupy", cause, detail, fix)


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
