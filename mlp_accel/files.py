"""Writing files so that an error never costs what was there."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

from mlp_accel.errors import OutputError
from mlp_accel.exit_codes import BROKEN_PIPE

TEMPORARY = ".mlp-accel."
"""How the name of a file begins that is not yet complete."""


def check_writable(path: Path) -> None:
    """Make sure that `path` can be written, without touching what is there.

    Raises
    ------
    OutputError
        If its folder is missing or cannot be written, or the path is a folder itself.
    """
    try:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file")
        target = path.resolve()
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
        if target.exists() and not target.is_file():
            return  # a device or a pipe: it is written to, not replaced
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f"{TEMPORARY}{target.name}."):
            pass
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], check: Callable[[Path], object] | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: the file is there whole or not at all.

    A link is followed, and a device or a pipe is written to. A file that is replaced keeps its permissions. The file is on the disk
    before it takes its name, so that not even a power cut leaves it in part.

    Parameters
    ----------
    check : callable, optional
        Called with the path of the temporary file, once it is written; what it raises prevents the renaming.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    temporary = None
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            with target.open("wb") as device:
                write(device)
            return
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f"{TEMPORARY}{target.name}.", delete=False) as file:
            temporary = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        temporary.chmod(_permissions(target))  # a temporary file is private
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote `path` have left beside it; for its only writer to call."""
    target = path.resolve()
    leftover = re.compile(re.escape(f"{TEMPORARY}{target.name}.") + "[a-z0-9_]{8}")
    for file in target.parent.iterdir():
        if leftover.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _permissions(path: Path) -> int:
    """The permissions of the file that is there, else those that a new file gets."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(target: str, content: dict[str, Any]) -> None:
    """Write `content` to a file, or to standard output if `target` is ``"-"``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        flush_output()
    else:
        write_text(Path(target), text)


def flush_output() -> None:
    """Make sure that standard output has got everything.

    Raises
    ------
    OutputError
        If it cannot be written.
    SystemExit
        If nobody reads it any more.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        end_quietly()
    except OSError as error:
        discard_output()
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error


def end_quietly() -> NoReturn:
    """End the process without a message: the reader of standard output has gone, which is no error."""
    discard_output()
    sys.exit(BROKEN_PIPE)


def discard_output() -> None:
    """Throw away what is still buffered for standard output, which Python would otherwise fail to write at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
