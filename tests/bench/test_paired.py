"""The statistics of the gate on synthetic launches: it seldom cries wolf, and finds what it says it finds."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_accel.bench.gate.paired import (
    ALPHA,
    INCONCLUSIVE,
    MIN_LAUNCHES,
    NO_SLOWDOWN,
    POWER,
    SLOWER,
    combine,
    decide,
    decide_in_turn,
    detectable_slowdown,
    is_slower,
    judge,
    log_ratios,
    median_interval,
    p_slower,
)

THRESHOLD = 0.03

launches = st.lists(st.floats(-0.5, 0.5).map(lambda value: round(value, 4)), min_size=MIN_LAUNCHES, max_size=12)


def exact_p(values: npt.NDArray[np.float64]) -> float:
    """Of all ways to give signs to the ranks, the share with a sum of positive ranks at least as large: the definition."""
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    observed = ranks[values > 0].sum()
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(values))]
    return float(np.mean(np.array(sums) >= observed))


@given(st.sets(st.integers(1, 1000), min_size=MIN_LAUNCHES, max_size=9), st.integers(0, 2**9 - 1))
@settings(max_examples=25, deadline=None)
def test_p_is_that_of_the_signed_ranks(sizes: set[int], signs: int) -> None:
    values = np.array([size if signs >> i & 1 else -size for i, size in enumerate(sizes)], np.float64)
    assert p_slower(values) == pytest.approx(exact_p(values))


def test_no_smaller_number_of_launches_could_ever_be_slower() -> None:
    assert p_slower(np.arange(1.0, MIN_LAUNCHES + 1)) < ALPHA
    assert p_slower(np.arange(1.0, MIN_LAUNCHES)) >= ALPHA


@given(launches, st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_a_larger_slowdown_never_makes_the_verdict_milder(values: list[float], shift: float) -> None:
    change = np.array(values)
    if is_slower(change, THRESHOLD):
        assert is_slower(change + shift, THRESHOLD)


@given(launches)
@settings(max_examples=50, deadline=None)
def test_builds_that_change_places_are_never_both_slower(values: list[float]) -> None:
    change = np.array(values)
    assert not (is_slower(change, THRESHOLD) and is_slower(-change, THRESHOLD))


def noisy_epochs(rng: np.random.Generator, gates: int, n: int, slowdown: float) -> npt.NDArray[np.float64]:
    """Median log-ratios (gates, n) of epochs under drift, bursts of a neighbour and processes that are lucky or not."""
    rounds = 20
    drift = np.cumsum(rng.normal(0, 0.05, (gates, n, rounds, 1)), axis=2)
    bursts = rng.exponential(0.4, (gates, n, rounds, 2)) * (rng.random((gates, n, rounds, 2)) < 0.3)
    luck = rng.normal(0, 0.01, (gates, n, 1, 2))
    logs = drift + bursts + luck + rng.normal(0, 0.02, (gates, n, rounds, 2))
    return np.median(logs[..., 1] + math.log1p(slowdown) - logs[..., 0], axis=2)


def test_identical_builds_are_seldom_called_slower() -> None:
    rng = np.random.default_rng(0)
    noise = noisy_epochs(rng, 4000, 10, 0)
    assert np.mean(p_slower(noise) < ALPHA) <= ALPHA + 3 * math.sqrt(ALPHA / len(noise))  # the level holds without the threshold
    assert np.mean(is_slower(noise, THRESHOLD)) <= 0.001


@pytest.mark.parametrize("draw", ["normal", "standard_cauchy", "laplace", "uniform"])
def test_the_level_holds_whatever_the_noise(draw: str) -> None:
    rng = np.random.default_rng(1)
    one, other = (getattr(rng, draw)(size=(20_000, 10)) for _ in range(2))
    assert np.mean(p_slower(one - other) < ALPHA) <= ALPHA + 3 * math.sqrt(ALPHA / 20_000)


def test_a_slowdown_of_five_per_cent_is_found() -> None:
    rng = np.random.default_rng(2)
    assert np.mean(is_slower(noisy_epochs(rng, 1000, 10, 0.05), THRESHOLD)) >= 0.95


def test_what_is_called_detectable_is_found_about_that_often() -> None:
    rng = np.random.default_rng(3)
    found = []
    for sd in (0.005, 0.02, 0.06):
        for _ in range(8):  # each estimates the noise from ten launches only
            detectable = detectable_slowdown(rng.normal(0.01, sd, 10), THRESHOLD)
            runs = rng.normal(math.log1p(detectable), sd, (2000, 10))
            found.append(np.mean(is_slower(runs, THRESHOLD)) ** 2)
    assert POWER - 0.1 <= np.median(found) <= POWER + 0.15


def test_more_noise_hides_more() -> None:
    quiet, loud = (detectable_slowdown(scale * np.linspace(-1, 1, 10) ** 3, THRESHOLD) for scale in (0.01, 0.1))
    assert THRESHOLD < quiet < loud
    assert detectable_slowdown(np.linspace(-50, 50, 10), THRESHOLD) == math.inf


def test_the_verdicts() -> None:
    still, wobble = np.linspace(-0.004, 0.005, 10), np.linspace(-0.1, 0.2, 10)
    assert judge(still, still, THRESHOLD).verdict == NO_SLOWDOWN
    assert judge(still + 0.05, still, THRESHOLD).verdict == SLOWER
    assert judge(still + 0.02, still, THRESHOLD).verdict == NO_SLOWDOWN  # sure, but too small to matter
    within_noise = judge(wobble, still, THRESHOLD)
    assert within_noise.verdict == NO_SLOWDOWN
    assert "within the noise" in within_noise.reason
    for moved in (still + 0.05, still - 0.05):
        assert judge(still + 0.05, moved, THRESHOLD).verdict == INCONCLUSIVE
    assert decide(np.array([still, still + 0.05]), np.array([still, still]), THRESHOLD).tolist() == [NO_SLOWDOWN, SLOWER]


def test_a_verdict_can_be_written_as_json() -> None:
    verdict = judge(np.linspace(-50, 50, 10), np.zeros(10), THRESHOLD).to_dict()
    assert json.loads(json.dumps(verdict, allow_nan=False))["detectable"] is None


def test_slower_is_what_both_runs_call_slower() -> None:
    assert combine(SLOWER, SLOWER) == SLOWER
    assert combine(SLOWER, NO_SLOWDOWN) == INCONCLUSIVE
    assert combine(INCONCLUSIVE, NO_SLOWDOWN) == NO_SLOWDOWN
    assert combine(INCONCLUSIVE, SLOWER) == INCONCLUSIVE
    assert combine(SLOWER, INCONCLUSIVE) == INCONCLUSIVE


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    intervals = np.array([median_interval(rng.exponential(size=20)) for _ in range(1000)])
    assert np.mean((intervals[:, 0] <= math.log(2)) & (math.log(2) <= intervals[:, 1])) >= 0.94


def test_the_log_ratio_of_a_slower_build_is_positive() -> None:
    assert log_ratios([2.0, 1.0], [1.0, 1.0]) == pytest.approx([math.log(2), 0])


def test_a_series_ends_early_only_where_it_is_clear() -> None:
    still = np.zeros(10)

    def in_turn(change: npt.NDArray[np.float64], control: npt.NDArray[np.float64]) -> tuple[str, int]:
        verdict, launches = decide_in_turn(change, control, THRESHOLD)
        return str(verdict), int(launches)

    assert in_turn(still, still) == (NO_SLOWDOWN, 4)
    assert in_turn(still + 0.05, still) == (SLOWER, 7), "four launches never have a p below 0.01"
    one_above = still + 0.01
    one_above[2] = 0.04
    assert in_turn(one_above, still) == (NO_SLOWDOWN, 10)
    assert in_turn(still, still + 0.05) == (INCONCLUSIVE, 10)
    verdicts, launches = decide_in_turn(np.stack([still, still + 0.05]), np.zeros((2, 10)), THRESHOLD)
    assert (verdicts.tolist(), launches.tolist()) == ([NO_SLOWDOWN, SLOWER], [4, 7])


def test_few_launches_have_their_whole_range_for_an_interval() -> None:
    assert median_interval([0.3, 0.1, 0.2, 0.4]) == (0.1, 0.4)
    verdict = judge(np.array([0.0, 0.01, -0.01, 0.0]), np.zeros(4), THRESHOLD, 10)
    assert verdict.change_interval == pytest.approx((np.expm1(-0.01), np.expm1(0.01)))
    assert THRESHOLD < verdict.detectable < 0.1, "of ten launches like these"


@pytest.mark.parametrize("sd", [0.005, 0.02])
def test_looking_early_makes_no_false_alarms_and_overlooks_little(sd: float) -> None:
    """Invented launches, without a second series."""
    noise = np.random.default_rng(0).normal(0, sd, (2, 4000, 10))
    verdicts, launches = decide_in_turn(noise[0], noise[1], THRESHOLD)
    assert np.mean(verdicts == SLOWER) <= 0.002
    assert np.median(launches) == 4
    whole, early = decide(noise[0] + 0.05, noise[1], THRESHOLD), decide_in_turn(noise[0] + 0.05, noise[1], THRESHOLD)[0]
    assert np.mean(early == SLOWER) >= np.mean(whole == SLOWER) - 0.005
