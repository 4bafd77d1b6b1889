"""Two results of `mlp-accel bench` side by side: first what differs around them, then the ratios of their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from mlp_accel.bench.config import MIN_EPOCHS
from mlp_accel.bench.record import Record
from mlp_accel.bench.results import SCHEMA, EngineRecord, Result, Run

MACHINE = ("cpu", "cores", "cgroup_cores", "simd_bits", "gpu")
"""Fields of the environment that tell machines apart."""

WORK = ("layer_sizes", "activation", "gradient", "optimizer", "momentum", "weight_decay", "dtype", "batch_size", "data")
"""Settings that say what is computed; the others say how."""

ALWAYS_DIFFERENT = ("date", "load_before")
RESAMPLES, SEED = 9999, 0

Difference = tuple[str, Any, Any]


@dataclass(frozen=True, kw_only=True)
class Ratio(EngineRecord):
    """One engine in both results.

    Attributes
    ----------
    reason : str or None
        Why it has no ratio, or no interval.
    seconds : (float or None, float or None)
        The medians in A and B.
    ratio : float or None
        Of the medians, B / A.
    interval : (float, float) or None
        Of the ratio, 95 %, bootstrap.
    verdict : str or None
        None if it is not ranked.
    """

    reason: str | None = None
    seconds: tuple[float | None, float | None] = (None, None)
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    verdict: str | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Two results side by side: what differs around them, why no verdicts are given (or None), and the ratios."""

    PARTS: ClassVar[Mapping[str, type[Record]]] = {"results": Ratio}

    schema: int = SCHEMA
    environment_differences: tuple[Difference, ...]
    config_differences: tuple[Difference, ...]
    not_ranked: str | None
    bootstrap: Mapping[str, int]
    results: tuple[Ratio, ...]


def compare(a: Result, b: Result) -> Comparison:
    """Compare two results as `read_result` gives them."""
    not_ranked = _not_comparable(a, b)
    runs_a, runs_b = ({(run.name, run.path): run for run in result.results} for result in (a, b))
    keys = dict.fromkeys([*runs_a, *runs_b])
    return Comparison(
        environment_differences=tuple(differences(a.environment, b.environment, ignore=ALWAYS_DIFFERENT)),
        config_differences=tuple(differences(a.config.to_dict(), b.config.to_dict())),
        not_ranked=not_ranked,
        bootstrap={"resamples": RESAMPLES, "seed": SEED},
        results=tuple(_compare_runs(*key, runs_a.get(key), runs_b.get(key), ranked=not not_ranked) for key in keys),
    )


def differences(a: Mapping[str, Any], b: Mapping[str, Any], ignore: Sequence[str] = ()) -> list[Difference]:
    """Fields in which two objects differ, those of nested objects with dotted names; a missing one counts as None."""
    found: list[Difference] = []
    for name in dict.fromkeys([*a, *b]):
        one, other = a.get(name), b.get(name)
        if name in ignore or one == other:
            continue
        if isinstance(one, dict) or isinstance(other, dict):
            inner = differences(one if isinstance(one, dict) else {}, other if isinstance(other, dict) else {})
            found += [(f"{name}.{key}", *values) for key, *values in inner]
        else:
            found.append((name, one, other))
    return found


def ratio_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """95 % interval of ``median(b) / median(a)``: percentile bootstrap (B. Efron, "Bootstrap methods", Ann. Stat. 7, 1979).

    It covers the spread within the two runs; what changed on the machine between them it cannot know.
    """
    rng = np.random.default_rng(SEED)
    medians = [np.median(rng.choice(samples, (RESAMPLES, len(samples))), axis=1) for samples in (np.array(a), np.array(b))]
    low, high = np.percentile(medians[1] / medians[0], [2.5, 97.5])
    return float(low), float(high)


def _not_comparable(a: Result, b: Result) -> str | None:
    """Why the times of two results say nothing about the code."""
    known = [name for name in MACHINE if name in a.environment and name in b.environment]  # an older file says less
    if machine := [name for name in known if a.environment[name] != b.environment[name]]:
        return f"different machines ({', '.join(machine)}): their ratios tell of the machines, not of the code"
    config_a, config_b = a.config.to_dict(), b.config.to_dict()
    if work := [name for name in WORK if config_a.get(name) != config_b.get(name)]:
        return f"different work ({', '.join(work)}): their ratios tell of the work, not of the code"
    return None


def _compare_runs(name: str, path: str | None, a: Run | None, b: Run | None, ranked: bool) -> Ratio:
    timed = {side: run.epoch_seconds for side, run in (("A", a), ("B", b)) if run and run.status == "ok"}
    samples = {side: found.samples for side, found in timed.items() if found}
    medians = {side: float(np.median(found)) for side, found in samples.items()}
    ratio = Ratio(name=name, path=path, seconds=(medians.get("A"), medians.get("B")))
    if len(samples) < 2:
        return replace(ratio, reason=_why_no_ratio({"A": a, "B": b}))
    ratio = replace(ratio, ratio=medians["B"] / medians["A"])
    if min(map(len, samples.values())) < MIN_EPOCHS:
        return replace(ratio, reason=f"fewer than {MIN_EPOCHS} epochs: no interval, no verdict")
    interval = ratio_interval(samples["A"], samples["B"])
    return replace(ratio, interval=interval, verdict=_verdict(interval) if ranked else None)


def _why_no_ratio(sides: Mapping[str, Run | None]) -> str:
    reasons = {
        side: f"{run.status}: {run.reason}" if run else "no row"
        for side, run in sides.items()
        if run is None or run.status != "ok" or not run.epoch_seconds
    }
    if len(reasons) == 2 and reasons["A"] == reasons["B"]:
        return f"in A and B {reasons['A']}"
    return "; ".join(f"in {side} {reason}" for side, reason in reasons.items())


def _verdict(interval: tuple[float, float]) -> str:
    low, high = interval
    return "B is slower" if low > 1 else "B is faster" if high < 1 else "no difference seen"
