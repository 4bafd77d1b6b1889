"""Telling a slowdown from noise: the statistics of paired launches, pure functions of times.

A launch times two builds in turns, so what the machine does to one it does to the other, and gives one number: the median over its
rounds of ``log(seconds of the one / seconds of the other)``. Where the builds are equal they can be exchanged, whatever the noise:
the number is symmetric about 0. Wilcoxon's signed-rank test over the launches then has its stated level exactly (F. Wilcoxon,
"Individual comparisons by ranking methods", Biometrics Bulletin 1, 1945).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

ALPHA = 0.01
"""A slowdown is believed if launches as one-sided as these come by chance less often than this."""

MIN_LAUNCHES = math.ceil(math.log2(1 / ALPHA))
"""The smallest p of n launches is 2 ** -n."""

LOOKS = (4, 7)
"""After so many launches a series ends if it is clear already: the usual gate, with nothing wrong, takes four."""

MIN_ROUNDS = 6
"""Fewer values have no 95 % interval for their median."""

POWER = 0.8
"""How surely a slowdown must be found to be called detectable."""

NO_SLOWDOWN, SLOWER, INCONCLUSIVE = "no slowdown found", "slower", "inconclusive"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What one series of launches says.

    Attributes
    ----------
    verdict : str
        `NO_SLOWDOWN`, `SLOWER` or `INCONCLUSIVE`.
    reason : str
        Why.
    p : float
        One-sided p of the change.
    change, control : float
        Median over the launches: 0.03 is 3 % slower.
    change_interval, control_interval : (float, float)
        Of that median, 95 %.
    detectable : float
        The smallest slowdown that a gate with launches like these finds with the probability `POWER`; infinite if there is none.
    """

    verdict: str
    reason: str
    p: float
    change: float
    change_interval: tuple[float, float]
    control: float
    control_interval: tuple[float, float]
    detectable: float

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        return {**vars(self), "detectable": self.detectable if math.isfinite(self.detectable) else None}


def log_ratios(seconds: Sequence[float], base_seconds: Sequence[float]) -> Floats:
    """``log(seconds / base_seconds)`` of each round."""
    return np.log(np.asarray(seconds, np.float64) / np.asarray(base_seconds, np.float64))


def median_interval(values: Sequence[float] | Floats) -> tuple[float, float]:
    """A 95 % interval for the median, from order statistics: nothing is assumed of the distribution.

    Of fewer than 6 values it is their whole range, which holds the median less often: of 4 values in 7 cases of 8.
    """
    if len(values) < MIN_ROUNDS:
        return float(min(values)), float(max(values))
    interval = stats.quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


def judge(
    change: Sequence[float] | Floats, control: Sequence[float] | Floats, threshold: float, launches: int | None = None
) -> Verdict:
    """Decide about one series of launches.

    Parameters
    ----------
    change, control : sequence of float (n_launches,)
        Median log-ratio of each launch: of the head, and of the base measured a second time, to the base.
    threshold : float
        Slowdowns up to this one do not matter: 0.03 is 3 %.
    launches : int, optional
        Of a series that does not end early; by default as many as were given.

    Returns
    -------
    Verdict
        Slower: p below `ALPHA` and a median above the threshold. Inconclusive: the control, which is identical code, has a median
        beyond the threshold, this way or that.
    """
    change, control = np.asarray(change, np.float64), np.asarray(control, np.float64)
    p = float(p_slower(change))
    moved, slowdown = float(np.expm1(np.median(control))), float(np.expm1(np.median(change)))
    verdict = str(decide(change, control, threshold))
    if verdict == INCONCLUSIVE:
        reason = f"the control, the base against itself, moved by {moved:+.1%}"
    elif verdict == SLOWER:
        reason = f"slower by {slowdown:.1%} (p = {p:.2g})"
    elif slowdown > threshold:
        reason = f"{slowdown:+.1%} is within the noise of the launches (p = {p:.2g}, not below {ALPHA})"
    else:
        reason = f"{slowdown:+.1%} is not above the threshold of {threshold:.1%}"
    return Verdict(
        verdict,
        reason,
        p,
        slowdown,
        _as_change(median_interval(change)),
        moved,
        _as_change(median_interval(control)),
        detectable_slowdown(change, threshold, launches),
    )


