"""exp, tanh and the activations of the kernels, against float64 over the whole range of float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba", reason="Numba is not installed")

from mlp_accel.backends.jit.compiler import MATH, jit
from mlp_accel.backends.jit.math import RELU, SIGMOID, TANH, activate, exp32, tanh32


@jit()
def each_exp(x: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        out[i] = exp32(x[i])


@jit()
def each_tanh(x: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        out[i] = tanh32(x[i])


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


def test_nan_stays_nan_and_infinity_has_its_limit() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0], np.float32)
    result = np.empty_like(x)
    each_exp(x, result)
    np.testing.assert_array_equal(result, np.array([np.nan, np.inf, 0, 1], np.float32))
    each_tanh(x, result)
    np.testing.assert_allclose(result, [np.nan, 1, -1, 0], rtol=5e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("code", [TANH, RELU, SIGMOID])
def test_an_activation_keeps_nan_and_touches_only_its_part(code: int, dtype: str) -> None:
    values = np.linspace(-3, 3, 40).astype(dtype)
    values[20] = np.nan
    before = values.copy()
    activate(code, values, 10, 30)
    np.testing.assert_array_equal(values[:10], before[:10])
    np.testing.assert_array_equal(values[30:], before[30:])
    z = before[10:30].astype(np.float64)
    expected = {TANH: np.tanh(z), RELU: np.maximum(z, 0), SIGMOID: 1 / (1 + np.exp(-z))}[code]
    np.testing.assert_allclose(values[10:30], expected, rtol=1e-6)


def test_numba_never_assumes_that_there_is_no_nan() -> None:
    assert not MATH & {"nnan", "ninf", "fast"}
