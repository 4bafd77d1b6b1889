"""What the parameters of the estimator may be."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from mlp_accel.activations import ACTIVATIONS, Activation, activation, find_activation
from mlp_accel.backends import DTYPES

SOLVERS = ("sgd", "adam", "lbfgs")
LEARNING_RATES = ("constant", "invscaling", "adaptive")

RANGES = (
    (("alpha", "power_t", "tol"), 0, np.inf, "a number, 0 or more"),
    (("learning_rate_init", "epsilon"), np.nextafter(0, 1), np.inf, "a number above 0"),
    (("momentum", "beta_1", "beta_2", "validation_fraction"), 0, 1, "a number, 0 or more and below 1"),
)
"""Parameters, the lowest value that they may have, the first that is too high, and that in words."""


@activation(slope=lambda a: 1.0)
def identity(z: Any) -> Any:
    """Nothing is done."""
    return z


NAMES = {"logistic": "sigmoid", "identity": identity}
"""scikit-learn's activations that have another name here, or none."""


def function_of(named: str | Activation) -> Activation:
    """The activation by scikit-learn's name or by ours, or the one that is given."""
    known: Any = NAMES.get(named, named) if isinstance(named, str) else named
    return find_activation(known)


def check_parameters(estimator: Any) -> list[int]:
    """The units of the hidden layers; ValueError for a parameter that is out of range."""

    def refuse(name: str, must: str) -> None:
        raise ValueError(f"{name} must be {must}; got {getattr(estimator, name)!r}")

    hidden = estimator.hidden_layer_sizes
    hidden = list(hidden) if isinstance(hidden, Sequence | np.ndarray) else [hidden]
    if not all(_is_whole(units) and units > 0 for units in hidden):
        refuse("hidden_layer_sizes", "a whole number above 0, or a sequence of them")
    if isinstance(estimator.activation, str) and estimator.activation not in (*NAMES, *ACTIVATIONS):
        refuse("activation", f"one of {', '.join(dict.fromkeys([*NAMES, *ACTIVATIONS]))}, or an Activation")
    choices = {"solver": SOLVERS, "learning_rate": LEARNING_RATES, "dtype": DTYPES}
    for name, known in choices.items():
        if getattr(estimator, name) not in known:
            refuse(name, f"one of {', '.join(known)}")
    for name in ("max_iter", "max_fun", "n_iter_no_change", *(["batch_size"] if estimator.batch_size != "auto" else [])):
        value = getattr(estimator, name)
        if not ((_is_whole(value) and value >= 1) or (name == "n_iter_no_change" and value == np.inf)):
            refuse(name, "a whole number, 1 or more")
    for names, low, high, must in RANGES:
        for name in names:
            value = getattr(estimator, name)
            if not (_is_number(value) and low <= value < high):
                refuse(name, must)
    return [int(units) for units in hidden]


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
