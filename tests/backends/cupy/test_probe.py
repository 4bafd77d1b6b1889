"""Each way in which CuPy can fail to run is told apart, shown on stand-ins for the broken installations."""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlp_accel.backends.cupy import libraries as cuda_libraries
from mlp_accel.backends.cupy import probe as cupy_probe
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.errors import BackendUnavailableError


class CUDARuntimeError(RuntimeError):
    pass


class StandIn(ModuleType):
    """NumPy under CuPy's name, with the parts of its CUDA runtime that the backend asks for."""

    def __init__(self, driver: int = 13000, devices: Any = 1, arrays: Any = np.asarray) -> None:
        super().__init__("cupy")
        self.ndarray, self.asarray, self.asnumpy, self.__version__ = np.ndarray, arrays, np.asarray, "14.0"

        def count() -> int:
            if isinstance(devices, Exception):
                raise devices
            return int(devices)

        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: 13000,
            getDeviceCount=count,
            getDevice=lambda: 0,
            getDeviceProperties=lambda _: {"name": b"Stand-in GPU"},
        )
        self.synchronized = 0
        self.cuda = SimpleNamespace(
            runtime=runtime,
            Device=lambda _: nullcontext(),
            get_current_stream=lambda: SimpleNamespace(synchronize=self._synchronize),
        )

    def _synchronize(self) -> None:
        self.synchronized += 1


@pytest.fixture(autouse=True)
def _cuda_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins have them."""
    monkeypatch.setattr(cupy_probe, "check_cuda_libraries", lambda: None)


def why(monkeypatch: pytest.MonkeyPatch, module: ModuleType | None) -> BackendUnavailableError:
    monkeypatch.setitem(sys.modules, "cupy", module)
    with pytest.raises(BackendUnavailableError) as info:
        CupyBackend.probe()
    assert info.value.fix
    return info.value


def raising(error: Exception) -> Any:
    def fail(_: Any) -> Any:
        raise error

    return fail


def test_a_working_installation_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = StandIn()
    monkeypatch.setitem(sys.modules, "cupy", module)
    CupyBackend.probe()
    backend = CupyBackend()
    assert backend.device == "cuda:0 Stand-in GPU"
    assert backend.versions()["cuda_driver"] == "13000"
    backend.synchronize()
    assert module.synchronized == 1


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distributions", list)
    monkeypatch.setattr(importlib, "import_module", raising(ModuleNotFoundError("no cupy", name="cupy")))
    with pytest.raises(BackendUnavailableError) as info:
        CupyBackend.probe()
    assert info.value.cause == "not installed"
    assert "pip install" in info.value.fix


def test_half_uninstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind = SimpleNamespace(metadata={"Name": "cupy-cuda13x"})
    monkeypatch.setattr(metadata, "distributions", lambda: [left_behind])
    monkeypatch.setattr(importlib, "import_module", raising(ModuleNotFoundError("no cupy", name="cupy")))
    with pytest.raises(BackendUnavailableError, match="cupy-cuda13x is recorded, its files are gone") as info:
        CupyBackend.probe()
    assert info.value.cause == "broken installation"
    assert info.value.fix == "python -m pip install --force-reinstall --no-deps cupy-cuda13x"


def test_an_empty_folder_named_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why(monkeypatch, ModuleType("cupy")).cause == "broken installation"


def test_an_import_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", raising(ImportError("libfoo.so: cannot open")))
    with pytest.raises(BackendUnavailableError, match="libfoo") as info:
        CupyBackend.probe()
    assert info.value.cause == "broken installation"


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why(monkeypatch, StandIn(driver=0)).cause == "no driver"


def test_a_driver_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_libraries, "driver_cuda_version", lambda: 12040)
    monkeypatch.setattr(cupy_probe, "installed_wheels", lambda: ["cupy-cuda13x"])
    error = why(monkeypatch, StandIn(driver=12040, devices=CUDARuntimeError("cudaErrorInsufficientDriver: too old")))
    assert error.cause == "no driver"
    assert "12.4" in error.detail
    assert error.fix == 'python -m pip uninstall --yes cupy-cuda13x && python -m pip install "cupy-cuda12x[ctk]"'


@pytest.mark.parametrize("devices", [0, CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")])
def test_no_device(monkeypatch: pytest.MonkeyPatch, devices: Any) -> None:
    assert why(monkeypatch, StandIn(devices=devices)).cause == "no device"


@pytest.mark.parametrize("error", [ImportError("libnvrtc.so.13"), RuntimeError("CuPy failed to load libnvrtc.so.13")])
def test_cuda_libraries_missing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    found = why(monkeypatch, StandIn(arrays=raising(error)))
    assert found.cause == "CUDA libraries missing"
    assert "[ctk]" in found.fix


def test_a_kernel_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why(monkeypatch, StandIn(arrays=raising(RuntimeError("illegal address")))).cause == "a kernel failed"


def test_a_product_with_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(np.ndarray):
        def __matmul__(self, other: Any) -> Any:
            return np.asarray(self) @ np.asarray(other) + 1

    error = why(monkeypatch, StandIn(arrays=lambda a: a.view(Wrong)))
    assert error.cause == "a kernel failed"
    assert "wrong numbers" in error.detail
