"""Folders for compiled kernels: where none can be written, every start compiles anew or fails."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from mlp_accel.doctor.finding import Finding


def findings() -> Iterator[Finding]:
    """Caches that cannot be written: those that variables name, and the default ones where no variable names another."""
    named = False
    for name in ("MLP_ACCEL_CACHE_DIR", "NUMBA_CACHE_DIR", "CUPY_CACHE_DIR"):
        folder = os.environ.get(name, "").strip()
        named = named or bool(folder and name != "CUPY_CACHE_DIR")
        obstacle = cannot_write(Path(folder)) if folder else None
        if obstacle:
            yield Finding(f"{name}={folder}: compiled kernels cannot be kept there ({obstacle})", f"unset {name}", wrong_value=True)
    if not named and find_spec("numba"):
        yield from _default("MLP_ACCEL_CACHE_DIR", _user_cache, "Numba's kernels are compiled at every start")
    if not os.environ.get("CUPY_CACHE_DIR") and find_spec("cupy"):
        yield from _default("CUPY_CACHE_DIR", lambda: Path.home() / ".cupy", "CuPy cannot keep the kernels that it compiles")


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache")


def _default(variable: str, folder: Callable[[], Path], consequence: str) -> Iterator[Finding]:
    try:
        obstacle = cannot_write(folder())
        problem = f"{folder()} cannot be written ({obstacle})" if obstacle else None
    except RuntimeError as error:  # there is no home folder
        problem = str(error).rstrip(".")
    if problem:
        alternative = Path(tempfile.gettempdir()) / "mlp_accel_cache"
        yield Finding(f"{problem}: {consequence}", f"export {variable}={alternative}")


def cannot_write(folder: Path) -> str | None:
    """Why no file can be made in `folder`, or in what is there of the path to it; None if one can. Nothing is left behind."""
    existing = next((path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path)), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=existing):
            return None
    except OSError as error:
        return f"{existing}: {error.strerror or error}"
