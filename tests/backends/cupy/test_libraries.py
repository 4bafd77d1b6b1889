"""Which wheel of CuPy suits the machine, and which of its libraries are missing."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mlp_accel import BackendUnavailableError
from mlp_accel.backends.cupy import libraries as cuda_libraries
from mlp_accel.backends.cupy.libraries import check_cuda_libraries, install_command, installed_wheels, suitable_wheel


def record(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make pip's records list these distributions and no others."""
    monkeypatch.setattr(metadata, "distributions", lambda: [SimpleNamespace(metadata={"Name": name}) for name in names])


def stand_in(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    cuda = ModuleType("cupy.cuda")

    def load(name: str) -> Any:
        value = modules[name]
        if isinstance(value, Exception):
            raise value
        return value

    vars(cuda)["__getattr__"] = load
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)


NVRTC = SimpleNamespace(getVersion=lambda: (13, 0))


def test_the_driver_decides_which_wheel_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    record(monkeypatch, "cupy_cuda13x", "numpy")
    for version, wheel in {13010: "cupy-cuda13x", 13000: "cupy-cuda13x", 12080: "cupy-cuda12x", None: "cupy-cuda13x"}.items():
        monkeypatch.setattr(cuda_libraries, "driver_cuda_version", lambda version=version: version)
        assert suitable_wheel() == wheel


def test_without_a_driver_the_installed_wheel_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_libraries, "driver_cuda_version", lambda: None)
    record(monkeypatch, "CuPy-CUDA12x", "cupyx-something", "numpy")
    assert installed_wheels() == ["cupy-cuda12x"]
    assert install_command() == 'python -m pip install "cupy-cuda12x[ctk]"'


def test_libraries_that_load_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, nvrtc=NVRTC, cublas=object())
    check_cuda_libraries()


def test_libraries_that_were_never_installed_come_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise RuntimeError("libnvrtc.so.13: no such file")

    monkeypatch.setattr(cuda_libraries, "driver_cuda_version", lambda: None)
    record(monkeypatch, "cupy-cuda13x")
    stand_in(monkeypatch, nvrtc=SimpleNamespace(getVersion=missing), cublas=ImportError("libcublas.so.13: no such file"))
    with pytest.raises(BackendUnavailableError, match=r"NVRTC: libnvrtc\.so\.13; cuBLAS: libcublas\.so\.13") as info:
        check_cuda_libraries()
    assert info.value.cause == "CUDA libraries missing"
    assert info.value.fix == 'python -m pip install "cupy-cuda13x[ctk]"'


@pytest.mark.parametrize("suffix", ["", "-cu12"])
def test_a_library_whose_files_are_gone_is_put_back(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    record(monkeypatch, "cupy-cuda13x", "nvidia-cuda-nvrtc" + suffix, "nvidia-cublas" + suffix)
    stand_in(monkeypatch, nvrtc=NVRTC, cublas=ImportError("libcublas.so.13: no such file"))
    with pytest.raises(BackendUnavailableError, match="cuBLAS") as info:
        check_cuda_libraries()
    assert info.value.fix == f"python -m pip install --force-reinstall --no-deps nvidia-cublas{suffix}"
