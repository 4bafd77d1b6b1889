"""How much memory is free, and memory of one step of training that the next step uses again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MEMORY = Path("/proc/meminfo")
UNKNOWN = 2**31
"""Bytes that are taken to be free where the system does not say."""


def free_memory(report: Path = _MEMORY) -> int:
    """Bytes of the host's memory that programs can still get, what the system keeps of files included."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", report.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return 1024 * int(found.group(1))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return UNKNOWN


class Arena:
    """Hands out the same arrays at every step, in the same order: new memory would cost a page fault for every 4 KB."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[int, tuple[int, ...], Any], Any] = {}
        self._next = 0

    def restart(self) -> None:
        """A step begins: what was handed out in the one before may be overwritten."""
        self._next = 0

    def take(self, shape: tuple[int, ...], dtype: Any, make: Callable[[tuple[int, ...], Any], Any]) -> Any:
        """The next array of this step, with undefined contents."""
        key = (self._next, shape, dtype)
        self._next += 1
        array = self._arrays.get(key)
        if array is None:
            array = self._arrays[key] = make(shape, dtype)
        return array
