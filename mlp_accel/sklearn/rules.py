"""Update rules in scikit-learn's form (``sklearn/neural_network/_stochastic_optimizers.py``).

With a rate that changes, and in Adam's epsilon, they differ from those of `mlp_accel.optimizers`.

`alpha` is scikit-learn's: the loss of a minibatch of `size` samples has ``alpha / (2 * size)`` times the squares of the weights
added, but not those of the biases. So each rule has one more slot, `share`, which it returns unchanged: the share of the penalty
that a parameter bears, 0 for a bias and else as `penalty_shares` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlp_accel.backends.arrays import Slots
from mlp_accel.elementwise import sqrt
from mlp_accel.optimizers import OPTIMIZERS, Optimizer


def sgd(p: Any, g: Any, share: Any, rate: Any = 0.001, size: Any = 1.0, alpha: Any = 0.0) -> Any:
    """One step down the gradient."""
    return p - rate * _penalised(p, g, share, size, alpha), share


def momentum(
    p: Any, g: Any, velocity: Any, share: Any, rate: Any = 0.001, size: Any = 1.0, momentum: Any = 0.9, alpha: Any = 0.0
) -> Any:
    """Heavy-ball momentum whose velocity has the rate in it."""
    velocity = momentum * velocity - rate * _penalised(p, g, share, size, alpha)
    return p + velocity, velocity, share


def nesterov(
    p: Any, g: Any, velocity: Any, share: Any, rate: Any = 0.001, size: Any = 1.0, momentum: Any = 0.9, alpha: Any = 0.0
) -> Any:
    """Momentum that looks ahead, whose velocity has the rate in it."""
    step = rate * _penalised(p, g, share, size, alpha)
    velocity = momentum * velocity - step
    return p + (momentum * velocity - step), velocity, share


def adam(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    share: Any,
    rate: Any = 0.001,
    step: Any = 1.0,
    size: Any = 1.0,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    epsilon: Any = 1e-8,
    alpha: Any = 0.0,
) -> Any:
    """Adam in its efficient form, with epsilon beside the uncorrected root (Kingma and Ba, 2015, end of section 2)."""
    g = _penalised(p, g, share, size, alpha)
    m = beta1 * m + (1.0 - beta1) * g
    v = beta2 * v + (1.0 - beta2) * (g * g)
    rate = rate * (1.0 - beta2**step) ** 0.5 / (1.0 - beta1**step)
    return p - rate * (m / (sqrt(v) + epsilon)), m, v, share


def _penalised(p: Any, g: Any, share: Any, size: Any, alpha: Any) -> Any:
    """The gradient with that of the penalty."""
    return g + (alpha * (1.0 / size)) * (share * p)


def optimizer_of(estimator: Any) -> Optimizer:
    """The optimiser that an estimator's parameters describe; SettingError for one that is out of range."""
    alpha = float(estimator.alpha)
    if estimator.solver == "adam":
        betas = {"beta1": estimator.beta_1, "beta2": estimator.beta_2}
        return Optimizer(adam).with_settings(**betas, epsilon=estimator.epsilon, alpha=alpha)
    if estimator.momentum == 0:
        return Optimizer(sgd).with_settings(alpha=alpha) if alpha else OPTIMIZERS["sgd"]
    rule = nesterov if estimator.nesterovs_momentum else momentum
    return Optimizer(rule).with_settings(momentum=estimator.momentum, alpha=alpha)


def first_slots(optimizer: Optimizer, params: Sequence[tuple[Any, Any]]) -> Slots:
    """What the optimiser remembers at the start: the shares of the penalty, and zeros."""

    def slot(name: str, weights: Any, bias: Any, share: float) -> tuple[Any, Any]:
        return np.full_like(weights, share if name == "share" else 0), np.zeros_like(bias)

    layers = zip(params, penalty_shares(params), strict=True)
    return [[slot(name, weights, bias, share) for name in optimizer.slots] for (weights, bias), share in layers]


def penalty_shares(params: Sequence[tuple[Any, Any]]) -> list[float]:
    """The share of the penalty that the weights of each layer bear: 1, but 2 where two classes have an output each.

    The best weights of the two are then one the negative of the other, and twice their squares are the square of the difference:
    the penalty of the one output that scikit-learn has for two classes.
    """
    return [1.0] * (len(params) - 1) + [2.0 if len(params[-1][1]) == 2 else 1.0]
