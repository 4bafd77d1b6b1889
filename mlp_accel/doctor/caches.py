"""What is kept on disk: compiled kernels, without which every start compiles anew or fails, and measured times of epochs."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlp_accel.backends.cache_folders import CACHE_VARIABLE, not_private, versions
from mlp_accel.doctor.finding import Finding
from mlp_accel.errors import OutputError
from mlp_accel.training import fastest

PRIVATE = '"$(mktemp -d)"'
"""A new folder that nobody else may write to."""


def findings() -> Iterator[Finding]:
    """Caches that cannot be written: those that variables name, and the default ones where no variable names another."""
    named = False
    for name in ("MLP_ACCEL_CACHE_DIR", "NUMBA_CACHE_DIR", "CUPY_CACHE_DIR"):
        folder = os.environ.get(name, "").strip()
        named = named or bool(folder and name != "CUPY_CACHE_DIR")
        obstacle = cannot_write(Path(folder)) if folder else None
        if obstacle:
            yield Finding(f"{name}={folder}: compiled kernels cannot be kept there ({obstacle})", f"unset {name}", wrong_value=True)
    yield from _private()
    if not named and find_spec("numba"):
        yield from _default("MLP_ACCEL_CACHE_DIR", _user_cache, "Numba's kernels are compiled at every start")
    if not os.environ.get("CUPY_CACHE_DIR") and find_spec("cupy"):
        yield from _default("CUPY_CACHE_DIR", lambda: Path.home() / ".cupy", "CuPy cannot keep the kernels that it compiles")


def _private() -> Iterator[Finding]:
    """Caches that are not used, because others could put something into them that would be run here."""
    try:
        obstacles = {folder: not_private(folder) for folder in versions()}
    except (OSError, RuntimeError):  # it is said elsewhere that they cannot be read
        return
    for folder, obstacle in obstacles.items():
        if obstacle:
            writable = next((path for path in (folder, folder.parent) if f"write to {path} " in obstacle), None)
            fix = f"chmod go-w {writable}" if writable else f"export {CACHE_VARIABLE}={PRIVATE}"
            yield Finding(f"kernels are compiled at every start, because their cache is not safe: {obstacle}", fix)


def kept() -> dict[str, Any]:
    """What is kept on disk.

    Returns
    -------
    dict
        Of Numba's kernels ``folder``, ``bytes``, and ``older``, a list of the folders of other versions with their ``bytes``;
        ``fastest``, a list of the measurements of the backend ``fastest``: each has a ``file`` and what was ``found``.
    """
    measured = [{"file": str(file), "found": found} for file, found in fastest.kept().items()]
    try:
        found = versions()
    except (OSError, RuntimeError):
        return {"folder": None, "bytes": 0, "older": [], "fastest": measured}
    current = _current()
    older = [] if current is None else [{"folder": str(path), "bytes": _size(path)} for path in found if path != current]
    folder, size = (str(current), _size(current)) if current else (None, 0)
    return {"folder": folder, "bytes": size, "older": older, "fastest": measured}


def clean() -> list[Path]:
    """Remove what other versions of the kernels have left behind, and the measurements of ``fastest``; what is gone.

    Raises
    ------
    OutputError
        If one cannot be removed.
    """
    removed = fastest.forget()
    for entry in kept()["older"]:
        path = Path(entry["folder"])
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror or error}") from error
        removed.append(path)
    return removed


def _current() -> Path | None:
    """The folder of this version, or None if Numba cannot be imported or has none."""
    try:
        compiler = importlib.import_module("mlp_accel.backends.numba.compiler")
    except Exception:  # the probe of the backend says what is wrong with Numba
        return None
    folder: Path | None = compiler.cache_folder()
    return folder


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache")


def _default(variable: str, folder: Callable[[], Path], consequence: str) -> Iterator[Finding]:
    try:
        obstacle = cannot_write(folder())
        problem = f"{folder()} cannot be written ({obstacle})" if obstacle else None
    except RuntimeError as error:  # there is no home folder
        problem = str(error).rstrip(".")
    if problem:
        yield Finding(f"{problem}: {consequence}", f"export {variable}={PRIVATE}")


def cannot_write(folder: Path) -> str | None:
    """Why no file can be made in `folder`, or in what is there of the path to it; None if one can. Nothing is left behind."""
    existing = next((path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path)), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=existing):
            return None
    except OSError as error:
        return f"{existing}: {error.strerror or error}"
