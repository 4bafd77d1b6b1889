"""What can run here, and how to mend the rest."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

import mlp_accel
from mlp_accel.backends import BACKENDS, requested_backend, unavailable
from mlp_accel.backends import get_backend as _get_backend
from mlp_accel.benchmarking.environment import environment
from mlp_accel.datasets import load
from mlp_accel.errors import DatasetError
from mlp_accel.exit_codes import OK, UNAVAILABLE, WRONG_USAGE
from mlp_accel.threads import thread_count

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "matplotlib", "typer", "rich", "threadpoolctl", "cupy-cuda12x", "cupy-cuda13x")


def examine() -> tuple[dict[str, Any], int]:
    """Look at packages, backends, settings and data.

    Returns
    -------
    report : dict
        In types that JSON knows.
    verdict : int
        The exit code of ``mlp-accel doctor``: `OK` if the selected backend runs, `UNAVAILABLE` if it cannot, `WRONG_USAGE` if a
        setting is wrong.
    """
    problems: list[str] = []
    backends = {name: _examine_backend(name) for name in reversed(BACKENDS)}
    verdict = OK

    def setting(read: Callable[[], Any]) -> Any:
        nonlocal verdict
        try:
            return read()
        except (ValueError, DatasetError) as error:
            problems.append(str(error))
            verdict = WRONG_USAGE
            return None

    threads = setting(thread_count)
    request = setting(requested_backend)
    data = setting(load)
    selected = None
    if request is not None:
        name, source = request
        error = None if name == "auto" else unavailable(name)
        selected = {"requested": name, "source": source, "backend": None if error else _get_backend(name).name}
        if error:
            problems.append(f"backend {name!r}, from {source}, cannot run here: {error.reason}")
            verdict = verdict or UNAVAILABLE
    report = {
        "schema": 1,
        "mlp_accel": mlp_accel.__version__,
        "python": platform.python_version(),
        "environment": environment(),
        "packages": {name: _version(name) for name in PACKAGES},
        "backends": backends,
        "selected": selected,
        "threads": threads,
        "data": None if data is None else {"name": data.name, "train": len(data.x_train), "test": len(data.x_test)},
        "problems": problems,
    }
    return report, verdict


def _examine_backend(name: str) -> dict[str, Any]:
    error = unavailable(name)
    if error is not None:
        return {"usable": False, "reason": error.reason, "mend": error.mend}
    backend = _get_backend(name)
    return {"usable": True, "device": backend.device, "versions": backend.versions()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
