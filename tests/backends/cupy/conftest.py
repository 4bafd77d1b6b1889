"""A CuPy that needs no GPU, for the tests of this folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mlp_accel import backends as registry
from mlp_accel.backends.cupy import probe as cupy_probe
from mlp_accel.backends.cupy import verdicts
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.backends.cupy.paths.base import FusedPath, problem_of
from mlp_accel.backends.cupy.portable import unpacked
from tests.backends.cupy.emulator import need_compiler
from tests.backends.cupy.fake_cupy import FakeCupy


def try_in_this_process(request: dict[str, Any]) -> str | None:
    """The trial of a path as the other process does it, with the stand-in of this one; the request has been text in between."""
    content = json.loads(json.dumps(request))
    backend = CupyBackend(content["dtype"], content["device"], content["tf32"])
    path = backend.path_named(content["path"])
    assert isinstance(path, FusedPath)
    path.passed_over = frozenset(content["passed_over"])
    return problem_of(path, unpacked(content["task"]))


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCupy]:
    need_compiler()
    registry.unavailable.cache_clear()
    monkeypatch.setattr(registry, "unavailable", registry.unavailable.__wrapped__)
    monkeypatch.setattr(cupy_probe, "check_cuda_libraries", lambda: None)  # it needs none
    monkeypatch.setattr(verdicts, "tried_elsewhere", try_in_this_process)
    monkeypatch.setattr(verdicts, "_file", lambda subject: None)  # nothing is kept

    def put(**settings: Any) -> FakeCupy:
        module = FakeCupy(**settings)
        monkeypatch.setitem(sys.modules, "cupy", module)
        return module

    return put


@pytest.fixture
def cupy(install: Callable[..., FakeCupy]) -> FakeCupy:
    return install()