def clear(change: Floats, control: Floats, threshold: float) -> npt.NDArray[np.str_]:
    """The verdict of series ``(..., n_launches)`` that need not go on; empty where one must.

    Every launch is at or below the threshold, or they are slower as at the end; and the control has not moved. A build that is
    slower must be found so in a second series as well, so a look more makes no false alarms to speak of; and one that is slower by
    5 % lies below 3 % in every launch about once in a thousand series. `benchmarks/gate_study.py` shows the rates of both.
    """
    below = change.max(axis=-1) <= math.log1p(threshold)
    early = np.where(below, NO_SLOWDOWN, np.where(is_slower(change, threshold), SLOWER, ""))
    return np.where(np.abs(np.median(control, axis=-1)) > math.log1p(threshold), "", early)


def decide_in_turn(change: Floats, control: Floats, threshold: float) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int_]]:
    """The verdicts of whole series ``(..., n_launches)``, each ended at the first of `LOOKS` that is clear, and their launches."""
    verdict, launches = decide(change, control, threshold), np.full(change.shape[:-1], change.shape[-1])
    for look in sorted(LOOKS, reverse=True):
        early = clear(change[..., :look], control[..., :look], threshold)
        verdict, launches = np.where(early == "", verdict, early), np.where(early == "", launches, look)
    return verdict, launches


def decide(change: Floats, control: Floats, threshold: float) -> npt.NDArray[np.str_]:
    """The verdict of `judge` for many series at once: one for each row of ``(..., n_launches)``."""
    verdict = np.where(is_slower(change, threshold), SLOWER, NO_SLOWDOWN)
    return np.where(np.abs(np.median(control, axis=-1)) > math.log1p(threshold), INCONCLUSIVE, verdict)


def is_slower(change: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """Whether launches ``(..., n_launches)`` are slower: too one-sided for chance, and by more than `threshold`."""
    slower: npt.NDArray[np.bool_] = (p_slower(change) < ALPHA) & (np.median(change, axis=-1) > math.log1p(threshold))
    return slower


def p_slower(change: Floats) -> Any:
    """One-sided p of Wilcoxon's signed-rank test for launches ``(..., n_launches)``."""
    return stats.wilcoxon(change, alternative="greater", method="exact", axis=-1).pvalue


def combine(first: str, second: str) -> str:
    """The verdict of a suspicious series and of the one that repeats it: slower only if both say so."""
    if first == second:
        return first
    return NO_SLOWDOWN if (first, second) == (INCONCLUSIVE, NO_SLOWDOWN) else INCONCLUSIVE


def detectable_slowdown(
    change: Floats, threshold: float, launches: int | None = None, resamples: int = 400, seed: int = 0
) -> float:
    """The smallest slowdown that a gate with launches like these would find with the probability `POWER`.

    The launches, moved to a median of 0, are drawn again with replacement, slowed down by the same factor, and judged. A slowdown
    must be found twice, so each series has to find it with the probability √`POWER`.
    """
    rng = np.random.default_rng(seed)
    n = len(change)
    centred = (change - np.median(change)) * math.sqrt(n / (n - 1))  # a sample varies less about its own centre
    noise = rng.choice(centred, (resamples, launches or n))

    def power(slowdown: float) -> float:
        series = noise + math.log1p(slowdown)
        return float(is_slower(series, threshold).mean())

    low, high = threshold, 10.0
    if power(high) < math.sqrt(POWER):
        return math.inf
    while high - low > 5e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= math.sqrt(POWER) else (middle, high)
    return high


def _as_change(interval: tuple[float, float]) -> tuple[float, float]:
    return math.expm1(interval[0]), math.expm1(interval[1])
