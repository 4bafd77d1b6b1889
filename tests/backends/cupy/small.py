"""What the tests of this folder share: small data, short names, and an activation and a rule of a user's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_accel.activations import BUILT_IN, Activation, activation
from mlp_accel.backends.base import Backend
from mlp_accel.elementwise import exp, sqrt
from mlp_accel.optimizers import OPTIMIZERS, Optimizer, Rule
from mlp_accel.training.trainer import Trainer

SIZES = [20, 12, 5]


class Reference(Backend):
    """The base ops on NumPy, which every kernel is held to."""

    name = "reference"
    xp: Any = np


@activation(slope=lambda z: (1.0 - z * z) * exp(-0.5 * z * z), of_input=True)
def wavelet(z: Any) -> Any:
    """Rises and falls, so that its slope does not follow from its output."""
    return z * exp(-0.5 * z * z)


def chase(p: Any, g: Any, fast: Any, slow: Any, rate: Any = 0.1, step: Any = 1.0, pull: Any = 0.3) -> Any:
    """Has two slots and needs the number of the step."""
    fast = 0.5 * fast + g
    slow = slow + pull * (p - slow)
    return p - rate * (fast / sqrt(step) + pull * (p - slow)), fast, slow


def ratio(p: Any, g: Any, rate: Any = 0.1) -> Any:
    """Is NaN where parameter and gradient are 0."""
    return p - rate * (g / (abs(g) + abs(p)))


ACTIVATIONS: dict[str, Activation] = {**BUILT_IN, "wavelet": wavelet}
RULES: dict[str, Optimizer] = {
    **OPTIMIZERS,
    "sgd with decay": OPTIMIZERS["sgd"].with_settings(weight_decay=0.01),
    "momentum": OPTIMIZERS["momentum"].with_settings(weight_decay=0.01),
    "chase": Optimizer(chase),
}
TANH, SGD = BUILT_IN["tanh"], Optimizer.record_for([OPTIMIZERS["sgd"]])


def rule_of(name: str) -> Rule:
    return Optimizer.record_for([RULES[name]])


def data(n: int = 50, n_in: int = 20, classes: int = 5) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, n_in), dtype=np.uint8), rng.integers(0, classes, n)


def bits(params: Any) -> list[bytes]:
    return [np.ascontiguousarray(a).tobytes() for pair in params for a in pair]


def trainer_by(path: str | None, backend: Backend, n: int = 50, batch_size: int = 10, **options: Any) -> Trainer:
    """One small network, about to be trained."""
    from mlp_accel import init_params

    return Trainer(*data(n), [init_params(SIZES)], backend, batch_size=batch_size, path=path, **options)
