"""exp, tanh and their like, against float64 over the whole range of float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba", reason="Numba is not installed")

from mlp_accel.backends.numba.compiler import EXACT_MATH, MATH, jit
from mlp_accel.backends.numba.emit.vector_math import exp32, expm1, log, log1p, tanh32


@jit()
def each_exp(x: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        out[i] = exp32(x[i])


@jit()
def each_tanh(x: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        out[i] = tanh32(x[i])


@jit()
def each_expm1(x: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        out[i] = expm1(x[i])


@jit()
def each_log(x: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        out[i] = log(x[i])


@jit()
def each_log1p(x: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        out[i] = log1p(x[i])


def every_exponent() -> npt.NDArray[np.float32]:
    """All signs and exponents of float32, each with many mantissas, and a fine grid where the functions bend."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 23, (512, 400), dtype=np.uint32) | (np.arange(512, dtype=np.uint32) << 23)[:, None]
    values = bits.view(np.float32).ravel()
    return np.concatenate([values[np.isfinite(values)], np.linspace(-110, 95, 500_001, dtype=np.float32)])


def test_exp_is_right_over_the_whole_range() -> None:
    x = every_exponent()
    result = np.empty_like(x)
    each_exp(x, result)
    with np.errstate(over="ignore", under="ignore"):
        exact = np.exp(x.astype(np.float64))
        rounded = exact.astype(np.float32)
    normal = (exact >= np.finfo(np.float32).smallest_normal) & np.isfinite(rounded)
    assert np.abs(result[normal] / exact[normal] - 1).max() < 1.5e-7
    assert (result[np.isinf(rounded)] > 3.4e38).all()
    tiny = exact < np.finfo(np.float32).smallest_normal
    assert np.abs(result[tiny] - exact[tiny]).max() < np.finfo(np.float32).smallest_normal


def test_tanh_is_right_over_the_whole_range() -> None:
    x = every_exponent()
    x = x[np.abs(x) >= np.finfo(np.float32).smallest_normal]
    result = np.empty_like(x)
    each_tanh(x, result)
    exact = np.tanh(x.astype(np.float64))
    assert np.abs(result / exact - 1).max() < 5e-7
    assert np.abs(result).max() <= 1


@pytest.mark.parametrize(
    ("kernel", "function", "low", "high", "tolerance"),
    [
        (each_expm1, np.expm1, -np.inf, 88.0, 6e-7),
        (each_log1p, np.log1p, -0.999, np.inf, 2e-7),
        (each_log, np.log, 0.0, np.inf, 2e-7),
    ],
    ids=["expm1", "log1p", "log"],
)
def test_the_others_are_right_over_the_whole_range(kernel: Any, function: Any, low: float, high: float, tolerance: float) -> None:
    x = every_exponent()
    x = x[(x > low) & (x < high)]
    if function is not np.log:
        x = x[np.abs(x) >= np.finfo(np.float32).smallest_normal]
    result = np.empty_like(x)
    kernel(x, result)
    exact = function(x.astype(np.float64))
    assert np.abs(result[exact == 0]).max(initial=0) == 0
    assert np.abs(result[exact != 0] / exact[exact != 0] - 1).max() < tolerance


def test_the_others_keep_nan_and_know_their_limits() -> None:
    x, result = np.array([np.nan, np.inf, -np.inf, 0, -1, -2], np.float32), np.empty(6, np.float32)
    nan = np.nan
    each_expm1(x, result)
    np.testing.assert_allclose(result, [nan, np.inf, -1, 0, np.expm1(-1), np.expm1(-2)], rtol=5e-7)
    each_log(x, result)
    np.testing.assert_array_equal(result, [nan, np.inf, nan, -np.inf, nan, nan])
    each_log1p(x, result)
    np.testing.assert_array_equal(result, [nan, np.inf, nan, 0, -np.inf, nan])


def test_nan_stays_nan_and_infinity_has_its_limit() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0], np.float32)
    result = np.empty_like(x)
    each_exp(x, result)
    np.testing.assert_array_equal(result, np.array([np.nan, np.inf, 0, 1], np.float32))
    each_tanh(x, result)
    np.testing.assert_allclose(result, [np.nan, 1, -1, 0], rtol=5e-7)


def test_numba_never_assumes_that_there_is_no_nan() -> None:
    assert not (MATH | EXACT_MATH) & {"nnan", "ninf", "fast"}
