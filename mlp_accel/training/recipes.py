"""Recipes: complete sets of settings, of a network and of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlp_accel.network import init_params
from mlp_accel.optimizers import Optimizer, find_optimizer
from mlp_accel.schedules import Schedule, find_schedule
from mlp_accel.training.trainer import NOTEBOOK_LEARNING_RATE
from mlp_accel.training.trainer import learning_rate as rate_or_default


@dataclass(frozen=True)
class Recipe:
    """A network and the way to train it.

    Attributes
    ----------
    hidden : tuple of int
        Units of each hidden layer.
    weight_scale : float or None
        Standard deviation of the initial weights; None means ``1 / sqrt(n_in)``.
    random_bias : bool
        Draw the initial biases as well.

    The others are those of `mini_batch_sgd` and `get_backend`; None means the default there.
    """

    hidden: tuple[int, ...] = (32,)
    activation: str = "tanh"
    gradient: str = "exact"
    dtype: str = "float32"
    epochs: int = 5
    batch_size: int = 128
    learning_rate: float | None = None
    optimizer: str = "sgd"
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str = "constant"
    warmup: float | None = None
    step_epochs: int | None = None
    gamma: float | None = None
    weight_scale: float | None = None
    random_bias: bool = False
    loss_average: str = "samples"
    seed: int = 0

    def initial_params(self, n_in: int, n_classes: int) -> Sequence[tuple[Any, Any]]:
        """Initial parameters of a network with so many inputs and classes."""
        return init_params([n_in, *self.hidden, n_classes], self.seed, self.weight_scale, self.random_bias)

    def find_optimizer(self) -> Optimizer:
        """The optimiser with its settings; SettingError if they do not fit together."""
        return find_optimizer(self.optimizer, momentum=self.momentum, weight_decay=self.weight_decay)

    def find_schedule(self) -> Schedule:
        """The schedule with its settings; SettingError if they do not fit together."""
        return find_schedule(self.schedule, warmup=self.warmup, step_epochs=self.step_epochs, gamma=self.gamma)

    def find_rate(self) -> float:
        """The learning rate, or the default of the optimiser."""
        return rate_or_default(self.learning_rate, self.find_optimizer(), self.gradient)

    def optimizer_settings(self) -> dict[str, Any]:
        """``optimizer``, ``learning_rate``, ``momentum`` and ``weight_decay``, with defaults in place of None.

        A setting that the optimiser does not have is None.
        """
        optimizer = self.find_optimizer()
        return {
            "optimizer": self.optimizer,
            "learning_rate": self.find_rate(),
            "momentum": optimizer.values.get("momentum"),
            "weight_decay": optimizer.values.get("weight_decay"),
        }

    def to_dict(self) -> dict[str, Any]:
        """All settings in types that JSON knows, those of the optimiser with defaults in place of None."""
        return {**asdict(self), "hidden": list(self.hidden), **self.optimizer_settings()}


def _fast(hidden: int, learning_rate: float, epochs: int) -> Recipe:
    return Recipe((hidden,), activation="relu", batch_size=32, learning_rate=learning_rate, schedule="linear", epochs=epochs)


FAST = {
    0.955: _fast(hidden=48, learning_rate=0.5, epochs=1),
    0.97: _fast(hidden=64, learning_rate=0.4, epochs=3),
    0.98: _fast(hidden=256, learning_rate=0.5, epochs=6),
}
"""Test accuracies on MNIST, and the training that reaches each soonest: chosen by ``benchmarks/recipe_study.py``, where all of 30
seeds reached it."""


def fast_recipe(accuracy: float) -> Recipe:
    """The quickest training of `FAST` that reaches `accuracy`; beyond the highest of them, that one."""
    return FAST[min((known for known in FAST if known >= accuracy), default=max(FAST))]


RECIPES = {
    "default": Recipe(),
    "fast": FAST[max(FAST)],
    "notebook": Recipe(
        gradient="notebook",
        dtype="float64",
        epochs=50,
        learning_rate=NOTEBOOK_LEARNING_RATE,
        weight_scale=0.3,
        random_bias=True,
        loss_average="notebook",
    ),
}
