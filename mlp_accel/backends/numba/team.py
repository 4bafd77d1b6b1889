"""Threads that share the work of an epoch, and stay in compiled code from its beginning to its end.

An epoch is a sequence of phases, each of a fixed number of jobs. A phase begins when all jobs of the one before are done. A thread
first claims the jobs that are its own, so that what they work on stays in the cache of its core; then, after a moment, whatever
nobody has claimed. Which thread does a job does not change a bit of its results.

So a thread that the system has put aside, for another process, holds up the others only if that happened in the middle of a job.
Who waits for it spins for some microseconds and then sleeps, which leaves the core to whom it waits for. And it says that the
machine is crowded: then all threads but one rest, for twice as long each time, and come back to see whether there is room again.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from mlp_accel.backends.numba.compiler import CACHE_LINE as LINE
from mlp_accel.backends.numba.compiler import c_function, inlined, numba
from mlp_accel.backends.numba.emit.addresses import array_at, call
from mlp_accel.backends.numba.emit.atomics import atomic_add, atomic_load, atomic_store, compare_exchange, pause

HAS_CLOCK = hasattr(time, "clock_gettime")
"""Whether the system has the clock of POSIX, by which threads tell a long wait."""

PHASE, DONE, CROWDED, SETTINGS, CLAIMS = range(5)
"""Cache lines of a team's memory: the number of the phase; of the jobs done so far in all phases; how often a thread was missed;
what does not change. From `CLAIMS` on there is a line for each job, with the number of phases in which it was claimed, and one for
each thread.
"""

N_PHASES, N_JOBS, N_THREADS, WORK, TABLE, SLEEP, GET_TIME, CLOCK = range(WORDS := LINE // 8)
"""Words of the line `SETTINGS`; WORK, SLEEP and GET_TIME are addresses of functions."""

SLEEPS, TAKEN_OVER, RESTS, REST_NS, REST_END, SEEN, MISSED_AT, NOW = range(8)
"""Words of a thread's two lines. It counts how often it slept because it missed another, jobs that it took over, and times of rest;
then come how long the next rest will be and when this one ends, which state of `CROWDED` it has seen, when it last missed another,
and room for the two words of a time."""

TURNS = 16
"""How many times a waiting thread looks for the next phase before it looks at the clock: half a microsecond or so."""

PATIENCE_NS = 2_000
"""How long a thread waits before it takes over jobs that nobody has claimed."""

MISSED_NS = 50_000
"""How long a thread waits before it sleeps, in addition to as long as it has worked in this phase itself."""

SHORTEST_SLEEP, LONGEST_SLEEP = 50, 400
"""Microseconds; each sleep in a row is twice as long as the one before."""

CROWDED_NS, AGAIN_NS = 300_000, 2_000_000
"""The machine is crowded if a thread is missed for so much longer, or again after so short a time."""

CALM_NS = 16_000_000
"""How long a thread must have worked since its last rest for the next one to be short again."""

SHORTEST_REST_NS, LONGEST_REST_NS = 1_000_000, 64_000_000

REST_SLEEP = 200
"""Microseconds between two looks of a resting thread: the epoch does not end without it."""


class Waits(NamedTuple):
    """How the threads of a training got on with other work on the machine."""

    sleeps: int = 0
    """How often a thread slept because one that it had to wait for was put aside by the system."""
    taken_over: int = 0
    """Jobs that were done by another thread than the one that usually has them."""
    rests: int = 0
    """How often a thread rested, because the machine was crowded."""

    def __sub__(self, before: Waits) -> Waits:
        return Waits(*(now - then for now, then in zip(self, before, strict=True)))


@inlined
def time_ns(settings: Any, line: int) -> Any:
    """The time of the system's clock, in nanoseconds; `line` is the address of the thread's line."""
    now = line + NOW * 8
    call(settings[GET_TIME], (settings[CLOCK], now))
    words = array_at(now, 2, 0)
    return words[0] * 1_000_000_000 + words[1]


@inlined
def claim(team: int, job: int, phase: int) -> Any:
    """Whether this thread, and no other, has the job in this phase."""
    return compare_exchange(team + (CLAIMS + job) * LINE, phase, phase + 1)


@inlined
def do_job(team: int, settings: Any, job: int, phase: int) -> None:
    """Do a job; whoever finishes the last one begins the next phase."""
    call(settings[WORK], (settings[TABLE], phase, job))
    if atomic_add(team + DONE * LINE, 1) + 1 == (phase + 1) * settings[N_JOBS]:
        atomic_store(team + PHASE * LINE, phase + 1)


def take_part(team: int, thread: int) -> int:
    """What a thread does in an epoch. `team` is the address of the team's memory, `thread` a number from 0 on."""
    settings = array_at(team + SETTINGS * LINE, WORDS, 0)
    n_phases, n_jobs, n_threads = settings[N_PHASES], settings[N_JOBS], settings[N_THREADS]
    line = team + (CLAIMS + n_jobs + 2 * thread) * LINE
    own = array_at(line, 2 * WORDS, 0)
    patience = PATIENCE_NS
    while True:
        phase = atomic_load(team + PHASE * LINE)
        if phase >= n_phases:
            return 0
        start = time_ns(settings, line)
        if thread > 0:
            crowded = atomic_load(team + CROWDED * LINE)
            if crowded != own[SEEN]:
                own[SEEN] = crowded
                own[RESTS] += 1
                own[REST_END] = start + own[REST_NS]
                own[REST_NS] = min(2 * own[REST_NS], LONGEST_REST_NS)
            if start < own[REST_END]:
                call(settings[SLEEP], (REST_SLEEP,))
                own[SEEN] = atomic_load(team + CROWDED * LINE)
                continue
            if start > own[REST_END] + CALM_NS:  # there has been room for long enough
                own[REST_NS] = SHORTEST_REST_NS
        for job in range(thread, n_jobs, n_threads):
            if claim(team, job, phase):
                do_job(team, settings, job, phase)
        finish = time_ns(settings, line)
        missed, sleep, now = MISSED_NS + finish - start, SHORTEST_SLEEP, finish
        helped = again = told = False
        while atomic_load(team + PHASE * LINE) == phase:
            if now - finish >= patience and not helped:
                for job in range(n_jobs):
                    if claim(team, job, phase):
                        do_job(team, settings, job, phase)
                        own[TAKEN_OVER] += 1
                helped = True
            elif now - finish >= missed:
                if sleep == SHORTEST_SLEEP:
                    again = now - own[MISSED_AT] < AGAIN_NS
                    own[SLEEPS] += 1
                    own[MISSED_AT] = now
                if not told and (again or now - finish >= missed + CROWDED_NS):
                    atomic_add(team + CROWDED * LINE, 1)
                    told = True
                call(settings[SLEEP], (sleep,))
                sleep = min(2 * sleep, LONGEST_SLEEP)
            else:
                for _ in range(TURNS):
                    if atomic_load(team + PHASE * LINE) != phase:
                        break
                    pause()
            now = time_ns(settings, line)
        # Who had to be helped is not waited for again until it is back.
        patience = 0 if helped else PATIENCE_NS


