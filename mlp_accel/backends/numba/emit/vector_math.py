"""exp, tanh and their like: for float32 written so that LLVM computes a vector of them at once, for float64 the C library's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from mlp_accel.backends.numba.compiler import EXACT_MATH, inlined, jit

_f = np.float32


@jit(math=EXACT_MATH)
def exp32(x: Any) -> Any:
    """Exp of a float32, at most 1.5e-7 of relative error where the result is a normal number; NaN stays NaN.

    ``exp(x) = 2**n * exp(r)``, ``|r| <= log(2) / 2``; the polynomial is that of Cephes' ``expf`` (Moshier, 1989).
    """
    if x < _f(-104):  # no comparison with NaN is true, so NaN stays
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
    half = whole >> np.int32(1)  # in two steps: 2**n itself may be out of range where the result is not
    low = np.int32((half + np.int32(127)) << np.int32(23)).view(np.float32)
    high = np.int32((whole - half + np.int32(127)) << np.int32(23)).view(np.float32)
    return p * low * high


@jit(math=EXACT_MATH)
def tanh32(x: Any) -> Any:
    """Tanh of a float32, at most 5e-7 of relative error; NaN stays NaN.

    The rational function of Eigen's ``ptanh_float`` (Eigen 3.3, GenericPacketMathFunctions).
    """
    limit = _f(7.90531110763549805)
    if x < -limit:
        x = -limit
    if x > limit:
        x = limit
    small = abs(x) < _f(4e-4)  # there the numerator may underflow, and tanh(x) is x to the last bit
    s = x * x
    p = _f(-2.76076847742355e-16) * s + _f(2.00018790482477e-13)
    p = ((p * s + _f(-8.60467152213735e-11)) * s + _f(5.12229709037114e-08)) * s + _f(1.48572235717979e-05)
    p = ((p * s + _f(6.37261928875436e-04)) * s + _f(4.89352455891786e-03)) * x
    q = (_f(1.19825839466702e-06) * s + _f(1.18534705686654e-04)) * s
    ratio = p / ((q + _f(2.26843463243900e-03)) * s + _f(4.89352518554385e-03))
    return x if small else ratio


@inlined  # LLVM would not inline a function of this size, and a loop that calls it has no vectors
def expm1_32(x: Any) -> Any:
    """``exp(x) - 1`` of a float32: ``tanh(x / 2) * (exp(x) + 1)``, in which nothing cancels."""
    return tanh32(x * _f(0.5)) * (exp32(x) + _f(1))


@jit(math=EXACT_MATH)
def log32(x: Any) -> Any:
    """Natural logarithm of a float32, at most 2e-7 of relative error away from 1; NaN below 0.

    ``x = 2**n * m``, ``sqrt(1/2) <= m < sqrt(2)``; the polynomial is that of Cephes' ``logf`` (Moshier, 1989).
    """
    tiny = x < _f(1.17549435e-38)  # a subnormal number has no exponent of its own: it is made larger first
    scaled = x * _f(8388608) if tiny else x
    bits = np.float32(scaled).view(np.int32)
    n = np.float32((bits >> np.int32(23)) - np.int32(126)) - (_f(23) if tiny else _f(0))
    m = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F000000)).view(np.float32)  # from 1/2 to 1
    low = m < _f(0.707106781186547524)
    n = n - _f(1) if low else n
    r = (m + m if low else m) - _f(1)
    z = r * r
    p = (((_f(7.0376836292e-2) * r + _f(-1.1514610310e-1)) * r + _f(1.1676998740e-1)) * r + _f(-1.2420140846e-1)) * r
    p = (((p + _f(1.4249322787e-1)) * r + _f(-1.6668057665e-1)) * r + _f(2.0000714765e-1)) * r
    p = ((p + _f(-2.4999993993e-1)) * r + _f(3.3333331174e-1)) * r * z
    result = (n * _f(-2.12194440e-4) + p - _f(0.5) * z + r) + n * _f(0.693359375)
    infinite, zero = _f(np.inf), x == _f(0)
    result = -infinite if zero else result
    result = infinite if x == infinite else result
    return result if x >= _f(0) else _f(np.nan)


@jit(math=EXACT_MATH)
def log1p_32(x: Any) -> Any:
    """``log(1 + x)`` of a float32: ``log(u) * x / (u - 1)`` with ``u = 1 + x`` rounded (W. Kahan, HP-15C Handbook, 1982)."""
    u = _f(1) + x
    off = u - _f(1)
    exact = off == _f(0)
    ratio = log32(u) * (x / (_f(1) if exact else off))
    result = x if exact else ratio
    return x if x == _f(np.inf) else result


def exp(x: float) -> float:
    """exp, in the type of `x`."""
    return float(np.exp(x))


def expm1(x: float) -> float:
    """``exp(x) - 1``, in the type of `x`."""
    return float(np.expm1(x))


def log(x: float) -> float:
    """Natural logarithm, in the type of `x`."""
    return float(np.log(x))


def log1p(x: float) -> float:
    """``log(1 + x)``, in the type of `x`."""
    return float(np.log1p(x))


def tanh(x: float) -> float:
    """tanh, in the type of `x`."""
    return float(np.tanh(x))


def _in_its_type(function: Any, single: Any, double: Any) -> None:
    """Have Numba compile calls of `function` as calls of `single` for float32, and of `double` for float64."""

    def choose(x: Any) -> Any:
        chosen = single if x == types.float32 else double

        def implementation(x: Any) -> Any:
            return chosen(x)

        return implementation

    overload(function, inline="always")(choose)


@jit()
def exp64(x: Any) -> Any:
    """The function of the C library."""
    return np.exp(x)


@jit()
def expm1_64(x: Any) -> Any:
    """The function of the C library."""
    return np.expm1(x)


@jit()
def log64(x: Any) -> Any:
    """The function of the C library."""
    return np.log(x)


@jit()
def log1p_64(x: Any) -> Any:
    """The function of the C library."""
    return np.log1p(x)


@jit()
def tanh64(x: Any) -> Any:
    """The function of the C library."""
    return np.tanh(x)


_in_its_type(exp, exp32, exp64)
_in_its_type(expm1, expm1_32, expm1_64)
_in_its_type(log, log32, log64)
_in_its_type(log1p, log1p_32, log1p_64)
_in_its_type(tanh, tanh32, tanh64)
