"""What several runs of each of two sides say: an interval for their ratio, and how often chance alone does as much.

Times are logarithms where nothing else is said, so that a difference is a ratio.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

ALPHA = 0.01
"""A difference is believed if chance alone makes one as large less often than this, in any engine."""

MAX_SPLITS, SEED = 20_000, 0
"""With more ways to split the runs into two sides than this, so many are drawn."""

RESAMPLES = 9999

Floats = npt.NDArray[np.float64]


def interval(a: Floats, b: Floats) -> tuple[float, float]:
    """A 95 % interval of ``mean(b) - mean(a)`` for runs ``(n_a,)`` and ``(n_b,)``, two or more each: Welch's.

    B. L. Welch, "The generalization of 'Student's' problem when several different population variances are involved", Biometrika
    34, 1947.
    """
    difference = float(b.mean() - a.mean())
    squared = [side.var(ddof=1) / side.size for side in (a, b)]
    if not sum(squared):
        return difference, difference
    freedom = sum(squared) ** 2 / sum(part**2 / (side.size - 1) for part, side in zip(squared, (a, b), strict=True))
    half = float(stats.t.ppf(0.975, freedom) * math.sqrt(sum(squared)))
    return difference - half, difference + half


def ratio_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """95 % interval of ``median(b) / median(a)``: percentile bootstrap (B. Efron, "Bootstrap methods", Ann. Stat. 7, 1979).

    For times that were measured in turns: what changed on the machine between two runs it cannot know.
    """
    rng = np.random.default_rng(SEED)
    medians = [np.median(rng.choice(samples, (RESAMPLES, len(samples))), axis=1) for samples in (np.array(a), np.array(b))]
    low, high = np.percentile(medians[1] / medians[0], [2.5, 97.5])
    return float(low), float(high)


def least_p(n_a: int, n_b: int) -> float:
    """The smallest p that so many runs a side can have, whatever they measure."""
    return 1 / math.comb(n_a + n_b, n_a)


def adjusted_p(a: Floats, b: Floats) -> Floats:
    """One-sided p of "b is slower than a" for each engine, corrected for the number of engines.

    If the sides do not differ, it does not matter which runs are called a and which b. So the statistic of the sides as they are,
    Student's t, is held against that of every other way to split the runs, and each engine against the largest t of any engine.
    The chance that any engine is wrongly given a p of `ALPHA` or less is then at most `ALPHA`, whatever the distribution of the
    times and however the engines depend on each other (P. H. Westfall and S. S. Young, "Resampling-Based Multiple Testing", 1993,
    step-down maxT). Holm's correction needs more files: with five a side no p is below 1/252.

    Parameters
    ----------
    a, b : array (n_engines, n_a), (n_engines, n_b)
        Of each engine a number for each run; a column is one run.

    Returns
    -------
    array (n_engines,)
    """
    t = _t_of_splits(np.concatenate([a, b], axis=1), a.shape[1])
    order = np.argsort(-t[0])
    largest = np.maximum.accumulate(t[:, order[::-1]], axis=1)[:, ::-1]  # of this engine and those that differ less
    seen = t[0, order]
    p = np.mean(largest >= seen - 1e-9 * np.abs(seen), axis=0)
    adjusted: Floats = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p)
    return adjusted


def _t_of_splits(runs: Floats, n_a: int) -> Floats:
    """Student's t for ways to call `n_a` of the runs ``(n_engines, n)`` a and the others b, the given way first."""
    n = runs.shape[1]
    if math.comb(n, n_a) <= MAX_SPLITS:
        chosen = np.array(list(itertools.combinations(range(n), n_a)))  # begins with the first n_a
    else:
        rng = np.random.default_rng(SEED)
        drawn = rng.permuted(np.tile(np.arange(n), (MAX_SPLITS - 1, 1)), axis=1)[:, :n_a]
        chosen = np.concatenate([np.arange(n_a)[None], drawn])
    in_a = np.zeros((len(chosen), n))
    np.put_along_axis(in_a, chosen, 1.0, axis=1)
    centred = runs - runs.mean(axis=1, keepdims=True)
    mean_a = in_a @ centred.T / n_a
    mean_b = -mean_a * n_a / (n - n_a)
    within = np.sum(centred**2, axis=1) - n_a * mean_a**2 - (n - n_a) * mean_b**2
    error = np.sqrt(np.maximum(within, 0.0) / (n - 2) * (1 / n_a + 1 / (n - n_a)))
    t: Floats = (mean_b - mean_a) / (error + 1e-12)
    return t
