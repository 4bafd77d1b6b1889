"""The activations: their values, their slopes, what happens far out and close to zero, and one of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import special

from mlp_accel import Activation, SettingError, activation, backward, evaluate, forward, init_params, mini_batch_sgd
from mlp_accel.activations import ACTIVATIONS, BUILT_IN, find_activation
from mlp_accel.backends import Backend
from mlp_accel.backends.loop import to_backend
from mlp_accel.elementwise import exp, log1p, tanh, where
from mlp_accel.elementwise import maximum as largest
from mlp_accel.errors import RecordingError

Floats = npt.NDArray[np.float64]

SQRT_2_PI = np.sqrt(2 / np.pi)

FORMULAS: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "relu": (lambda z: np.where(z > 0, z, 0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "sigmoid": (special.expit, lambda z: special.expit(z) * special.expit(-z)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1.0, 0.01)),
    "elu": (
        lambda z: np.where(z > 0, z, special.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 1.0, np.exp(np.minimum(z, 0))),
    ),
    "softplus": (lambda z: np.logaddexp(0, z), special.expit),
    "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: 1 / (1 + np.abs(z)) ** 2),
    "gelu": (
        lambda z: 0.5 * z * (1 + np.tanh(SQRT_2_PI * (z + 0.044715 * z**3))),
        lambda z: (
            0.5 * (1 + np.tanh(SQRT_2_PI * (z + 0.044715 * z**3)))
            + z / (2 * np.cosh(SQRT_2_PI * (z + 0.044715 * z**3)) ** 2) * SQRT_2_PI * (1 + 3 * 0.044715 * z**2)
        ),
    ),
    "silu": (
        lambda z: z * special.expit(z),
        lambda z: special.expit(z) + z * special.expit(z) * special.expit(-z),
    ),
}
"""Value and slope, each a function of the input, by other formulas than those of the package."""


def value_and_slope(backend: Backend, kind: Activation, z: Floats) -> tuple[Any, Any]:
    """As two layers of a network get them from the ops: by a product with 1, a bias of 0 and an error of 1."""
    one, zero = backend.asarray(np.ones((1, 1))), backend.asarray(np.zeros(1))
    output, slope_input = backend.dense(backend.asarray(z[:, None]), one, zero, kind)
    slope = backend.hidden_delta(backend.asarray(np.ones((len(z), 1))), one, slope_input, kind)
    return backend.to_numpy(output)[:, 0], backend.to_numpy(slope)[:, 0]


def test_every_built_in_activation_has_a_formula_here() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS) == set(BUILT_IN)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_slopes_are_those_of_the_formulas(backend64: Backend, name: str) -> None:
    z = np.concatenate([np.linspace(-12, 12, 241) + 1e-3, [-1e-9, 1e-9]])
    value, slope = value_and_slope(backend64, find_activation(name), z)
    of_value, of_slope = FORMULAS[name]
    np.testing.assert_allclose(value, of_value(z), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(slope, of_slope(z), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_slope_is_the_limit_of_differences(backend64: Backend, name: str) -> None:
    z = np.linspace(-5, 5, 50) + 1e-3
    step = 1e-5
    above, below = (value_and_slope(backend64, find_activation(name), z + sign * step)[0] for sign in (1, -1))
    _, slope = value_and_slope(backend64, find_activation(name), z)
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_far_out_values_and_slopes_stay_finite(backend: Backend, name: str) -> None:
    far = [1e2, 1e4, 1e10, 1e19, float(np.finfo(backend.dtype).max) / 4]
    z = np.array([*far, *(-x for x in far)]).astype(backend.dtype).astype(np.float64)
    with np.errstate(all="ignore"):
        value, slope = value_and_slope(backend, find_activation(name), z)
    ends: dict[str, tuple[float, float | None]] = {"tanh": (-1, 1), "sigmoid": (0, 1), "softsign": (-1, 1), "elu": (-1, None)}
    low, high = ends.get(name, (0, None))
    if name == "leaky_relu":
        np.testing.assert_allclose(value[5:], 0.01 * z[5:], rtol=1e-6)
    else:
        np.testing.assert_allclose(value[5:], low, atol=0.01)
    np.testing.assert_allclose(value[:5], z[:5] if high is None else high, rtol=0.01)
    np.testing.assert_allclose(slope[:5], 1.0 if high is None else 0.0, atol=1e-3)
    np.testing.assert_allclose(slope[5:], 0.01 if name == "leaky_relu" else 0.0, atol=1e-3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays_nan(backend: Backend, name: str) -> None:
    with np.errstate(all="ignore"):
        value, _ = value_and_slope(backend, find_activation(name), np.array([np.nan, 0.5]))
    assert np.isnan(value[0])
    assert np.isfinite(value[1])


@pytest.mark.parametrize(
    ("name", "of_value", "of_slope"),
    [
        ("softplus", np.exp, np.exp),
        ("sigmoid", np.exp, np.exp),
        ("silu", lambda z: z * np.exp(z), lambda z: (1 + z) * np.exp(z)),
    ],
)
def test_small_results_are_accurate_in_float32(backend32: Backend, name: str, of_value: Any, of_slope: Any) -> None:
    z = np.array([-20.0, -40.0, -60.0])
    value, slope = value_and_slope(backend32, find_activation(name), z)
    np.testing.assert_allclose(value, of_value(z), rtol=1e-5)
    np.testing.assert_allclose(slope, of_slope(z), rtol=1e-5)


def test_small_results_of_gelu_are_accurate_in_float32(backend32: Backend) -> None:
    z = np.array([-1.0, -3.0, -5.0]).astype(np.float32).astype(np.float64)
    value, slope = value_and_slope(backend32, find_activation("gelu"), z)
    s = special.expit(2 * SQRT_2_PI * (z + 0.044715 * z**3))
    np.testing.assert_allclose(value, z * s, rtol=1e-4)
    np.testing.assert_allclose(slope, s + z * s * (1 - s) * 2 * SQRT_2_PI * (1 + 3 * 0.044715 * z**2), rtol=1e-4)


@pytest.mark.parametrize("name", ["tanh", "elu", "softsign", "silu", "gelu"])
def test_results_of_small_inputs_are_accurate_in_float32(backend32: Backend, name: str) -> None:
    z = np.array([1e-3, -1e-3, 1e-8, -1e-8, 1e-30, -1e-30]).astype(np.float32).astype(np.float64)
    value, slope = value_and_slope(backend32, find_activation(name), z)
    of_value, of_slope = FORMULAS[name]
    np.testing.assert_allclose(value, of_value(z), rtol=1e-6)
    np.testing.assert_allclose(slope, of_slope(z), rtol=1e-6)


def test_the_activation_itself_can_be_called_with_numbers_and_arrays() -> None:
    z = np.linspace(-3, 3, 7)
    for name, kind in BUILT_IN.items():
        np.testing.assert_allclose(kind(z), FORMULAS[name][0](z), rtol=1e-12, atol=1e-15)
        assert kind(0.5) == pytest.approx(FORMULAS[name][0](np.array(0.5)))
        assert str(kind) == name


# An activation of the user's own ----------------------------------------------------------------------------------------------


def _mish_slope(z: Any) -> Any:
    t = tanh(largest(z, 0.0) + log1p(exp(-abs(z))))
    s = where(z >= 0, 1.0, exp(-abs(z))) / (1.0 + exp(-abs(z)))
    return t + z * s * (1.0 - t * t)


@activation(slope=_mish_slope, of_input=True)
def mish(z: Any) -> Any:
    """``z * tanh(softplus(z))`` (Misra, 2019)."""
    return z * tanh(largest(z, 0.0) + log1p(exp(-abs(z))))


@activation(slope=lambda a: where(a > 0, 1.0, 0.25))
def quarter(z: Any) -> Any:
    """A leaky relu, with its slope a function of the output."""
    return where(z > 0, z, 0.25 * z)


def identity(z: Any) -> Any:
    """The input."""
    return z


@pytest.mark.parametrize("kind", [mish, quarter, Activation(identity, lambda a: 1.0)], ids=str)
def test_an_activation_of_the_users_own_trains_and_is_evaluated_on_every_backend(backend64: Backend, kind: Activation) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = rng.normal(size=(60, 5)) + 3 * np.eye(3, 5)[y]
    before = evaluate(backend64, init_params([5, 6, 4, 3]), x, y, activation=kind)
    history = mini_batch_sgd(
        x, y, init_params([5, 6, 4, 3]), activation=kind, backend=backend64, epochs=15, batch_size=8, learning_rate=0.1
    )
    assert evaluate(backend64, history.params, x, y, activation=kind)[0] < 0.5 * before[0]


@pytest.mark.parametrize("kind", [mish, Activation(identity, lambda z: 1.0, of_input=True)], ids=str)
def test_forward_and_backward_know_a_slope_of_the_input(backend64: Backend, kind: Activation) -> None:
    rng = np.random.default_rng(1)
    params, x, y = init_params([4, 5, 4, 3], seed=2), rng.normal(size=(7, 4)), rng.integers(0, 3, 7)
    device = to_backend(backend64, params)
    outputs, y_hat = forward(backend64, device, backend64.asarray(x), kind)
    grads = backward(backend64, device, outputs, y_hat, backend64.asarray(y), activation=kind)
    a = [x]
    for w, b in params[:-1]:
        a.append(np.asarray(kind(a[-1] @ w + b)))
    logits = a[-1] @ params[-1][0] + params[-1][1]
    np.testing.assert_allclose(backend64.to_numpy(outputs[-1]), logits, rtol=1e-10, atol=1e-12)
    delta = (special.softmax(logits, axis=1) - np.eye(3)[y]) / 7
    for layer in (2, 1, 0):
        np.testing.assert_allclose(backend64.to_numpy(grads[layer][0]), a[layer].T @ delta, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(backend64.to_numpy(grads[layer][1]), delta.sum(axis=0), rtol=1e-9, atol=1e-12)
        if layer:
            z = a[layer - 1] @ params[layer - 1][0] + params[layer - 1][1]
            delta = (delta @ params[layer][0].T) * np.asarray(kind.slope(z))


def test_a_wrong_slope_is_refused_with_the_place() -> None:
    with pytest.raises(
        SettingError, match=r"the slope of the activation 'identity', a function of its output, is wrong: at the input"
    ):
        Activation(identity, lambda a: 1.01)
    with pytest.raises(
        SettingError, match=r"'cube', a function of its input, .* at the input -6\.000 it is 72, differences .* 108"
    ):
        Activation(lambda z: z**3, lambda z: 2.0 * z * z, of_input=True, name="cube")
    with pytest.raises(SettingError, match=r"at the input .* it is nan"):
        Activation(identity, lambda a: (a - a) / (a - a))


def test_a_slope_of_the_output_that_is_one_of_the_input_is_refused() -> None:
    with pytest.raises(SettingError, match="a function of its output, is wrong"):
        Activation(BUILT_IN["silu"].function, BUILT_IN["silu"].slope)


def test_a_slope_that_is_wrong_on_one_side_alone_is_refused() -> None:
    with pytest.raises(SettingError, match="is wrong: at the input 0"):
        Activation(lambda z: where(z > 0, z, 0.2 * z), lambda a: where(a > 0, 0.9, 0.2), name="prelu")


def test_a_division_by_zero_is_refused_by_the_name_of_the_function() -> None:
    def endless(z: Any) -> Any:
        return z * (1.0 / 0.0)

    with pytest.raises(RecordingError, match=r"^endless cannot be recorded: .*division by zero"):
        Activation(endless, lambda a: 1.0)


def test_what_cannot_be_recorded_is_refused_when_the_activation_is_made() -> None:
    with pytest.raises(RecordingError, match=r"np\.tanh cannot be recorded; use tanh"):
        Activation(lambda z: np.tanh(z), lambda a: 1.0 - a * a)
    with pytest.raises(RecordingError, match="an if"):
        Activation(identity, lambda a: 1.0 if a > 0 else 0.0)
    with pytest.raises(SettingError, match="'identity' and its slope must each return one number"):
        Activation(identity, lambda a: (a, a))


@pytest.mark.parametrize("value", ["swish", "TANH", "", None, np.tanh, 3])
def test_an_unknown_activation_is_an_error_with_the_choices(value: Any) -> None:
    with pytest.raises(
        SettingError, match=r"unknown activation .*; choose one of tanh, relu, sigmoid, .*silu, or give an Activation"
    ):
        find_activation(value)
