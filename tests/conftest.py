"""One fixture for the backends, with fixed ids; an absent one is skipped with its reason, or fails if it is required."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mlp_accel.backends import BACKENDS, Backend, get_backend, unavailable
from mlp_accel.datasets import Dataset, load

BACKEND_IDS = tuple(reversed(BACKENDS))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-backend",
        action="append",
        default=[],
        choices=BACKEND_IDS,
        help="fail, rather than skip, the tests of this backend where it cannot run; may be repeated",
    )


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    """The tests set what they need; what the caller's shell sets must not change them."""
    names = [name for name in os.environ if name.startswith("MLP_ACCEL_")]
    saved = {name: os.environ.pop(name) for name in names}
    yield
    os.environ.update(saved)


def require(request: pytest.FixtureRequest, name: str) -> None:
    """Skip or fail the test if the backend `name` cannot run here."""
    error = unavailable(name)
    if error is not None:
        if name in request.config.getoption("--require-backend"):
            pytest.fail(f"--require-backend {name}: {error}")
        pytest.skip(f"backend {name}: {error.reason}")


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.cupy if name == "cupy" else ()) for name in BACKEND_IDS])
def backend_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    require(request, name)
    return name


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def backend(backend_name: str, dtype: str) -> Backend:
    return get_backend(backend_name, dtype)


@pytest.fixture
def backend64(backend_name: str) -> Backend:
    return get_backend(backend_name, "float64")


@pytest.fixture
def backend32(backend_name: str) -> Backend:
    return get_backend(backend_name, "float32")


@cache
def _mnist() -> Dataset:
    return load("mnist")


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    return _mnist()


@pytest.fixture(scope="session")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set: three separable clouds."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 700)
    x = rng.normal(size=(700, 8)) + 3 * np.eye(3, 8)[y]
    path = tmp_path_factory.mktemp("data") / "clouds.npz"
    np.savez(path, x_train=x[:600], y_train=y[:600], x_test=x[600:], y_test=y[600:])
    return path
