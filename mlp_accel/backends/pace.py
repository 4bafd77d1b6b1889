"""How many threads a step of the loop is given, on a machine that other processes use too.

A step is a few parallel regions, and at the end of each the threads wait for the slowest. One that the system has put aside for
another process holds up all of them, region after region, so a step may take a hundred times as long as on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

STEPS_ALONE = 3
"""Steps on one thread at first, which show how long that takes."""

SLOWER = 1.5
"""Threads that need so many times the time of one have waited for each other."""

FORGET = 1.01
"""By how much the shortest step on one thread counts as longer with each one after it: the speed of a core changes."""

SHORTEST_REST, LONGEST_REST, CALM = 0.002, 0.5, 0.05
"""Seconds. Each rest is twice as long as the one before, unless the threads have got on well for as long as `CALM`."""


class Pace:
    """Gives a step all threads, or one alone for a while where they would wait for each other.

    Parameters
    ----------
    n_threads : int
        With 1, as by default, there is nothing to decide.
    use : callable
        Called with the number of threads that the next step is given. Its results must not depend on it.

    Attributes
    ----------
    rests : int
        How often one thread went on alone because the machine was crowded.
    """

    def __init__(self, n_threads: int = 1, use: Callable[[int], object] = int) -> None:
        self.n_threads, self.rests, self._use = n_threads, 0, use
        self._alone, self._steps_alone = float("inf"), 0
        self._rest, self._rest_end, self._rested = SHORTEST_REST, 0.0, 0.0
        self._give(1)

    def step(self, seconds: float, now: float | None = None) -> None:
        """Say how long a step has taken, and decide on the next one; `now` is the time of `perf_counter`."""
        if self.n_threads == 1:
            return
        now = perf_counter() if now is None else now
        if self._threads == 1:
            self._steps_alone += 1
            self._alone = min(seconds, self._alone * FORGET)
            if self._steps_alone >= STEPS_ALONE and now >= self._rest_end:
                self._give(self.n_threads)
                self._rested = now
        elif seconds > SLOWER * self._alone:
            if now - seconds - self._rested > CALM:
                self._rest = SHORTEST_REST
            self.rests += 1
            self._rest_end = now + self._rest
            self._rest = min(2 * self._rest, LONGEST_REST)
            self._give(1)

    def close(self) -> None:
        """Give all threads to what comes next."""
        self._give(self.n_threads)

    def _give(self, count: int) -> None:
        self._threads = count
        self._use(count)
