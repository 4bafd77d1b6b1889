"""How the speed of each engine went, by the results that were kept: its levels, and the commits between them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp_accel.bench.comparison import machine, work
from mlp_accel.bench.history.changes import change_points
from mlp_accel.bench.record import Record
from mlp_accel.bench.results import EngineRecord, Result

THRESHOLD = 0.03
"""A change of the level up to this one is not told: 0.03 is 3 %."""


@dataclass(frozen=True, kw_only=True)
class Point(Record):
    """The median epoch of one run: of which commit, if that is known, whether its sources were changed, and when."""

    commit: str | None
    changed: bool
    date: str
    seconds: float

    @property
    def label(self) -> str:
        """The commit as people write it; with a plus if the sources were changed."""
        return f"{self.commit[:10]}{'+' * self.changed}" if self.commit else "no commit"


@dataclass(frozen=True, kw_only=True)
class Change(Record):
    """A new level.

    Attributes
    ----------
    index : int
        Of the first point of it.
    commit, before : str
        Labels of that point and of the one before it; where they are one, something else than the code has changed.
    change : float
        0.05 is 5 % slower than the level before.
    """

    index: int
    commit: str
    before: str
    change: float


@dataclass(frozen=True, kw_only=True)
class Series(EngineRecord):
    """One engine with one work on one machine, in the order of the commits.

    Attributes
    ----------
    machine, work : dict
        As `comparison.machine` and `comparison.work` give them, with the number of threads.
    """

    machine: Mapping[str, Any]
    work: Mapping[str, Any]
    points: tuple[Point, ...]
    changes: tuple[Change, ...]

    @property
    def levels(self) -> list[tuple[int, int, float]]:
        """Stretches between changes: first point, the point after the last, and the median of their seconds."""
        ends = [0, *(change.index for change in self.changes), len(self.points)]
        return [(first, last, _level(self.points, first, last)) for first, last in itertools.pairwise(ends)]


def find_series(results: Sequence[Result], order: Mapping[str, int] | None, threshold: float = THRESHOLD) -> list[Series]:
    """The series of the results.

    Parameters
    ----------
    order : mapping, optional
        The position of each commit among all; without it runs are taken in the order of their dates.
    threshold : float
        Changes up to this one are left out.
    """
    groups: dict[str, list[tuple[Result, Point]]] = {}
    for result in results:
        about = {"machine": machine(result), "work": {**work(result), "threads": result.config.threads}}
        for run in result.results:
            if run.status == "ok" and run.epoch_seconds:
                key = json.dumps([run.name, run.path, about], sort_keys=True)
                groups.setdefault(key, []).append((result, _point(result, run.epoch_seconds.median)))
    found = []
    for key, members in groups.items():
        name, path, about = json.loads(key)
        points = sorted((point for _, point in members), key=lambda point: (_position(point, order), point.date))
        changes = find_changes(points, threshold)
        found.append(Series(name=name, path=path, **about, points=tuple(points), changes=tuple(changes)))
    return found


def find_changes(points: Sequence[Point], threshold: float) -> list[Change]:
    """Where the level changes by more than `threshold`."""
    found = change_points(np.log([point.seconds for point in points])) if points else []
    while found:  # drop the smallest change until all that are left are large enough
        ends = [0, *found, len(points)]
        levels = [_level(points, first, last) for first, last in itertools.pairwise(ends)]
        sizes = [after / before - 1 for before, after in itertools.pairwise(levels)]
        smallest = min(range(len(found)), key=lambda number: abs(np.log1p(sizes[number])))
        if abs(np.log1p(sizes[smallest])) > np.log1p(threshold):
            return [
                Change(index=index, commit=points[index].label, before=points[index - 1].label, change=size)
                for index, size in zip(found, sizes, strict=True)
            ]
        del found[smallest]
    return []


def _point(result: Result, seconds: float) -> Point:
    environment = result.environment
    commit = environment.get("commit")
    return Point(
        commit=commit if isinstance(commit, str) else None,
        changed=bool(environment.get("dirty")),
        date=str(environment.get("date", "")),
        seconds=seconds,
    )


def _position(point: Point, order: Mapping[str, int] | None) -> int:
    return -1 if order is None or point.commit is None else order[point.commit]


def _level(points: Sequence[Point], first: int, last: int) -> float:
    return float(np.median([point.seconds for point in points[first:last]]))
