"""The report of ``mlp-accel doctor``: what can run here, and how to fix the rest."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from typing import Any, TypeVar

import mlp_accel
from mlp_accel import backends, datasets
from mlp_accel.backends import threads
from mlp_accel.backends.paths import AUTO, LOOP, PATH_VARIABLE, requested_path
from mlp_accel.doctor import caches
from mlp_accel.doctor.findings import Finding, diagnose
from mlp_accel.environment import environment
from mlp_accel.errors import DatasetError, SettingError
from mlp_accel.exit_codes import OK, UNAVAILABLE, WRONG_USAGE

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "matplotlib", "typer", "rich", "threadpoolctl", "cupy-cuda12x", "cupy-cuda13x")

T = TypeVar("T")


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
    findings = diagnose(threads.granted_cores())
    count = _setting(threads.thread_count, threads.ENVIRONMENT_VARIABLE, findings)
    request = _setting(backends.requested_backend, backends.ENVIRONMENT_VARIABLE, findings)
    data = _setting(datasets.load, datasets.ENVIRONMENT_VARIABLE, findings)
    rows = {name: _examine_backend(name, count, findings) for name in reversed(backends.BACKENDS)}
    selected = None if request is None else _select(*request, rows, findings)
    path, _ = requested_path()
    if selected and selected["backend"] not in (None, backends.FASTEST):
        _check_path(path, selected["backend"], findings)
    verdict = UNAVAILABLE if selected and selected["backend"] is None else OK
    report = {
        "schema": 2,
        "mlp_accel": mlp_accel.__version__,
        "python": platform.python_version(),
        "environment": environment(),
        "packages": {name: _version(name) for name in PACKAGES},
        "backends": rows,
        "selected": selected,
        "path": path,
        "threads": count,
        "data": None if data is None else {"name": data.name, "train": len(data.x_train), "test": len(data.x_test)},
        "kept": caches.kept(),
        "findings": [asdict(finding) for finding in findings],
    }
    return report, WRONG_USAGE if any(finding.wrong_value for finding in findings) else verdict


def _setting(read: Callable[[], T], variable: str, findings: list[Finding]) -> T | None:
    """The value that `read` returns; None if the setting is wrong, which is added to the findings."""
    try:
        return read()
    except (SettingError, DatasetError) as error:
        if os.environ.get(variable):
            findings.append(Finding(str(error), f"unset {variable}", wrong_value=True))
        else:
            findings.append(Finding(str(error), "python -m pip install --force-reinstall --no-deps mlp-accel"))
        return None


def _examine_backend(name: str, count: int | None, findings: list[Finding]) -> dict[str, Any]:
    """What the report says of a backend. A fix from the findings is preferred to that of the backend, which knows less."""
    fix = next((finding.fix for finding in findings if finding.backend == name), None)
    error = backends.unavailable(name)
    if error is not None:
        return {"usable": False, "reason": error.reason, "fix": fix or error.fix}
    try:
        backend = backends.get_backend(name)
        with backend.limit_threads(count or 1):
            return {"usable": True, "device": backend.device, "versions": backend.versions()}
    except SettingError as wrong:
        if fix is None:
            fix = f"unset {threads.ENVIRONMENT_VARIABLE}"
            findings.append(Finding(str(wrong), fix, wrong_value=True, backend=name))
        reason = str(wrong)
    except Exception as unexpected:
        if fix is None:
            raise
        reason = f"{type(unexpected).__name__}: {unexpected}"
    return {"usable": False, "reason": reason, "fix": fix}


def _select(name: str, source: str, rows: dict[str, dict[str, Any]], findings: list[Finding]) -> dict[str, Any]:
    """The backend that a command would take; the fastest is known for a network alone."""
    if name == backends.FASTEST:
        return {"requested": name, "source": source, "backend": name}
    candidates = backends.BACKENDS if name == backends.AUTO else (name,)
    taken = next((candidate for candidate in candidates if backends.unavailable(candidate) is None), None)
    error = backends.unavailable(candidates[-1])
    if taken is None and error is not None:
        fix = rows[error.name].get("fix") or error.fix
        findings.append(Finding(f"backend {name!r}, from {source}, cannot run here: {error.reason}", fix, backend=error.name))
    return {"requested": name, "source": source, "backend": taken}


def _check_path(path: str, backend: str, findings: list[Finding]) -> None:
    """Add a finding if the path that is asked for is one of another backend."""
    paths = (AUTO, LOOP, *backends.backend_class(backend).path_names)
    if path.partition(":")[0] not in paths and not any(finding.problem.startswith(PATH_VARIABLE) for finding in findings):
        problem = f"{PATH_VARIABLE}={path} is no path of the selected backend {backend}; it has {', '.join(paths)}"
        findings.append(Finding(problem, f"unset {PATH_VARIABLE}", wrong_value=True))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
