"""The settings of a search: grids, draws, and both as text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlp_accel import SettingError
from mlp_accel.training.recipes import Recipe
from mlp_accel.tune import Range, grid, sample
from mlp_accel.tune.space import parse_grid, parse_range, recipes_of


def test_a_grid_has_every_combination_once() -> None:
    found = grid(learning_rate=[0.1, 0.3], hidden=[32, (64, 32)])
    assert found == [
        {"learning_rate": 0.1, "hidden": 32},
        {"learning_rate": 0.1, "hidden": (64, 32)},
        {"learning_rate": 0.3, "hidden": 32},
        {"learning_rate": 0.3, "hidden": (64, 32)},
    ]


def test_recipes_say_all_settings_and_each_is_there_once() -> None:
    found = recipes_of([{"hidden": 32}, {"hidden": (32,)}, {"learning_rate": 0.5}, {"optimizer": "adam"}], Recipe())
    assert [(recipe.hidden, recipe.learning_rate, recipe.optimizer) for recipe in found] == [
        ((32,), 0.5, "sgd"),
        ((32,), 0.001, "adam"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0.1}, "unknown setting 'rate'; choose one of hidden, activation"),
        ({"seed": 1}, "unknown setting 'seed'"),
        ({"hidden": 0}, "hidden must be one or more numbers of units"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"activation": "tan"}, "unknown activation 'tan'"),
        ({"optimizer": "sgd", "momentum": 0.5}, "'sgd' has no setting momentum"),
        ({"learning_rate": -1.0}, "the learning rate must be a positive number; got -1.0"),
        ({"epochs": "5"}, "a setting has a value of the wrong kind"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        recipes_of([{"hidden": 8}, settings], Recipe())


def test_an_empty_space_is_an_error() -> None:
    with pytest.raises(SettingError, match="the space is empty"):
        recipes_of([], Recipe())


@given(low=st.floats(1e-6, 1e3), factor=st.floats(1.0, 1e4), log=st.booleans(), seed=st.integers(0, 99))
def test_numbers_of_a_range_lie_in_it(low: float, factor: float, log: bool, seed: int) -> None:
    value = Range(low, low * factor, log).rvs(random_state=np.random.default_rng(seed))
    assert low <= value <= low * factor


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_reach_both_ends(log: bool) -> None:
    generator = np.random.default_rng(0)
    found = {Range(2, 5, log, whole=True).rvs(random_state=generator) for _ in range(200)}
    assert found == {2, 3, 4, 5}


def test_a_logarithmic_range_has_as_many_numbers_in_each_decade() -> None:
    generator = np.random.default_rng(0)
    drawn = [Range(0.01, 1, log=True).rvs(random_state=generator) for _ in range(2000)]
    assert sum(value < 0.1 for value in drawn) == pytest.approx(1000, abs=100)


def test_a_sample_is_the_same_for_the_same_seed_and_takes_distributions_of_scipy() -> None:
    ranges: dict[str, Any] = {
        "learning_rate": stats.loguniform(0.01, 1),
        "hidden": stats.randint(16, 64),
        "activation": ["relu", "tanh"],
    }
    one, same, other = (sample(20, seed, **ranges) for seed in (0, 0, 1))
    assert one == same != other
    assert all(float(f"{settings['learning_rate']:.4g}") == settings["learning_rate"] for settings in one)
    assert len(recipes_of(one, Recipe())) == 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rate=0.1,3", ("learning_rate", [0.1, 3.0])),
        ("hidden=32,64-16", ("hidden", [(32,), (64, 16)])),
        ("batch-size=32", ("batch_size", [32])),
        ("activation=tanh,relu", ("activation", ["tanh", "relu"])),
        ("random_bias=true", ("random_bias", [True])),
    ],
)
def test_a_grid_is_read_from_text(text: str, expected: Any) -> None:
    assert parse_grid(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("momentum=0:0.9", Range(0, 0.9)),
        ("learning_rate=log:0.01:1", Range(0.01, 1, log=True)),
        ("hidden=int:16:256", Range(16, 256, whole=True)),
        ("hidden=logint:16:256", Range(16, 256, log=True, whole=True)),
    ],
)
def test_a_range_is_read_from_text(text: str, expected: Range) -> None:
    assert parse_range(text) == (text.partition("=")[0], expected)


@pytest.mark.parametrize("text", ["hidden", "hidden=", "hidden=a", "epochs=1.5", "size=3", "random_bias=1"])
def test_text_that_is_no_grid_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="--grid"):
        parse_grid(text)


@pytest.mark.parametrize("text", ["momentum=1", "momentum=a:b", "momentum=2:1", "learning_rate=log:0:1", "x=0:1", "hidden=int:1"])
def test_text_that_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="--range"):
        parse_range(text)
