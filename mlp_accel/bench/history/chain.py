"""Commits measured again, each against the one before: what each of them costs, and all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlp_accel.bench.history.git import Commit
from mlp_accel.bench.history.pairs import Bench, Estimate, NotMeasuredError, estimate

UNCHANGED = "does not touch the package"


@dataclass(frozen=True)
class Step:
    """A commit beside the last one before it that was measured.

    Attributes
    ----------
    change : Estimate or None
        None where nothing was measured, and `reason` says why.
    total : Estimate
        From the first commit to this one.
    log_ratios : tuple of float
        Of each launch.
    """

    commit: Commit
    change: Estimate | None
    total: Estimate
    reason: str | None = None
    log_ratios: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        return {
            "commit": self.commit.hash,
            "subject": self.commit.subject,
            "reason": self.reason,
            "change": self.change.to_dict() if self.change else None,
            "total": self.total.to_dict(),
            "log_ratios": list(self.log_ratios),
        }


@dataclass(frozen=True)
class Chain:
    """What was found along some commits.

    Attributes
    ----------
    first : Commit
    steps : tuple of Step
        Of each commit after the first.
    direct : Estimate or None
        The last commit measured against the first, beside the sum: they say the same if the sum is right.
    """

    first: Commit
    steps: tuple[Step, ...]
    direct: Estimate | None

    @property
    def total(self) -> Estimate:
        """From the first commit to the last."""
        return self.steps[-1].total if self.steps else Estimate(0.0, (0.0, 0.0))

    def creep(self, threshold: float) -> bool:
        """Whether the commits are slower together by more than `threshold`, and none of them is alone."""
        alone = [step.change.change for step in self.steps if step.change]
        return self.total.interval[0] > threshold and max(alone, default=0.0) <= threshold

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        return {
            "first": self.first.hash,
            "steps": [step.to_dict() for step in self.steps],
            "total": self.total.to_dict(),
            "direct": self.direct.to_dict() if self.direct else None,
        }


def measure_chain(bench: Bench, commits: Sequence[Commit]) -> Chain:
    """Measure each of the commits against the last one before it that can be measured; they are in order, oldest first.

    Raises
    ------
    NotMeasuredError
        If the first cannot be built.
    """
    first, *others = commits
    bench.builds.of(first)
    last, measured, steps = first, [], []
    for number, commit in enumerate(others, start=1):
        change, reason, log_ratios = None, None, []
        if commit.package == last.package:
            reason = UNCHANGED
        else:
            try:
                log_ratios = bench.pair(last, commit)
                change = estimate(log_ratios)
                measured.append(log_ratios)
                last = commit
            except NotMeasuredError as error:
                reason = f"not measured: {error}"
        steps.append(Step(commit, change, estimate(*measured), reason, tuple(log_ratios)))
        said = f"{change.text}, together {steps[-1].total.text}" if change else reason
        bench.listen(f"{number}/{len(others)} {commit.label}: {said}")
    direct = estimate(bench.pair(first, last)) if len(measured) > 1 else None
    return Chain(first, tuple(steps), direct)
