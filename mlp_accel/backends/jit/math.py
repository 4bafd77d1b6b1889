"""exp, tanh and the logistic function, in a form that LLVM turns into vectors; float64 goes to the C library."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from mlp_accel.backends.jit.compiler import jit

IDENTITY, TANH, RELU, SIGMOID = 0, 1, 2, 3

_f = np.float32


@jit(reassociate=False)
def exp32(x: Any) -> Any:
    """Exp of a float32, at most 1.5e-7 of relative error where the result is a normal number; NaN stays NaN.

    ``exp(x) = 2**n * exp(r)``, ``|r| <= log(2) / 2``; the polynomial is that of Cephes' ``expf`` (Moshier, 1989).
    """
    if x < _f(-104):  # written so that NaN passes
        x = _f(-104)
    if x > _f(89):
        x = _f(89)
    n = np.floor(x * _f(1.44269504088896341) + _f(0.5))
    r = x - n * _f(0.693359375) - n * _f(-2.12194440e-4)
    p = ((((_f(1.9875691500e-4) * r + _f(1.3981999507e-3)) * r + _f(8.3334519073e-3)) * r + _f(4.1665795894e-2)) * r) + _f(
        1.6666665459e-1
    )
    p = (p * r + _f(5.0000001201e-1)) * (r * r) + r + _f(1)
    whole = np.int32(n)
    half = whole >> np.int32(1)  # in two steps: 2**n may be beyond the range of the result's neighbours
    low = np.int32((half + np.int32(127)) << np.int32(23)).view(np.float32)
    high = np.int32((whole - half + np.int32(127)) << np.int32(23)).view(np.float32)
    return p * low * high


@jit(reassociate=False)
def tanh32(x: Any) -> Any:
    """Tanh of a float32, at most 5e-7 of relative error; NaN stays NaN.

    The rational function of Eigen's ``ptanh_float`` (Eigen 3.3, GenericPacketMathFunctions).
    """
    limit = _f(7.90531110763549805)
    if x < -limit:
        x = -limit
    if x > limit:
        x = limit
    small = abs(x) < _f(4e-4)  # there the numerator may be too small for a float32, and tanh(x) is x
    s = x * x
    p = _f(-2.76076847742355e-16) * s + _f(2.00018790482477e-13)
    p = ((p * s + _f(-8.60467152213735e-11)) * s + _f(5.12229709037114e-08)) * s + _f(1.48572235717979e-05)
    p = ((p * s + _f(6.37261928875436e-04)) * s + _f(4.89352455891786e-03)) * x
    q = (_f(1.19825839466702e-06) * s + _f(1.18534705686654e-04)) * s
    ratio = p / ((q + _f(2.26843463243900e-03)) * s + _f(4.89352518554385e-03))
    return x if small else ratio


@jit()
def exp64(x: Any) -> Any:
    """The C library's."""
    return np.exp(x)


@jit()
def tanh64(x: Any) -> Any:
    """The C library's."""
    return np.tanh(x)


def exp(x: float) -> float:
    """exp, in the type of `x`."""
    return float(np.exp(x))


def tanh(x: float) -> float:
    """tanh, in the type of `x`."""
    return float(np.tanh(x))


def _exp(x: Any) -> Any:
    function = exp32 if x == types.float32 else exp64

    def implementation(x: Any) -> Any:
        return function(x)

    return implementation


def _tanh(x: Any) -> Any:
    function = tanh32 if x == types.float32 else tanh64

    def implementation(x: Any) -> Any:
        return function(x)

    return implementation


overload(exp)(_exp)
overload(tanh)(_tanh)


@jit()
def activate(activation: int, values: Any, start: int, stop: int) -> None:
    """``values[start:stop] = activation(values[start:stop])``, `values` flat."""
    one, zero = values.dtype.type(1), values.dtype.type(0)
    part = values[start:stop]
    if activation == TANH:
        for j in range(part.shape[0]):
            part[j] = tanh(part[j])
    elif activation == RELU:
        for j in range(part.shape[0]):
            part[j] = zero if part[j] < zero else part[j]  # NaN stays NaN
    elif activation == SIGMOID:
        for j in range(part.shape[0]):
            e = exp(-abs(part[j]))  # never overflows
            part[j] = (one if part[j] >= zero else e) / (one + e)


@jit()
def times_slope(activation: int, errors: Any, values: Any, start: int, stop: int) -> None:
    """``errors[start:stop] *= activation'``, taken from the activations `values`; both flat."""
    one, zero = values.dtype.type(1), values.dtype.type(0)
    error, a = errors[start:stop], values[start:stop]
    if activation == TANH:
        for j in range(a.shape[0]):
            error[j] *= one - a[j] * a[j]
    elif activation == RELU:
        for j in range(a.shape[0]):
            error[j] *= one if a[j] > zero else zero
    elif activation == SIGMOID:
        for j in range(a.shape[0]):
            error[j] *= a[j] * (one - a[j])
