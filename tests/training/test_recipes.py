"""The recipe for speed is what its study chose, and it reaches what it is for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlp_accel import evaluate, get_backend, mini_batch_sgd
from mlp_accel.datasets import Dataset
from mlp_accel.training.recipes import FAST, RECIPES, fast_recipe

STUDY = Path(__file__).parents[2] / "benchmarks" / "results" / "recipe_study.json"


def test_the_fast_recipes_are_those_that_the_study_chose() -> None:
    chosen = json.loads(STUDY.read_text())["chosen"]
    assert {row["accuracy"]: (row["hidden"], row["epochs"], row["validation"]["learning_rate"]) for row in chosen} == {
        accuracy: (*recipe.hidden, recipe.epochs, recipe.learning_rate) for accuracy, recipe in FAST.items()
    }
    for recipe in FAST.values():
        assert (recipe.activation, recipe.batch_size, recipe.schedule) == ("relu", 32, "linear")
    assert all(row["validation"]["reached"] == row["validation"]["seeds"] == 30 for row in chosen)


@pytest.mark.parametrize(("accuracy", "known"), [(0.5, 0.955), (0.955, 0.955), (0.96, 0.97), (0.98, 0.98), (0.99, 0.98)])
def test_the_fast_recipe_for_an_accuracy_is_the_quickest_that_reaches_it(accuracy: float, known: float) -> None:
    assert fast_recipe(accuracy) is FAST[known]


def test_the_fast_recipe_without_an_accuracy_is_that_of_the_highest() -> None:
    assert RECIPES["fast"] is FAST[0.98]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_quickest_recipe_reaches_its_accuracy(mnist: Dataset, seed: int) -> None:
    recipe, backend = replace(FAST[0.955], seed=seed), get_backend("numpy")
    history = mini_batch_sgd(
        *(mnist.x_train, mnist.y_train, recipe.initial_params(mnist.n_in, mnist.n_classes)),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        activation=recipe.activation,
        schedule=recipe.find_schedule(),
        seed=seed,
        backend=backend,
    )
    _, accuracy = evaluate(backend, history.params, mnist.x_test, mnist.y_test, recipe.activation)
    assert accuracy >= 0.955
