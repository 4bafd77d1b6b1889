"""Activations and update rules as CUDA C: compiled for GPUs, and run on the CPU against float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel.backends.cupy.elementwise import EXPRESSIONS, REAL, activation_source, real_source, rule_source
from mlp_accel.backends.cupy.source import DEVICE, source
from mlp_accel.elementwise import exp, expm1, log, log1p, maximum, minimum, sqrt, tanh, where
from mlp_accel.optimizers import Optimizer
from tests.backends.cupy.emulator import Program
from tests.backends.cupy.nvrtc import compile_for
from tests.backends.cupy.small import ACTIVATIONS, RULES

EPS_UNITS = 16
"""Of the larger one of 1 and the largest number that goes in or comes out: how far a result may be from float64."""


def every_op(p: Any, g: Any, s: Any, rate: Any = 0.1, step: Any = 1.0) -> Any:
    """Each operation that can be recorded, a condition that is the same for all elements."""
    q = log(abs(g) + 1.0) + log1p(s) - expm1(-s) * tanh(p) + sqrt(s) / (1.0 + exp(p)) + minimum(p, g)
    inside = (p > -1.0) & (p <= 1.0) | (g >= 2.0) & (g < s)
    t = where(inside, q, maximum(p, -g)) + where(p > g, 2.0, 0.0) + where(step > 1.5, p, g)
    return p - rate * t, minimum(s, 1e30) + maximum(p, -1e30)


EVERY_OP = Optimizer(every_op)
ALL_RULES: dict[str, Optimizer] = {**RULES, "every op": EVERY_OP}


def program_text(dtype: str) -> str:
    """All functions in one source, each with a kernel that calls it for one element after another."""
    parts = [real_source(dtype), '#define KERNEL extern "C" __global__ void\n']
    calls = ("exp", "expm1", "log", "log1p", "tanh", "sqrt", "fabs")
    parts += [f'static_assert(sizeof({call}((Real)1)) == sizeof(Real), "{call} is computed in another type");\n' for call in calls]
    for i, name in enumerate(ACTIVATIONS):
        parts.append(f"namespace activation{i} {{\n{activation_source(ACTIVATIONS[name])}}}\n")
        parts.append(
            f"KERNEL run_activation{i}(const Real* z, const Real* error, const Real* slope_input, Real* value, Real* delta, "
            "int n) {\n"
            "    for (int i = thread_index(); i < n; i += 32)\n"
            f"        value[i] = activation{i}::activate(z[i]), delta[i] = activation{i}::times_slope(error[i], slope_input[i]);\n"
            "}\n"
        )
    for i, name in enumerate(ALL_RULES):
        parts.append(f"namespace rule{i} {{\n{rule_source(Optimizer.record_for([ALL_RULES[name]]))}}}\n")
        parts.append(
            f"KERNEL run_rule{i}(Real* parameter, const Real* gradient, Real* slots, const Real* scalars, int n) {{\n"
            "    for (int i = thread_index(); i < n; i += 32)\n"
            f"        parameter[i] = rule{i}::apply_rule(parameter[i], gradient[i], slots + i, n, scalars);\n}}\n"
        )
    return source(DEVICE) + "".join(parts)


@cache
def program(dtype: str) -> Program:
    return Program('#pragma GCC diagnostic error "-Wdouble-promotion"\n' + program_text(dtype), ())


def close(dtype: str, actual: npt.NDArray[Any], expected: npt.NDArray[Any], *inputs: npt.NDArray[Any]) -> None:
    scale = max(1.0, *(float(np.abs(a).max()) for a in (expected, *inputs)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=EPS_UNITS * scale * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", REAL)
def test_every_function_compiles_for_a_gpu(architecture: str, dtype: str) -> None:
    needs = compile_for(architecture, program_text(dtype))
    assert len(needs) == len(ACTIVATIONS) + len(ALL_RULES)
    assert {need.spills for need in needs.values()} == {0}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_slope_agree_with_float64(name: str, dtype: str) -> None:
    activation, rng = ACTIVATIONS[name], np.random.default_rng(0)
    z = np.concatenate([np.linspace(-30, 30, 601), [0.0, -0.0, 1e-6, -1e-6, -100.0, 100.0]]).astype(dtype)
    error = rng.normal(size=z.shape).astype(dtype)
    exact = z.astype(np.float64)
    (expected,) = activation.value(np, [exact])
    slope_input = z if activation.of_input else expected.astype(dtype)
    (expected_delta,) = activation.times_slope(np, [error.astype(np.float64), slope_input.astype(np.float64)])
    value, delta = np.full_like(z, np.nan), np.full_like(z, np.nan)
    arguments = [z, error, slope_input, value, delta, np.int32(z.size)]
    program(dtype).launch(f"run_activation{list(ACTIVATIONS).index(name)}", 1, 32, 0, arguments)
    close(dtype, value, expected)
    close(dtype, delta, expected_delta, error)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_goes_through_every_activation(name: str) -> None:
    nan, results = np.full(1, np.nan), np.zeros((2, 1))
    program("float64").launch(
        f"run_activation{list(ACTIVATIONS).index(name)}", 1, 32, 0, [nan, np.ones(1), nan, results[0], results[1], np.int32(1)]
    )
    assert np.isnan(results[0])


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ALL_RULES)
def test_a_rule_agrees_with_float64(name: str, dtype: str) -> None:
    optimizer, rng, n = ALL_RULES[name], np.random.default_rng(1), 300
    rule = Optimizer.record_for([optimizer])
    parameter, gradient = rng.normal(0, 2, (2, n)).astype(dtype)
    slots = (0.1 + rng.random((rule.n_slots, n))).astype(dtype)
    scalars = optimizer.scalars(rule, np.array([0.05]), first_step=2)[0].astype(dtype)
    elements = [a.astype(np.float64) for a in (parameter, gradient, *slots)]
    expected, *expected_slots = rule.record(np, elements, scalars.astype(np.float64))
    arguments = [parameter, gradient, slots, scalars, np.int32(n)]
    program(dtype).launch(f"run_rule{list(ALL_RULES).index(name)}", 1, 32, 0, arguments)
    close(dtype, parameter, expected)
    for ours, theirs in zip(slots, expected_slots, strict=True):
        close(dtype, ours, theirs)


def test_the_rules_here_use_every_operation() -> None:
    assert {line.op for line in Optimizer.record_for([EVERY_OP]).record.assignments} == set(EXPRESSIONS)
