"""Change points: found where they are, and rarely where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mlp_accel.bench.history.changes import ALPHA, LEAST, change_points


@pytest.mark.parametrize("n", [0, 1, 2, 5, 6])
def test_few_values_have_no_change(n: int) -> None:
    assert change_points(np.arange(float(n))) == []


def test_changes_stand_where_they_were_made() -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat([0.0, 0.1, 0.1, 0.05], 10)
    found = [change_points(levels + rng.normal(0, 0.01, 40)) for _ in range(4)]
    assert all(len(places) == 2 for places in found)
    assert all(abs(places[0] - 10) <= 1 and abs(places[1] - 30) <= 2 for places in found)


def test_without_a_change_one_is_seen_as_rarely_as_stated() -> None:
    rng = np.random.default_rng(1)
    seen = sum(bool(change_points(rng.standard_t(3, 16))) for _ in range(40))
    assert seen <= stats.binom.ppf(0.999, 40, ALPHA)


def test_one_wild_run_is_no_level() -> None:
    values = np.random.default_rng(2).normal(0, 0.01, 30)
    values[12] = 5.0
    assert change_points(values) == []
    assert LEAST > 1


def test_the_statistic_is_the_energy_distance_of_the_two_sides() -> None:
    """As the paper writes it: with all pairs, of this side and that, in plain loops."""
    from mlp_accel.bench.history.changes import _best_split

    values = np.random.default_rng(3).normal(size=9)
    values[5:] += 1

    def energy(a: list[float], b: list[float]) -> float:
        n, m = len(a), len(b)
        across = sum(abs(x - y) for x in a for y in b) * 2 / (n * m)
        within = sum(
            sum(abs(side[i] - side[j]) for i in range(len(side)) for j in range(i)) * 2 / (len(side) * (len(side) - 1))
            for side in (a, b)
        )
        return (across - within) * n * m / (n + m)

    splits = {k: energy(list(values[:k]), list(values[k:])) for k in range(LEAST, 9 - LEAST + 1)}
    best = max(splits, key=lambda k: splits[k])
    size, place = _best_split(np.abs(np.subtract.outer(values, values)))
    assert place == best
    assert size == pytest.approx(splits[best])
