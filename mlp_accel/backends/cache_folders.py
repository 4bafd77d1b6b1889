"""Where backends keep what took long; Numba's kernels in a folder for each version of them, which only its owner may write to.

Numba unpickles what it finds in its cache, so whoever can write there can run code here.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

CACHE_VARIABLE, NUMBA_VARIABLE = "MLP_ACCEL_CACHE_DIR", "NUMBA_CACHE_DIR"

OWN_NAME = "mlp_accel"
"""Of the folder of all versions, where no variable names another."""

PREFIX = "numba-"
"""How the name of the folder of a version begins; a hash of all that its kernels depend on follows."""


def cache_root(*others: str) -> Path:
    """The folder of all backends; RuntimeError if there is no home folder. `others` are variables that may name it too."""
    for variable in (CACHE_VARIABLE, *others):
        folder = os.environ.get(variable, "").strip()
        if folder:
            return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache") / OWN_NAME


def private_folder(fingerprint: str) -> Path:
    """The folder of a version, made if it is not there.

    Raises
    ------
    OSError
        If it cannot be made, or others could write to it or put another in its place.
    """
    root = cache_root(NUMBA_VARIABLE)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.name == OWN_NAME and hasattr(os, "getuid") and root.stat().st_uid == os.getuid():
        root.chmod(root.stat().st_mode & ~0o022)  # older versions made it as the umask had it
    folder = root / f"{PREFIX}{fingerprint}"
    folder.mkdir(mode=0o700, exist_ok=True)
    obstacle = not_private(folder)
    if obstacle:
        raise OSError(obstacle)
    return folder


def not_private(folder: Path) -> str | None:
    """Why others could write to `folder` or replace it, or None."""
    if not hasattr(os, "getuid"):
        return None
    status, around = folder.lstat(), folder.parent.stat()
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is no folder of its own"  # a link may lead elsewhere tomorrow
    if status.st_uid != os.getuid():
        return f"{folder} belongs to somebody else"
    if status.st_mode & 0o022:
        return f"others may write to {folder} (chmod go-w changes that)"
    if around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX:  # in /tmp nobody may rename what belongs to others
        return f"others may write to {folder.parent} and replace what is in it (chmod go-w changes that)"
    if around.st_uid not in (os.getuid(), 0):
        return f"{folder.parent} belongs to somebody else, who may replace what is in it"
    return None


def versions() -> list[Path]:
    """The folders of all versions that are there."""
    return sorted(path for path in cache_root(NUMBA_VARIABLE).glob(f"{PREFIX}*") if path.is_dir() and not path.is_symlink())