@functools.cache
def _compiled() -> Any:
    i = numba.int64
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(c_function(take_part, i(i, i)).address)


@functools.cache
def _address_in_libc(name: str) -> int:
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0


class Team:
    """Some threads for the epochs of a training.

    Parameters
    ----------
    n_threads : int
    n_jobs : int
        Jobs of each phase.
    """

    def __init__(self, n_threads: int, n_jobs: int) -> None:
        self.n_threads, self.n_jobs = min(n_threads, n_jobs), n_jobs
        n_lines = CLAIMS + n_jobs + 2 * self.n_threads
        self._memory = np.zeros((n_lines + 1) * WORDS, np.int64)
        first = -self._memory.ctypes.data % LINE // 8
        self._lines = self._memory[first : first + n_lines * WORDS].reshape(n_lines, WORDS)
        self._threads = self._lines[CLAIMS + n_jobs :].reshape(self.n_threads, 2 * WORDS)
        self._threads[:, REST_NS] = SHORTEST_REST_NS
        self._others: list[threading.Thread] = []
        self._in_use: object = None

    def work(self, work: int, table: int, n_phases: int) -> None:
        """Do all jobs of all phases: `begin` and `finish`."""
        self.begin(work, table, n_phases)
        self.finish()

    def begin(self, work: int, table: int, n_phases: int, memory: object = None) -> None:
        """Have all threads but the caller's begin with the jobs; until it calls `finish`, they do its jobs too.

        Parameters
        ----------
        work : int
            Address of a C function of three int64: `table`, the number of the phase and the number of the job.
        table : int
            The first argument of `work`.
        memory : object
            Kept until the work is done: what lies at the address `table`.
        """
        lines = self._lines
        lines[[PHASE, DONE, CROWDED]] = lines[CLAIMS : CLAIMS + self.n_jobs] = self._threads[:, SEEN] = 0
        clock = _address_in_libc("usleep"), _address_in_libc("clock_gettime"), time.CLOCK_MONOTONIC
        lines[SETTINGS] = n_phases, self.n_jobs, self.n_threads, work, table, *clock
        self._in_use = memory
        _compiled()  # before there are threads, each of which would compile it
        self._others = [threading.Thread(target=self._take_part, args=(thread, memory)) for thread in range(1, self.n_threads)]
        for thread in self._others:
            thread.start()

    def finish(self) -> None:
        """Work on what has been begun, and come back when all of it is done."""
        self._take_part(0)
        for thread in self._others:
            thread.join()
        self._in_use = None

    def _take_part(self, thread: int, memory: object = None) -> None:
        _compiled()(self._lines.ctypes.data, thread)

    @property
    def waits(self) -> Waits:
        """What has been counted so far."""
        return Waits(*(int(self._threads[:, word].sum()) for word in (SLEEPS, TAKEN_OVER, RESTS)))
