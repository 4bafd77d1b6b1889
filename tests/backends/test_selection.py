"""Which backend is taken, and what is said when it cannot be."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from mlp_accel import BackendUnavailableError, SettingError, get_backend
from mlp_accel import backends as registry
from mlp_accel.backends import BACKENDS, unavailable


def cannot(name: str) -> BackendUnavailableError:
    return BackendUnavailableError(name, "no device", "none is plugged in", "plug one in")


@pytest.fixture
def only_numpy_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "unavailable", lambda name: None if name == "numpy" else cannot(name))


def test_the_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLP_ACCEL_BACKEND", "cupy")
    backend = get_backend("numpy", "float64")
    assert (backend.name, backend.dtype) == ("numpy", "float64")
    assert "argument" in backend.selection


def test_the_environment_is_read_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLP_ACCEL_BACKEND", "numpy")
    backend = get_backend()
    assert backend.name == "numpy"
    assert "MLP_ACCEL_BACKEND" in backend.selection


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_means_unset(monkeypatch: pytest.MonkeyPatch, only_numpy_runs: None, empty: str) -> None:
    monkeypatch.setenv("MLP_ACCEL_BACKEND", empty)
    assert get_backend().selection.startswith("auto")


def test_auto_takes_the_first_usable_and_says_why(only_numpy_runs: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mlp_accel"):
        backend = get_backend("auto")
    assert backend.name == "numpy"
    for word in ("cupy", "numba", "none is plugged in"):
        assert word in backend.selection
        assert word in caplog.text


def test_auto_stops_at_the_first_that_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []

    def only_cupy_cannot(name: str) -> BackendUnavailableError | None:
        probed.append(name)
        return cannot(name) if name == BACKENDS[0] else None

    monkeypatch.setattr(registry, "unavailable", only_cupy_cannot)
    monkeypatch.setattr(registry, "backend_class", lambda _: registry.Backend)
    get_backend("auto")
    assert probed == list(BACKENDS[:2])


def test_auto_prefers_cupy_then_numba_then_numpy() -> None:
    assert BACKENDS == ("cupy", "numba", "numpy")
    usable = [name for name in BACKENDS if unavailable(name) is None]
    assert get_backend("auto").name == usable[0]


@pytest.mark.parametrize("value", ["tensorflow", "NumPy", "numpy "])
def test_an_unknown_name_is_an_error_that_names_value_source_and_choices(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown backend '{value}' from the argument name.*auto, fastest, cupy, numba, numpy"):
        get_backend(value)
    monkeypatch.setenv("MLP_ACCEL_BACKEND", f"x{value.strip()}")
    with pytest.raises(SettingError, match=r"from the environment variable MLP_ACCEL_BACKEND; choose one of"):
        get_backend()


def test_a_named_backend_never_falls_back(only_numpy_runs: None) -> None:
    with pytest.raises(
        BackendUnavailableError, match=r"'numba' cannot run here: no device \(none is plugged in\).*plug one in"
    ) as info:
        get_backend("numba")
    assert (info.value.cause, info.value.fix) == ("no device", "plug one in")


def test_an_unknown_dtype_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown dtype 'float16'; choose one of float32, float64"):
        get_backend("numpy", "float16")


def test_an_installed_backend_passes_its_own_probe(backend_name: str) -> None:
    registry.backend_class(backend_name).probe()


def test_numba_that_is_not_installed_is_named_with_the_command_that_mends_it() -> None:
    code = """
import sys
sys.modules["numba"] = None
from mlp_accel import get_backend, BackendUnavailableError
try:
    get_backend("numba")
except BackendUnavailableError as error:
    print(error.cause, "|", error.fix)
print(get_backend("auto").name)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert output[0] == "not installed | python -m pip install --upgrade numba"
    assert output[1] in ("numpy", "cupy")
