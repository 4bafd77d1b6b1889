"""Results of `mlp-accel bench` side by side: first what differs around them, then the ratios of their times.

Times of identical code differ from run to run, often by more than they do within one. So the file is the unit: each side has the
files of several runs, a file gives one number for each engine, the logarithm of its median epoch, and what the sides differ by is
held against what the files of one side differ by. With one file a side that cannot be known, and nothing is called slower.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from mlp_accel.bench.evidence import ALPHA, adjusted_p, interval, least_p
from mlp_accel.bench.record import Record
from mlp_accel.bench.results import EngineRecord, Result, Run

MACHINE = ("host", "cpu", "cores", "cgroup_cores", "simd_bits", "gpu")
"""Fields of the environment that tell machines apart: ``host`` is a label that the user gave (`mlp_accel.environment`)."""

WORK = ("layer_sizes", "activation", "gradient", "optimizer", "momentum", "weight_decay", "dtype", "batch_size", "data")
"""Settings that say what is computed; the others say how."""

ALWAYS_DIFFERENT = ("date", "load_before")
LARGEST_LOG = 700.0
"""Of what has an exponential that is a number: two runs that differ by orders of magnitude have an interval as wide as that."""

COMPARISON_SCHEMA = 3
SLOWER, FASTER, NO_DIFFERENCE = "B is slower", "B is faster", "no difference seen"

Difference = tuple[str, list[Any], list[Any]]
"""A field, and the different values that it has in the files of A and of B."""

Key = tuple[str, str | None]
"""Name and path of an engine."""


@dataclass(frozen=True, kw_only=True)
class Ratio(EngineRecord):
    """One engine on both sides.

    Attributes
    ----------
    reason : str or None
        Why it has no ratio, or no verdict.
    seconds : (float or None, float or None)
        In A and B: the median epoch; of several files the geometric mean of their medians.
    ratio : float or None
        Of these, B / A.
    interval : (float, float) or None
        Of the ratio, 95 %: what runs differ by is in it.
    p : float or None
        How often chance alone makes any of the engines differ as much, this way or that, as this one does.
    verdict : str or None
        None if it is not ranked.
    """

    reason: str | None = None
    seconds: tuple[float | None, float | None] = (None, None)
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    verdict: str | None = None

    def is_slower(self, threshold: float = 0.0) -> bool:
        """Whether B is slower beyond chance, and the ratio says by more than `threshold`: 0.05 is 5 %."""
        return self.verdict == SLOWER and self.ratio is not None and self.ratio > 1 + threshold


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """The results of two sides: what differs around them, why no verdicts are given (or None), and the ratios."""

    schema: int = COMPARISON_SCHEMA
    files: tuple[int, int]
    environment_differences: tuple[Difference, ...]
    config_differences: tuple[Difference, ...]
    not_ranked: str | None
    results: tuple[Ratio, ...]


def compare(a: Sequence[Result], b: Sequence[Result]) -> Comparison:
    """Compare the results of two sides, each of one or more files, as `read_result` gives them."""
    not_ranked = _not_comparable([*a, *b]) or _too_few(len(a), len(b))
    sides = [[{(run.name, run.path): run for run in result.results} for result in side] for side in (a, b)]
    keys = list(dict.fromkeys(key for side in sides for rows in side for key in rows))
    ratios = [_ratio(key, *([rows.get(key) for rows in side] for side in sides)) for key in keys]
    if not not_ranked:
        ratios = _ranked(ratios, sides)
    return Comparison(
        files=(len(a), len(b)),
        environment_differences=_differences(a, b, lambda result: result.environment, ALWAYS_DIFFERENT),
        config_differences=_differences(a, b, lambda result: result.config.to_dict()),
        not_ranked=not_ranked,
        results=tuple(ratios),
    )


def differences(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], ignore: Sequence[str] = ()) -> list[Difference]:
    """Fields in which the objects of two sides differ, each with the values that it has in A and in B.

    Fields of nested objects have dotted names; a missing one counts as None.
    """
    sides = [[dict(_flat(item)) for item in side] for side in (a, b)]
    found = []
    for name in dict.fromkeys(name for side in sides for item in side for name in item):
        in_a, in_b = (_distinct([item.get(name) for item in side]) for side in sides)
        if name.partition(".")[0] not in ignore and len(_distinct([*in_a, *in_b])) > 1:
            found.append((name, in_a, in_b))
    return found


def machine(result: Result) -> dict[str, Any]:
    """What is known of the hardware; the version of a GPU's driver is no part of it."""
    found = {name: result.environment[name] for name in MACHINE if name in result.environment}
    if isinstance(found.get("gpu"), list):
        found["gpu"] = [str(gpu).partition(", driver ")[0] for gpu in found["gpu"]]
    return found


