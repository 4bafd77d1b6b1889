"""Memory of one step of training that the next step uses again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
