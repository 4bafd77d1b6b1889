"""Settings that belong together: what to train, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlp_accel.network import init_params


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

    The others are those of `mini_batch_sgd` and `get_backend`.
    """

    hidden: tuple[int, ...] = (32,)
    activation: str = "tanh"
    gradient: str = "exact"
    dtype: str = "float32"
    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 0.5
    weight_scale: float | None = None
    random_bias: bool = False
    loss_average: str = "samples"
    seed: int = 0

    def initial_params(self, n_in: int, n_classes: int) -> Sequence[tuple[Any, Any]]:
        """Initial parameters for that many inputs and classes."""
        return init_params([n_in, *self.hidden, n_classes], self.seed, self.weight_scale, self.random_bias)

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        return {**asdict(self), "hidden": list(self.hidden)}


RECIPES = {
    "default": Recipe(),
    "notebook": Recipe(
        gradient="notebook",
        dtype="float64",
        epochs=50,
        learning_rate=0.01,
        weight_scale=0.3,
        random_bias=True,
        loss_average="notebook",
    ),
}