def work(result: Result) -> dict[str, Any]:
    """The settings that say what is computed."""
    return {name: getattr(result.config, name) for name in WORK}


def _not_comparable(results: Sequence[Result]) -> str | None:
    """Why the times of these results say nothing about the code."""
    machines = [machine(result) for result in results]
    known = [name for name in MACHINE if all(name in found for found in machines)]  # an older file says less
    if differing := [name for name in known if any(found[name] != machines[0][name] for found in machines)]:
        return f"different machines ({', '.join(differing)}): their ratios tell of the machines, not of the code"
    works = [work(result) for result in results]
    if differing := [name for name in WORK if any(found[name] != works[0][name] for found in works)]:
        return f"different work ({', '.join(differing)}): their ratios tell of the work, not of the code"
    return None


def _too_few(n_a: int, n_b: int) -> str | None:
    """Why so many files can have no verdict."""
    if min(n_a, n_b) == 1:
        return "the spread between runs is unknown with one file on a side: give several, as compare a*.json -- b*.json"
    if least_p(n_a, n_b) >= ALPHA:
        enough = next(n for n in range(2, 100) if least_p(n, n) < ALPHA)
        return f"{n_a} and {n_b} files can never reach p < {ALPHA}, whatever they measured: give {enough} on each side"
    return None


def _ratio(key: Key, a: Sequence[Run | None], b: Sequence[Run | None]) -> Ratio:
    """What is known of one engine without the others."""
    sides = {"A": a, "B": b}
    logs = {side: np.log([_median(run) for run in runs if _timed(run)]) for side, runs in sides.items()}
    seconds = [float(np.exp(values.mean())) if values.size else None for values in logs.values()]
    ratio = Ratio(name=key[0], path=key[1], seconds=(seconds[0], seconds[1]), reason=_why_not_all(sides))
    if not all(values.size for values in logs.values()):
        return ratio
    ratio = replace(ratio, ratio=float(np.exp(logs["B"].mean() - logs["A"].mean())))
    if min(values.size for values in logs.values()) < 2:
        return ratio
    low, high = np.exp(np.clip(interval(logs["A"], logs["B"]), -LARGEST_LOG, LARGEST_LOG))
    return replace(ratio, interval=(float(low), float(high)))


def _ranked(ratios: Sequence[Ratio], sides: Sequence[Sequence[Mapping[Key, Run]]]) -> list[Ratio]:
    """The ratios with verdicts, where an engine has times in every file."""
    complete = [key for key in map(_key, ratios) if all(_timed(rows.get(key)) for side in sides for rows in side)]
    if not complete:
        return list(ratios)
    a, b = (np.log([[_median(rows[key]) for rows in side] for key in complete]) for side in sides)
    tested = dict(zip(complete, zip(adjusted_p(a, b), adjusted_p(b, a), strict=True), strict=True))
    return [replace(ratio, **_verdict(*tested[_key(ratio)])) if _key(ratio) in tested else ratio for ratio in ratios]


def _verdict(slower: float, faster: float) -> dict[str, Any]:
    verdict = SLOWER if slower < ALPHA else FASTER if faster < ALPHA else NO_DIFFERENCE
    return {"p": float(min(slower, faster)), "verdict": verdict}


def _key(record: EngineRecord) -> Key:
    return record.name, record.path


def _timed(run: Run | None) -> TypeGuard[Run]:
    return run is not None and run.status == "ok" and run.epoch_seconds is not None


def _median(run: Run) -> float:
    assert run.epoch_seconds is not None
    return run.epoch_seconds.median


def _why_not_all(sides: Mapping[str, Sequence[Run | None]]) -> str | None:
    """In which files an engine has no times, and why; None if it has some in each."""
    found: dict[str, list[str]] = {}
    for side, runs in sides.items():
        reasons = Counter("no row" if run is None else f"{run.status}: {run.reason}" for run in runs if not _timed(run))
        for reason, count in reasons.items():
            found.setdefault(reason, []).append(side if count == len(runs) else f"{count} of {len(runs)} files of {side}")
    return "; ".join(f"in {' and '.join(places)} {reason}" for reason, places in found.items()) or None


def _differences(
    a: Sequence[Result], b: Sequence[Result], part: Callable[[Result], Mapping[str, Any]], ignore: Sequence[str] = ()
) -> tuple[Difference, ...]:
    return tuple(differences([part(result) for result in a], [part(result) for result in b], ignore))


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _distinct(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
