"""Where the level of a series changes: E-divisive.

D. S. Matteson and N. A. James, "A nonparametric approach for multiple change point analysis of multivariate data", JASA 109, 2014;
for times of benchmarks D. Daly and others, "The use of change point detection to identify software performance regressions in a
continuous integration system", ICPE 2020. Nothing is assumed of the distribution, and a change must be too large for chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ALPHA = 0.01
"""A change is believed if the order of the values makes one as large less often than this where there is none."""

PERMUTATIONS, SEED = 499, 0
LEAST = 3
"""Fewer values are no level."""

Floats = npt.NDArray[np.float64]


def change_points(values: Sequence[float] | Floats) -> list[int]:
    """The indices at which a new level begins, in ascending order.

    The series is split where the two sides differ most, by the energy distance, as long as that is more than all but `ALPHA` of
    the orders of the same values show within the segments found so far.
    """
    distances = np.abs(np.subtract.outer(np.asarray(values, np.float64), np.asarray(values, np.float64)))
    rng = np.random.default_rng(SEED)
    found: list[int] = []
    while True:
        ends = [0, *sorted(found), len(distances)]
        segments = [np.arange(first, last) for first, last in itertools.pairwise(ends)]
        splits = [_best_split(distances[np.ix_(segment, segment)]) for segment in segments]
        best = max(range(len(segments)), key=lambda number: splits[number][0])
        size, position = splits[best]
        if position == 0:
            return sorted(found)
        larger = sum(_largest(distances, [rng.permutation(segment) for segment in segments]) >= size for _ in range(PERMUTATIONS))
        if (1 + larger) / (1 + PERMUTATIONS) >= ALPHA:
            return sorted(found)
        found.append(ends[best] + position)


def _largest(distances: Floats, segments: Sequence[npt.NDArray[np.int64]]) -> float:
    return max(_best_split(distances[np.ix_(segment, segment)])[0] for segment in segments)


def _best_split(distances: Floats) -> tuple[float, int]:
    """How much the two sides of the best split differ, and where it is; (0, 0) where there are too few values to split."""
    n = len(distances)
    if n < 2 * LEAST:
        return 0.0, 0
    sums = distances.cumsum(axis=0).cumsum(axis=1)
    left = np.arange(LEAST, n - LEAST + 1)
    right = n - left
    within_left = sums[left - 1, left - 1]
    across = sums[left - 1, n - 1] - within_left
    within_right = sums[-1, -1] - within_left - 2 * across
    pairs_left, pairs_right = np.maximum(left * (left - 1), 1), np.maximum(right * (right - 1), 1)
    energy = 2 * across / (left * right) - within_left / pairs_left - within_right / pairs_right
    statistic = left * right / n * energy
    best = int(np.argmax(statistic))
    return float(statistic[best]), int(left[best])
