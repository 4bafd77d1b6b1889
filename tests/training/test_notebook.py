"""The notebook's recipe follows its printed curve, and other recipes do not (the study with 30 seeds is in benchmarks/)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel import get_backend, mini_batch_sgd
from mlp_accel.datasets import load
from mlp_accel.training.notebook import printed_curve
from mlp_accel.training.recipes import RECIPES

EPOCHS, SEEDS = 2, 6


@cache
def deviations(**changes: Any) -> npt.NDArray[np.float64]:
    """Distance of the printed losses and accuracies from the mean over some seeds, in standard deviations."""
    mnist = load("mnist")
    curves = []
    for seed in range(SEEDS):
        recipe = replace(RECIPES["notebook"], epochs=EPOCHS, seed=seed, **changes)
        history = mini_batch_sgd(
            mnist.x_train,
            mnist.y_train,
            recipe.initial_params(784, 10),
            epochs=EPOCHS,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            gradient=recipe.gradient,
            loss_average=recipe.loss_average,
            seed=seed,
            backend=get_backend("numpy", recipe.dtype),
        )
        curves.append([history.loss, history.accuracy])
    printed = np.array([printed_curve()[epoch] for epoch in range(1, EPOCHS + 1)]).T
    ours = np.array(curves)
    distance: npt.NDArray[np.float64] = np.abs(printed - ours.mean(axis=0)) / ours.std(axis=0, ddof=1)
    return distance


def test_the_recipe_follows_the_printed_curve() -> None:
    assert deviations().max() < 4


@pytest.mark.parametrize("changes", [{"learning_rate": 0.02}, {"gradient": "exact"}, {"gradient": "exact", "learning_rate": 1.28}])
def test_another_learning_rate_or_gradient_does_not(changes: dict[str, Any]) -> None:
    assert deviations(**changes).max() > 5


def test_the_printed_curve_is_complete_but_for_epoch_48() -> None:
    assert sorted(printed_curve()) == [epoch for epoch in range(1, 51) if epoch != 48]
    assert printed_curve()[1] == (0.7081, 0.7869)
