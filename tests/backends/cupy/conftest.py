"""A CuPy that needs no GPU, for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from mlp_accel import backends as registry
from mlp_accel.backends.cupy import probe as cupy_probe
from tests.backends.cupy.emulator import need_compiler
from tests.backends.cupy.fake_cupy import FakeCupy


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCupy]:
    need_compiler()
    registry.unavailable.cache_clear()
    monkeypatch.setattr(registry, "unavailable", registry.unavailable.__wrapped__)
    monkeypatch.setattr(cupy_probe, "check_cuda_libraries", lambda: None)  # it needs none

    def put(**settings: Any) -> FakeCupy:
        module = FakeCupy(**settings)
        monkeypatch.setitem(sys.modules, "cupy", module)
        return module

    return put


@pytest.fixture
def cupy(install: Callable[..., FakeCupy]) -> FakeCupy:
    return install()
