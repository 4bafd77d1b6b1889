"""Builds of commits, and how much slower one is than another: the gate's launches with two workers that take turns.

What the machine does to one build it does to the other, and identical builds can be exchanged, so that the mean log-ratio of the
launches has no bias however the machine drifts. Log-ratios add up: of a chain of commits, each measured against the one before, the
sum is the log-ratio of the last to the first.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from mlp_accel.bench.gate import builds
from mlp_accel.bench.gate.launches import BASE, HEAD, LaunchError, run_launch, summarize
from mlp_accel.bench.gate.paired import MIN_LAUNCHES, p_slower
from mlp_accel.bench.history.git import Commit

LAUNCHES, ROUNDS = 10, 60
TRIMMED = 0.2
"""The share of launches that is left out at either end, so that one that was disturbed does not count."""

Listener = Callable[[str], object]


class NotMeasuredError(Exception):
    """A commit cannot be built or does not run; the message says why."""


@dataclass(frozen=True)
class Estimate:
    """A change: 0.05 is 5 % slower; and its interval."""

    change: float
    interval: tuple[float, float]

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.change:+.1%} ({self.interval[0]:+.1%} to {self.interval[1]:+.1%})"

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        return {"change": self.change, "interval": list(self.interval)}


def estimate(*pairs: Sequence[float], level: float = 0.95) -> Estimate:
    """The sum of the mean log-ratios of some pairs, each of several launches, as a change.

    Means are trimmed, and their errors are those of K. K. Yuen, "The two-sample trimmed t for unequal population variances",
    Biometrika 61, 1974; they add up as Welch's do.
    """
    total = sum(float(stats.trim_mean(values, TRIMMED)) for values in pairs)
    errors = [_squared_error(np.asarray(values, np.float64)) for values in pairs]
    squared = sum(error for error, _ in errors)
    half = 0.0
    if squared:
        freedom = squared**2 / sum(error**2 / freedom for error, freedom in errors)
        half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(squared)
    return Estimate(math.expm1(total), (math.expm1(total - half), math.expm1(total + half)))


def is_slower(log_ratios: Sequence[float], threshold: float, alpha: float) -> bool:
    """Whether launches are slower beyond chance, by more than `threshold`."""
    return bool(p_slower(np.asarray(log_ratios, np.float64)) < alpha) and estimate(log_ratios).change > threshold


@dataclass
class Builds:
    """Builds of commits in a folder, each made once, when it is asked for; the caller removes the folder.

    Parameters
    ----------
    root : Path
        The checkout.
    folder : Path
        Where the builds are.
    """

    root: Path
    folder: Path
    _found: dict[str, Path | str] = field(default_factory=dict)

    def of(self, commit: Commit) -> Path:
        """The folder that holds the package as it is in `commit`.

        Raises
        ------
        NotMeasuredError
            If it cannot be built.
        """
        if commit.package not in self._found:
            source, target = (self.folder / f"{commit.hash}{ending}" for ending in ("-source", ""))
            try:
                builds.export_commit(self.root, commit.hash, source)
                builds.install(source, target)
                self._found[commit.package] = target
            except builds.BuildError as error:
                self._found[commit.package] = str(error)
        found = self._found[commit.package]
        if isinstance(found, str):
            raise NotMeasuredError(found)
        return found


@dataclass
class Bench:
    """Measures pairs of commits.

    Parameters
    ----------
    builds : Builds
    config : dict
        As the gate's worker takes it.
    launches, rounds : int
        How often to start the workers of a pair, and epochs of each in a launch.
    listen : callable
        Gets a line for each thing done.
    """

    builds: Builds
    config: dict[str, Any]
    launches: int = LAUNCHES
    rounds: int = ROUNDS
    listen: Listener = str

    def __post_init__(self) -> None:
        self._rng = random.Random(self.config["seed"])

    def pair(self, base: Commit, head: Commit) -> list[float]:
        """The log-ratio of each launch: `head` to `base`.

        Raises
        ------
        NotMeasuredError
            If one of the two cannot be built, fails, or does not compute what the other computes.
        """
        pair = {BASE: self.builds.of(base), HEAD: self.builds.of(head)}
        log_ratios: list[float] = []
        for _ in range(self.launches):
            try:
                launch = run_launch(pair, self.config, self.rounds, self._rng)
            except LaunchError as error:
                raise NotMeasuredError(str(error)) from error
            log_ratios.append(summarize(launch.seconds)[HEAD]["log_ratio"])
        return log_ratios


def _squared_error(values: Any) -> tuple[float, int]:
    """The squared error of a trimmed mean, and its degrees of freedom."""
    kept = len(values) - 2 * int(TRIMMED * len(values))
    if kept < 2:
        raise ValueError(f"{len(values)} launches have no error: at least {MIN_LAUNCHES} are needed")
    return float(stats.mstats.trimmed_stde(values, (TRIMMED, TRIMMED), axis=0)) ** 2, kept - 1
