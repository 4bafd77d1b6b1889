"""The CuPy backend: the reference ops on an NVIDIA GPU, with cuBLAS for the products."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.base import Array, Backend
from mlp_accel.backends.cuda_libraries import check_cuda_libraries, install_command, installed_wheels, suitable_wheel
from mlp_accel.errors import BackendUnavailableError
from mlp_accel.system import install_driver, show_device


class CupyBackend(Backend):
    """Arrays live on the current CUDA device; ops return before they are done, `synchronize` waits."""

    name = "cupy"

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(dtype)
        self.xp: Any = importlib.import_module("cupy")
        index = self.xp.cuda.runtime.getDevice()
        properties = self.xp.cuda.runtime.getDeviceProperties(index)
        self.device = f"cuda:{index} {properties['name'].decode()}"

    @classmethod
    def probe(cls) -> None:
        cp = _import_cupy()
        check_cuda_libraries()
        try:
            driver = cp.cuda.runtime.driverGetVersion()
        except Exception as error:
            raise _unavailable("CUDA libraries missing", _first_line(error), install_command()) from error
        if driver == 0:
            raise _unavailable("no driver", "libcuda was not found", install_driver())
        _check_device(cp, driver)
        try:
            _check_results(cp)
        except ImportError as error:  # cuBLAS and NVRTC are loaded at first use
            raise _unavailable("CUDA libraries missing", _first_line(error), install_command()) from error
        except Exception as error:
            libraries = isinstance(error, RuntimeError) and "CuPy failed to load" in str(error)
            cause = "CUDA libraries missing" if libraries else "a kernel failed"
            raise _unavailable(cause, _first_line(error), install_command()) from error

    def versions(self) -> dict[str, str]:
        runtime = self.xp.cuda.runtime
        return {
            "cupy": self.xp.__version__,
            "cuda_runtime": str(runtime.runtimeGetVersion()),
            "cuda_driver": str(runtime.driverGetVersion()),
            "gpu": self.device,
        }

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        host: npt.NDArray[Any] = self.xp.asnumpy(array)
        return host

    def synchronize(self) -> None:
        self.xp.cuda.get_current_stream().synchronize()


def _import_cupy() -> Any:
    try:
        cp = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise _unavailable("broken installation", _first_line(error), install_command()) from error
        wheels = installed_wheels()
        if wheels:
            raise _unavailable("broken installation", f"{wheels[0]} is recorded, its files are gone", _reinstall()) from error
        raise _unavailable("not installed", "no module named cupy", install_command()) from error
    except Exception as error:
        raise _unavailable("broken installation", _first_line(error), install_command()) from error
    if not hasattr(cp, "ndarray"):  # an empty folder left behind imports as a namespace package
        raise _unavailable("broken installation", "the folder cupy holds no CuPy", _reinstall())
    return cp


def _reinstall() -> str:
    """Puts the files back and leaves everything else as it is: a NumPy too new would stop Numba."""
    return f"python -m pip install --force-reinstall --no-deps {next(iter(installed_wheels()), suitable_wheel())}"


def _check_device(cp: Any, driver: int) -> None:
    try:
        count = cp.cuda.runtime.getDeviceCount()
    except cp.cuda.runtime.CUDARuntimeError as error:
        if "InsufficientDriver" in str(error):
            found = f"the driver knows CUDA {driver // 1000}.{driver % 1000 // 10}, CuPy needs a newer one"
            mend = f"python -m pip uninstall --yes {' '.join(installed_wheels())} && {install_command()}"
            raise _unavailable("no driver", found, mend) from error
        count, detail = 0, _first_line(error)
    else:
        detail = "the driver sees none"
    if count == 0:
        raise _unavailable("no device", detail, show_device())


def _check_results(cp: Any) -> None:
    """A kernel compiled by NVRTC and a product by cuBLAS, both against NumPy."""
    host = np.arange(16, dtype=np.float32).reshape(4, 4)
    device = cp.asarray(host)
    if float((device * 2 + 1).sum()) != float((host * 2 + 1).sum()):
        raise ArithmeticError("an elementwise kernel computes wrong numbers")
    if float((device @ device).sum()) != float((host @ host).sum()):
        raise ArithmeticError("a matrix product computes wrong numbers")


def _unavailable(cause: str, detail: str, mend: str) -> BackendUnavailableError:
    return BackendUnavailableError(CupyBackend.name, cause, detail, mend)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
