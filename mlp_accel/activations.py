"""The activations of the hidden layers. A new one is one function here, or in a file of yours: see `activation`.

Each is a function of what goes into a unit, with its slope (its derivative) as a function of what comes out or, where that is not
enough to compute it, of what goes in. Both are recorded (see `mlp_accel.recording`), so every kernel of every backend has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mlp_accel.elementwise import exp, expm1, log1p, maximum, minimum, where
from mlp_accel.elementwise import tanh as _tanh
from mlp_accel.errors import SettingError
from mlp_accel.recording import Record, record

Function = Callable[[Any], Any]

CHECKED = np.arange(-6.0, 6.0, 0.173)
"""The inputs at which a slope is compared with differences of the function; none is at a kink of a common activation."""


@dataclass(frozen=True)
class Activation:
    """An activation that every backend can compute with.

    Parameters
    ----------
    function : callable
        What a unit puts out, as a function of one number, made of the functions of `mlp_accel.elementwise` and of operators.
    slope : callable
        Its derivative.
    of_input : bool
        The slope is a function of what goes into the unit. Otherwise it is a function of what comes out, which saves memory and
        time: the output is stored anyway.
    name : str
        By default that of the function.

    Raises
    ------
    SettingError
        If the slope is not the derivative of the function; names an input at which it is not.
    RecordingError
        If one of them does what cannot be recorded.
    """

    function: Function
    slope: Function
    of_input: bool = False
    name: str = field(default="")

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", getattr(self.function, "__name__", "activation"))
        for function in (self.function, self.slope):
            if len(record(function, 1).results) != 1:
                raise SettingError(f"the activation {self.name!r} and its slope must each return one number")
        self._check_slope()

    def __call__(self, z: Any) -> Any:
        """The function itself, of a number or an array."""
        return self.function(z)

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        """Those of this file are pickled by name, as their slopes have none."""
        return (find_activation, (self.name,)) if BUILT_IN.get(self.name) is self else super().__reduce__()

    @cached_property
    def value(self) -> Record:
        """The recorded function of what goes into a unit."""
        return record(self.function, 1)

    @cached_property
    def times_slope(self) -> Record:
        """The recorded ``delta * slope``, a function of a delta, and of the unit's output or (`of_input`) of what goes into it."""
        return record(lambda delta, slope_input: delta * self.slope(slope_input), 2)

    def _check_slope(self) -> None:
        step = 1e-5
        with np.errstate(all="ignore"):
            values = np.array([self.function(z) for z in CHECKED], np.float64)
            beside = np.array([[self.function(z - step), self.function(z + step)] for z in CHECKED], np.float64)
            slopes = np.array([self.slope(z) for z in (CHECKED if self.of_input else values)], np.float64)
        expected = (beside[:, 1] - beside[:, 0]) / (2 * step)
        wrong = np.flatnonzero(~(np.abs(slopes - expected) <= 1e-5 * np.maximum(1.0, np.abs(expected))))
        if len(wrong):
            first = wrong[0]
            of = "input" if self.of_input else "output"
            found = f"it is {slopes[first]:.6g}, differences of the function give {expected[first]:.6g}"
            what = f"the slope of the activation {self.name!r}, a function of its {of}"
            raise SettingError(f"{what}, is wrong: at the input {CHECKED[first]:.3f} {found}")


def activation(*, slope: Function, of_input: bool = False) -> Callable[[Function], Activation]:
    """Make an `Activation` of a function: ``@activation(slope=lambda a: 1.0 - a * a)``.

    It is passed as ``activation=``. Those that are defined in this file can also be chosen by their names.
    """
    return lambda function: Activation(function, slope, of_input)


def _logistic(z: Any) -> Any:
    e = exp(-abs(z))  # never overflows, and keeps the relative accuracy of small results
    return where(z >= 0, 1.0, e) / (1.0 + e)


def _logistic_slope(z: Any) -> Any:
    e = exp(-abs(z))
    return e / ((1.0 + e) * (1.0 + e))


@activation(slope=lambda a: 1.0 - a * a)
def tanh(z: Any) -> Any:
    """Hyperbolic tangent."""
    return _tanh(z)


@activation(slope=lambda a: where(a > 0, 1.0, 0.0))
def relu(z: Any) -> Any:
    """The positive part."""
    return maximum(z, 0.0)


@activation(slope=lambda a: a * (1.0 - a))
def sigmoid(z: Any) -> Any:
    """The logistic function, ``1 / (1 + exp(-z))``."""
    return _logistic(z)


@activation(slope=lambda a: where(a > 0, 1.0, 0.01))
def leaky_relu(z: Any) -> Any:
    """`relu` with a slope of 0.01 below 0 (Maas et al., 2013)."""
    return where(z > 0, z, 0.01 * z)


@activation(slope=lambda a: where(a > 0, 1.0, a + 1.0))
def elu(z: Any) -> Any:
    """``z`` above 0, ``exp(z) - 1`` below (Clevert et al., 2015)."""
    return maximum(z, 0.0) + expm1(minimum(z, 0.0))


@activation(slope=_logistic, of_input=True)
def softplus(z: Any) -> Any:
    """``log(1 + exp(z))``. From the output its slope would be ``1 - exp(-a)``, whose digits cancel for small ``a``."""
    return maximum(z, 0.0) + log1p(exp(-abs(z)))


@activation(slope=lambda a: (1.0 - abs(a)) * (1.0 - abs(a)))
def softsign(z: Any) -> Any:
    """``z / (1 + abs(z))``."""
    return z / (1.0 + abs(z))


GELU_SCALE = 1.5957691216057308
"""``2 * sqrt(2 / pi)``."""


def _gelu_slope(z: Any) -> Any:
    z = maximum(
        minimum(z, 10.0), -10.0
    )  # beyond it the slope is 1 or 0 to the last bit, and z * z could overflow: infinity times 0 is NaN
    inner = GELU_SCALE * (z + 0.044715 * z * z * z)
    return _logistic(inner) + z * _logistic_slope(inner) * (GELU_SCALE * (1.0 + 0.134145 * z * z))


@activation(slope=_gelu_slope, of_input=True)
def gelu(z: Any) -> Any:
    """The Gaussian error linear unit in its tanh form (Hendrycks and Gimpel, 2016, section 2).

    ``1 + tanh(x)`` is written as twice the logistic function of ``2 * x``, which keeps the digits of small results.
    """
    return z * _logistic(GELU_SCALE * (z + 0.044715 * z * z * z))


@activation(slope=lambda z: _logistic(z) + z * _logistic_slope(z), of_input=True)
def silu(z: Any) -> Any:
    """``z * sigmoid(z)``, also called swish."""
    return z * _logistic(z)


BUILT_IN: dict[str, Activation] = {value.name: value for value in list(globals().values()) if isinstance(value, Activation)}
ACTIVATIONS = tuple(BUILT_IN)
"""The names by which they can be chosen."""


def find_activation(value: str | Activation) -> Activation:
    """The activation of that name, or the one that is given.

    Raises
    ------
    SettingError
        For an unknown name; lists the choices.
    """
    if isinstance(value, Activation):
        return value
    if not isinstance(value, str) or value not in BUILT_IN:
        choices = f"choose one of {', '.join(ACTIVATIONS)}, or give an Activation of your own"
        raise SettingError(f"unknown activation {value!r}; {choices}")
    return BUILT_IN[value]
