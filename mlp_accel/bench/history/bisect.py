"""Which commit made it slow: of the commits between a fast and a slow one half are left after each measurement."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlp_accel.bench.gate.paired import ALPHA
from mlp_accel.bench.history.git import Commit
from mlp_accel.bench.history.pairs import Bench, Estimate, NotMeasuredError, estimate, is_slower

LEVEL = 0.99
"""Of the interval that must lie on one side of half the slowdown before a commit is called fast or slow."""


@dataclass(frozen=True)
class Found:
    """What a bisection has found.

    Attributes
    ----------
    whole : Estimate
        The slow commit beside the fast one.
    candidates : tuple of Commit
        The first slow commit; several, of which it is one, where those before it cannot be measured; none if nothing is slower.
    change : Estimate or None
        The last of them beside the last fast commit.
    left_out : dict
        Labels of the commits that cannot be measured, and why.
    """

    whole: Estimate
    candidates: tuple[Commit, ...]
    change: Estimate | None
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        return {
            "whole": self.whole.to_dict(),
            "candidates": [{"commit": commit.hash, "subject": commit.subject} for commit in self.candidates],
            "change": self.change.to_dict() if self.change else None,
            "left_out": self.left_out,
        }


def candidates(commits: Sequence[Commit]) -> list[Commit]:
    """The first commit, and of those after it the ones that touch the package: no other can have made it slower."""
    found = [commits[0]]
    for before, commit in itertools.pairwise(commits):
        if commit.package != before.package:
            found.append(commit)
    return found


def bisect(bench: Bench, commits: Sequence[Commit], threshold: float) -> Found:
    """Find the first of the commits, in order and oldest first, that has more than half of the slowdown from the first to the last.

    Parameters
    ----------
    threshold : float
        A slowdown up to this one is none: 0.03 is 3 %.

    Raises
    ------
    NotMeasuredError
        If the first or the last cannot be measured.
    """
    commits = candidates(commits)
    if len(commits) == 1:
        return Found(Estimate(0.0, (0.0, 0.0)), (), None, {})
    log_ratios = bench.pair(commits[0], commits[-1])
    if not is_slower(log_ratios, threshold, ALPHA) and estimate(log_ratios).interval[1] > threshold:
        log_ratios += bench.pair(commits[0], commits[-1])  # it may be slower
    whole = estimate(log_ratios)
    bench.listen(f"{commits[-1].label}, the last of {len(commits) - 1}: {whole.text}")
    if not is_slower(log_ratios, threshold, ALPHA):
        return Found(whole, (), None, {})
    fast, slow, left_out = 0, len(commits) - 1, dict[int, str]()
    while between := [number for number in range(fast + 1, slow) if number not in left_out]:
        middle = min(between, key=lambda number: abs(number - (fast + slow) / 2))
        try:
            found = _is_slow(bench, commits[0], commits[middle], whole.change / 2)
        except NotMeasuredError as error:
            left_out[middle] = str(error)
            bench.listen(f"{commits[middle].label} is left out: {error}")
            continue
        fast, slow = (fast, middle) if found else (middle, slow)
    change = estimate(bench.pair(commits[fast], commits[slow]))
    reasons = {commits[number].label: reason for number, reason in left_out.items()}
    return Found(whole, tuple(commits[fast + 1 : slow + 1]), change, reasons)


def _is_slow(bench: Bench, base: Commit, commit: Commit, half: float) -> bool:
    """Whether a commit has more than half of the slowdown; measured once more if that is not clear at once."""
    log_ratios: list[float] = []
    for _ in range(2):
        log_ratios += bench.pair(base, commit)
        found = estimate(log_ratios, level=LEVEL)
        if not found.interval[0] <= half <= found.interval[1]:
            bench.listen(f"{commit.label}: {found.text}: {'slow' if found.change > half else 'fast'}")
            return found.change > half
    raise NotMeasuredError(f"its change of {found.text} is on neither side of half the slowdown, {half:+.1%}")
