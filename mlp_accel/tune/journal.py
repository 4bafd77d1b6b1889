"""The file of results: a line of JSON for each network, appended as soon as it is trained, so that nothing is ever lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from mlp_accel.errors import MlpAccelError, OutputError

Row = Mapping[str, Any]

IDENTITY = ("settings", "seed", "fold", "validation", "folds", "split_seed", "data", "early_stopping")
"""The fields that tell a result from all others."""

STATUSES = ("done", "stopped", "diverged")
"""Results; what failed for another reason is not in the file and is tried again."""


class JournalError(MlpAccelError, ValueError):
    """A file of results is malformed, or another search is writing to it."""


def key(row: Row) -> str:
    """Tells a result from all others."""
    return json.dumps([row.get(name) for name in IDENTITY], sort_keys=True)


class Journal:
    """The results so far, and the file that they are kept in.

    Parameters
    ----------
    path : path, optional
        Results that it has are read; new ones are appended. Without it they are kept in memory alone.

    Raises
    ------
    JournalError
        If it holds something else, or another search writes to it.
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        self._file: int | None = None
        if path is None:
            return
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        try:
            self._lock()
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write to the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def append(self, rows: Iterable[Row]) -> list[Row]:
        """Keep the results that are not there yet, each in a line that is there whole or not at all; returns them.

        Raises
        ------
        OutputError
            If they cannot be written; then the file is as it was.
        """
        new = {key(row): row for row in rows}
        new = {name: row for name, row in new.items() if name not in self.rows}
        if self._file is not None:
            self._write("".join(json.dumps(row, allow_nan=False) + "\n" for row in new.values()).encode())
        self.rows |= new
        return list(new.values())

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, data)
            if written < len(data):
                os.write(self._file, data[written:])  # which says why
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, size)
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error

    def _lock(self) -> None:
        """Be the only search that writes to the file; where the system has no such locks (Windows), that is the user's care."""
        try:
            import fcntl
        except ImportError:
            return
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(f"{self.path}: another search is writing to it") from None

    def _read(self) -> None:
        """Read what is there; the beginning of a line that was cut off by a crash is cleared away."""
        assert self._file is not None
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            content = file.read()
        whole = content.rfind(b"\n") + 1
        for row in rows_of(content[:whole].decode(errors="replace").splitlines(), self.path):
            self.rows[key(row)] = row
        if whole < len(content):
            if not content[whole:].startswith(b"{"):
                raise JournalError(f"{self.path}: its last line is not that of a file of results; name another file")
            os.ftruncate(self._file, whole)


def rows_of(lines: Iterable[str], path: Path | None) -> Iterable[Row]:
    """The results of a file; JournalError for a line that is none."""
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not (isinstance(row, dict) and isinstance(row.get("settings"), dict) and row.get("status") in STATUSES):
            raise JournalError(f"{path}, line {number}: is no result of a search; name another file")
        yield row
