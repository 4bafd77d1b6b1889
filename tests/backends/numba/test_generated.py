"""Recorded functions as kernels behind addresses: activations, slopes and rules, ours and a user's."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba", reason="Numba is not installed")

from mlp_accel.activations import BUILT_IN, Activation
from mlp_accel.backends.numba import generated
from mlp_accel.backends.numba.generated import activation_addresses, rule_address
from mlp_accel.elementwise import exp, log1p, maximum, sign, tanh
from mlp_accel.optimizers import OPTIMIZERS, Optimizer


def _softplus(z: Any) -> Any:
    return maximum(z, 0.0) + log1p(exp(-abs(z)))


def mish(z: Any) -> Any:
    return z * tanh(_softplus(z))


def mish_slope(z: Any) -> Any:
    t, e = tanh(_softplus(z)), exp(-abs(z))
    logistic = 0.5 * (1.0 + sign(z) * ((1.0 - e) / (1.0 + e)))
    return t + z * (1.0 - t * t) * logistic


def lion(p: Any, g: Any, m: Any, rate: Any, beta1: Any = 0.9, beta2: Any = 0.99, weight_decay: Any = 0.1) -> Any:
    p = p - rate * (sign(beta1 * m + (1.0 - beta1) * g) + weight_decay * p)
    return p, beta2 * m + (1.0 - beta2) * g


def caller(address: int, n_integers: int, dtype: str) -> Callable[..., int]:
    one = ctypes.c_float if dtype == "float32" else ctypes.c_double
    function: Callable[..., int] = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * n_integers, one)(address)
    return function


def values(dtype: str, seed: int = 0, n: int = 77) -> npt.NDArray[Any]:
    """A number of them that fills no whole vectors, with NaN."""
    numbers = np.random.default_rng(seed).normal(0, 2, n)
    numbers[[5, 30]] = np.nan
    return numbers.astype(dtype)


ACTIVATIONS = {**BUILT_IN, "mish": Activation(mish, mish_slope, of_input=True)}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_slope_are_those_in_float64(name: str, dtype: str) -> None:
    activation = ACTIVATIONS[name]
    addresses = activation_addresses(activation, dtype)
    z, n = values(dtype), 70
    sums, outputs = z.copy(), z.copy() if not activation.of_input else np.zeros_like(z)
    start = 3 * z.itemsize  # only a part is touched
    caller(addresses.activate, 3, dtype)(sums.ctypes.data + start, outputs.ctypes.data + start, n, 1.0)
    with np.errstate(all="ignore"):
        (expected,) = activation.value(np, [z.astype(np.float64)])
        tolerance = 100 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(outputs[3:73], expected[3:73], rtol=tolerance, atol=tolerance)
        untouched = z if not activation.of_input else np.zeros_like(z)
        np.testing.assert_array_equal(np.delete(outputs, range(3, 73)), np.delete(untouched, range(3, 73)))
        np.testing.assert_array_equal(sums, z)

        slope_inputs = z if activation.of_input else activation.value(np, [z])[0].astype(dtype)
        errors = values(dtype, 1)
        (expected,) = activation.times_slope(np, [errors.astype(np.float64), slope_inputs.astype(np.float64)])
        caller(addresses.times_slope, 3, dtype)(errors.ctypes.data, slope_inputs.ctypes.data, len(errors), 1.0)
        np.testing.assert_allclose(errors, expected, rtol=tolerance, atol=tolerance)


RULES = {**OPTIMIZERS, "lion": Optimizer(lion)}


@pytest.mark.parametrize("decay", [0.0, 0.03])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_that_in_float64_and_clears_the_gradient(name: str, decay: float, dtype: str) -> None:
    optimizer = RULES[name].with_settings(weight_decay=decay)
    rule = Optimizer.record_for([optimizer])
    rng, n = np.random.default_rng(0), 77
    arrays = [rng.normal(size=n).astype(dtype) for _ in range(2 + rule.n_slots)]
    arrays[2:] = [np.abs(slot) for slot in arrays[2:]]
    scalars = optimizer.scalars(rule, np.full(1, 0.1), 7)[0]
    expected = rule.record(np, [a.astype(np.float64) for a in arrays], scalars)
    slot_addresses, row = np.array([a.ctypes.data for a in arrays[2:]], np.int64), scalars.astype(dtype)
    address = rule_address(rule, dtype)
    shift = 5 * arrays[0].itemsize
    arguments = (*(a.ctypes.data + shift for a in arrays[:2]), slot_addresses.ctypes.data, shift, row.ctypes.data, n - 5)
    before = [a[:5].copy() for a in arrays]
    caller(address, 6, dtype)(*arguments, 1.0)
    tolerance = 100 * float(np.finfo(dtype).eps)
    for ours, theirs in zip([arrays[0], *arrays[2:]], expected, strict=True):
        np.testing.assert_allclose(ours[5:], theirs[5:], rtol=tolerance, atol=tolerance)
    assert not arrays[1][5:].any()
    for array, start in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array[:5], start)


def test_a_generated_module_is_written_once_and_again_if_it_was_changed(caplog: pytest.LogCaptureFixture) -> None:
    text = "\n\ndef f():\n    return 1\n"
    with caplog.at_level(logging.WARNING):
        first = generated._module("a name! with signs", "float32", text)
    path = generated._folder() / f"{first.__name__}.py"
    written = path.stat().st_mtime_ns
    assert generated._module("a name! with signs", "float32", text).f() == 1
    assert path.stat().st_mtime_ns == written
    path.write_text("def f():\n    return 2\n")
    assert generated._module("a name! with signs", "float32", text).f() == 1
    path.unlink()
