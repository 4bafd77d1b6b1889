"""What runs of two sides say: the intervals hold the truth, and chance alone is called a difference as rarely as stated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlp_accel.bench.evidence import ALPHA, Floats, adjusted_p, interval, least_p, ratio_interval


def sides(rng: np.random.Generator, n_engines: int, n: int = 5, shift: float = 0.0, shared: float = 0.7) -> tuple[Floats, Floats]:
    """Runs of engines that depend on each other, with tails that are heavier than the normal distribution's."""
    noise = shared * rng.standard_t(3, (1, 2 * n)) + (1 - shared) * rng.standard_t(3, (n_engines, 2 * n))
    return noise[:, :n], noise[:, n:] + shift


@pytest.mark.parametrize("n_engines", [1, 6])
def test_chance_alone_is_called_a_difference_as_rarely_as_stated(n_engines: int) -> None:
    rng = np.random.default_rng(0)
    accused = sum(bool((adjusted_p(*sides(rng, n_engines)) < ALPHA).any()) for _ in range(600))
    assert accused <= stats.binom.ppf(0.999, 600, ALPHA)


def test_a_difference_of_five_spreads_is_found_among_others_that_are_none() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(50):
        a, b = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
        b[2] += 5
        p = adjusted_p(a, b)
        found += p[2] < ALPHA
        assert p[2] == p.min()
    assert found >= 45


def test_one_engine_has_the_p_of_the_permutation_test() -> None:
    rng = np.random.default_rng(1)
    for n_a, n_b in ((5, 5), (3, 7)):
        a, b = rng.normal(size=(1, n_a)), rng.normal(size=(1, n_b)) + 1
        expected = stats.permutation_test(
            (b[0], a[0]), lambda x, y: np.mean(x) - np.mean(y), alternative="greater", n_resamples=math.inf
        )
        assert adjusted_p(a, b)[0] == pytest.approx(expected.pvalue)


def test_the_p_of_several_engines_is_never_below_that_of_one_alone() -> None:
    rng = np.random.default_rng(2)
    a, b = sides(rng, 4, shift=1.0)
    alone = [adjusted_p(a[[i]], b[[i]])[0] for i in range(4)]
    assert np.all(adjusted_p(a, b) >= np.array(alone) - 1e-12)
    assert adjusted_p(a, b) == pytest.approx(adjusted_p(a[::-1], b[::-1])[::-1])


def test_runs_that_do_not_differ_at_all_are_no_difference() -> None:
    same = np.ones((2, 5))
    assert list(adjusted_p(same, same)) == [1, 1]
    assert interval(same[0], same[0]) == (0, 0)
    assert least_p(5, 5) == 1 / 252


def test_many_files_are_split_at_random_and_say_the_same() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(1, 12)), rng.normal(size=(1, 12)) + 0.6
    expected = stats.ttest_ind(b[0], a[0], alternative="greater").pvalue
    assert adjusted_p(a, b)[0] == pytest.approx(expected, abs=0.02)
    assert adjusted_p(a, b)[0] == adjusted_p(a, b)[0]


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_interval_is_welchs(n_a: int, n_b: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n_a), rng.normal(1, 2, n_b)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert interval(a, b) == pytest.approx((expected.low, expected.high))


@given(st.lists(st.floats(0.1, 10), min_size=5, max_size=20), st.lists(st.floats(0.1, 10), min_size=5, max_size=20))
@settings(max_examples=20, deadline=None)
def test_the_interval_within_a_run_holds_the_ratio(a: list[float], b: list[float]) -> None:
    low, high = ratio_interval(a, b)
    assert low <= np.median(b) / np.median(a) * (1 + 1e-12)
    assert high >= np.median(b) / np.median(a) * (1 - 1e-12)
    assert (low, high) == ratio_interval(a, b)  # seeded


def test_the_interval_within_a_run_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = (rng.lognormal(np.log([[1.0], [1.2]]), 0.1, (2, 15)) for _ in range(150))
    intervals = [ratio_interval(list(a), list(b)) for a, b in samples]
    covered = np.mean([low <= 1.2 <= high for low, high in intervals])
    assert 0.88 <= covered <= 1
