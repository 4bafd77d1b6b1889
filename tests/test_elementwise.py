"""Functions that are recorded: what is written down, what is refused, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlp_accel import elementwise as e
from mlp_accel.errors import RecordingError
from mlp_accel.recording import record, scalar_values


def evaluate(function: Callable[..., Any], *elements: Any, **scalars: float) -> tuple[Any, ...]:
    """What a recorded function comes to on NumPy arrays."""
    found = record(function, len(elements), list(scalars))
    (row,) = scalar_values(found.scalars, dict(scalars))
    return found(np, [np.asarray(a, np.float64) for a in elements], list(row))


def test_a_function_becomes_a_list_of_assignments() -> None:
    found = record(lambda a, b: e.exp(a) * b + 2.0, 2)
    lines = [(line.name, line.op, line.operands) for line in found.assignments]
    assert lines == [("t0", "exp", ("a0",)), ("t1", "*", ("t0", "a1")), ("t2", "+", ("t1", 2.0))]
    assert (found.elements, found.results, found.scalars) == (("a0", "a1"), ("t2",), ())


def test_a_subexpression_is_computed_once_however_it_is_written() -> None:
    def twice(z: Any) -> Any:
        return e.exp(-abs(z)) / (1.0 + e.exp(-abs(z))) + e.exp(-abs(z))

    assert [line.op for line in record(twice, 1).assignments] == ["abs", "negative", "exp", "+", "/", "+"]


def test_what_is_the_same_for_all_elements_is_computed_on_the_host_in_float64() -> None:
    found = record(lambda p, rate, step: p * (rate / (1.0 - 0.9**step)), 1, ["rate", "step"])
    assert [line.op for line in found.assignments] == ["*"]
    assert found.scalar_names == ("u0",)
    steps = np.arange(1, 5)
    table = scalar_values(found.scalars, {"rate": np.float32(0.1), "step": steps})
    assert table.dtype == np.float64
    np.testing.assert_allclose(table[:, 0], float(np.float32(0.1)) / (1 - 0.9**steps), rtol=1e-15)


def test_a_scalar_that_is_used_twice_is_computed_once() -> None:
    found = record(lambda p, q, rate: (p * (2.0 * rate), q * (2.0 * rate) + rate), 2, ["rate"])
    assert len(found.scalars) == 2
    np.testing.assert_array_equal(scalar_values(found.scalars, {"rate": 3.0}), [[6.0, 3.0]])


def doubled(value: Any, times: int) -> Any:
    """Each sum is used twice, so there are ``2 ** times`` ways from the result to `value`."""
    for _ in range(times):
        value = value + value
    return value


def test_values_that_are_used_twice_again_and_again_take_no_longer() -> None:
    (result,) = evaluate(lambda p, rate: doubled(p, 60) * doubled(rate, 60), [1.0], rate=3.0)
    assert result == 3.0 * 2.0**120


def test_conditions_and_functions_of_scalars_may_be_anything_that_numpy_knows() -> None:
    def rule(p: Any, step: Any) -> Any:
        return e.where(step > 2, p * e.where(step <= 3, e.sqrt(step), 1.0), 0.0)

    for step in (1.0, 2.0, 3.0, 4.0):
        expected = 0.0 if step <= 2 else 5.0 * (math.sqrt(step) if step <= 3 else 1.0)
        np.testing.assert_allclose(evaluate(rule, [5.0, 5.0], step=step)[0], expected)


@pytest.mark.parametrize(
    ("function", "n_assignments"),
    [
        (lambda z: 2.0 * math.pi * z, 1),
        (lambda z: z + 0.0 * z, 0),
        (lambda z: 1.0 * z / 1.0 - 0.0, 0),
        (lambda z: 0.0 - z, 1),
        (lambda z: 0.0 / z, 0),
        (lambda z: e.exp(0.0) * z, 0),
        (lambda z: e.where(2.0 > 1.0, z, e.exp(z)), 0),
    ],
)
def test_constants_are_folded_and_what_does_nothing_is_left_out(function: Any, n_assignments: int) -> None:
    assert len(record(function, 1).assignments) == n_assignments
    z = np.array([-2.0, 0.5])
    np.testing.assert_allclose(evaluate(function, z)[0], function(z))


def test_a_small_whole_power_is_made_of_products() -> None:
    assert [line.op for line in record(lambda z: z**3, 1).assignments] == ["*", "*"]
    np.testing.assert_allclose(evaluate(lambda z: z**5, [-2.0, 3.0])[0], [-32.0, 243.0])


def test_numbers_of_numpy_are_numbers() -> None:
    def function(z: Any) -> Any:
        scale = np.sqrt(np.float64(2.0))
        return (scale * z + np.float32(1.0)) / np.float64(2.0) - np.float64(3.0) / (np.int64(2) + z)

    z = np.array([0.5, -1.0])
    np.testing.assert_allclose(evaluate(function, z)[0], function(z), rtol=1e-15)
    compared = evaluate(lambda z: e.where(np.float64(0.0) < z, np.float64(1.0), z), z)
    np.testing.assert_array_equal(compared[0], [1.0, -1.0])


def _branch(z: Any) -> Any:
    return z if z > 0 else 0.0


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "if": (_branch, "an if, and, or, min or max"),
    "and": (lambda z: e.where(z > 0 and z < 1, z, 0.0), "an if, and, or"),
    "chained comparison": (lambda z: e.where(0 < z < 1, z, 0.0), "an if, and, or"),
    "not": (lambda z: e.where(not z > 0, z, 0.0), "an if, and, or"),
    "min": (lambda z: min(z, 1.0), "maximum"),
    "max": (lambda z: max(0.0, z), "maximum"),
    "==": (lambda z: e.where(z == 0, 1.0, z), "== and != cannot be recorded"),
    "!=": (lambda z: e.where(z != 0, 1.0, z), "== and != cannot be recorded"),
    "float": (lambda z: float(z) * 2, "cannot be made a number"),
    "int": (lambda z: int(z) * 2, "cannot be made a number"),
    "math.tanh": (lambda z: math.tanh(z), "cannot be made a number"),
    "np.tanh": (lambda z: np.tanh(z), r"np\.tanh cannot be recorded; use tanh of mlp_accel\.elementwise"),
    "np.sin": (lambda z: np.sin(z), r"np\.sin cannot be recorded; use exp, tanh, where and the like"),
    "np.where": (lambda z: np.where(z > 0, z, 0.0), "an if, and, or"),
    "np.add.reduce": (lambda z: np.add.reduce(z), r"np\.add cannot be recorded"),
    "array": (lambda z: z * np.ones(3), "of type ndarray cannot be recorded"),
    "list": (lambda z: e.exp(z) + e.maximum(z, [1.0]), "of type list cannot be recorded"),
    "string": (lambda z: z + "1", "of type str cannot be recorded"),
    "fractional power": (lambda z: z**0.5, "a whole number from 1 to 8"),
    "negative power": (lambda z: z**-1, "a whole number from 1 to 8"),
    "power of a constant": (lambda z: 2.0**z, "a whole number from 1 to 8"),
    "modulo": (lambda z: z % 2, "use the functions of mlp_accel.elementwise"),
    "round": (lambda z: round(z), "use the functions of mlp_accel.elementwise"),
    "too few arguments": (lambda: 1.0, "cannot be recorded"),
    "infinity": (lambda z: e.minimum(z, math.inf), "the constant inf has no form that every target knows"),
    "not a number": (lambda z: (z, math.nan), "the constant nan"),
    "condition as a number": (lambda z: (z > 0) * z, r"where\(condition, 1\.0, 0\.0\)"),
    "function of a condition": (lambda z: e.exp(z > 0), r"where\(condition, 1\.0, 0\.0\)"),
    "number as a condition": (lambda z: e.where(z, 1.0, 0.0), "the condition of where must be a comparison"),
    "and of numbers": (lambda z: e.where(z & (z > 0), 1.0, 0.0), "& and | take conditions"),
    "branch that is a condition": (lambda z: e.where(z > 0, z > 1, 0.0), "& and | take conditions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_recorded_is_an_error_that_says_what_to_write(name: str) -> None:
    function, message = REFUSED[name]
    with pytest.raises(RecordingError, match=message):
        record(function, 1)


@pytest.mark.parametrize("result", [None, "1", [1.0], {}, (1.0, None), ((1.0,),), np.zeros(2), abs])
def test_a_function_that_returns_no_numbers_is_refused(result: Any) -> None:
    with pytest.raises(RecordingError, match="must return a number, or a tuple of them; it returns"):
        record(lambda z: result, 1)


def test_a_function_that_returns_a_condition_is_refused_by_name() -> None:
    def positive(z: Any) -> Any:
        return z > 0

    with pytest.raises(RecordingError, match="positive must return a number"):
        record(positive, 1)


def test_errors_of_the_function_itself_come_through() -> None:
    with pytest.raises(KeyError):
        record(lambda z: z * dict[str, float]()["scale"], 1)


@pytest.mark.parametrize("constant", [lambda: 1.0 / 0.0, lambda: 1 // 0, lambda: 0.0**-1, lambda: 10.0**400])
def test_arithmetic_on_constants_that_fails_is_an_error_that_names_the_function(constant: Callable[[], float]) -> None:
    def careless(z: Any) -> Any:
        return z * constant()

    with pytest.raises(RecordingError, match=r"^careless cannot be recorded: computing with its constants, .* fails \("):
        record(careless, 1)


def test_conditions_are_joined_by_and_and_or() -> None:
    z = np.array([-2.0, -0.5, 0.5, 2.0])
    inside, outside = evaluate(lambda z: (e.where((z > -1) & (z <= 1), 1.0, 0.0), e.where((z < -1) | (z >= 1), z, 0.0)), z)
    np.testing.assert_array_equal(inside, [0, 1, 1, 0])
    np.testing.assert_array_equal(outside, [-2, 0, 0, 2])


def test_a_condition_on_constants_is_decided_while_it_is_recorded() -> None:
    z = np.array([-1.0, 2.0])
    one, other = 1.0, 2.0
    for function, expected in (
        (lambda z: e.where((z > 0) & (one < other), z, 0.0), [0.0, 2.0]),
        (lambda z: e.where((one > other) & (z > 0), z, 0.0), [0.0, 0.0]),
        (lambda z: e.where((one > other) | (z > 0), z, 0.0), [0.0, 2.0]),
        (lambda z: e.where((z > 0) | np.bool(True), z, 0.0), [-1.0, 2.0]),
    ):
        np.testing.assert_array_equal(evaluate(function, z)[0], expected)


def test_nan_goes_through_maximum_and_minimum_and_sign() -> None:
    nan = np.array([np.nan, 1.0])
    functions: list[Callable[..., Any]] = [
        lambda z: e.maximum(z, 0.0),
        lambda z: e.maximum(0.0, z),
        lambda z: e.minimum(z, 0.0),
        lambda z: e.minimum(0.0, z),
        e.sign,
    ]
    for function in functions:
        for result in (function(nan), evaluate(function, nan)[0], function(np.nan)):
            assert np.isnan(np.atleast_1d(result)[0])
            assert not np.isnan(np.atleast_1d(result)[1:]).any()


def test_the_functions_take_numbers_and_arrays_as_numpy_does() -> None:
    z = np.array([-1.5, 0.25, 3.0])
    for name in ("exp", "expm1", "tanh", "log", "log1p", "sqrt"):
        np.testing.assert_array_equal(getattr(e, name)(abs(z)), getattr(np, name)(abs(z)))
        np.testing.assert_allclose(evaluate(getattr(e, name), abs(z))[0], getattr(np, name)(abs(z)), rtol=1e-15)
    np.testing.assert_array_equal(e.where(z > 0, z, 0.0), [0.0, 0.25, 3.0])
    np.testing.assert_array_equal(e.sign(z), [-1, 1, 1])
    assert e.maximum(1.0, 2.0) == 2.0


def everything(a: Any, b: Any, rate: Any, step: Any) -> Any:
    """Uses every operation that can be recorded."""
    c = abs(a) + 0.5
    d = e.where((a > b) & (b <= rate) | (c < 0.7), e.maximum(a, 0.1), e.minimum(b, c))
    f = e.exp(-c) + e.expm1(a / c) * e.log(c) - e.log1p(c) + e.tanh(b) ** 2 + e.sqrt(c) / 2
    g = e.where(step >= 2, f, 3.0) + e.where(rate > 0.5, 1.0, b) + e.sign(a)
    return d, -f * rate, g + e.sqrt(rate), 4.0, rate, b


def by_hand(a: Any, b: Any, rate: float, step: float) -> list[Any]:
    """The same, written with NumPy."""
    c = np.abs(a) + 0.5
    d = np.where(((a > b) & (b <= rate)) | (c < 0.7), np.maximum(a, 0.1), np.minimum(b, c))
    f = np.exp(-c) + np.expm1(a / c) * np.log(c) - np.log1p(c) + np.tanh(b) ** 2 + np.sqrt(c) / 2
    g = (f if step >= 2 else 3.0) + (1.0 if rate > 0.5 else b) + np.sign(a)
    return [d, -f * rate, g + np.sqrt(rate), np.full_like(a, 4.0), np.full_like(a, rate), b]


@pytest.fixture(params=["numpy", "array_api_strict"])
def xp(request: pytest.FixtureRequest) -> Any:
    """An array module of the standard."""
    return pytest.importorskip(request.param)


@pytest.mark.parametrize("step", [1.0, 2.0])
@pytest.mark.parametrize("rate", [0.25, 0.75])
@pytest.mark.parametrize("as_array", [False, True], ids=["numbers", "0-d arrays"])
def test_a_record_is_evaluated_with_any_array_module_of_the_standard(xp: Any, as_array: bool, rate: float, step: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4))
    found = record(everything, 2, ["rate", "step"])
    (row,) = scalar_values(found.scalars, {"rate": rate, "step": step}).tolist()
    scalars = [xp.asarray(value, dtype=xp.float64) for value in row] if as_array else row
    results = found(xp, [xp.asarray(a), xp.asarray(b)], scalars)
    for ours, theirs in zip(results, by_hand(a, b, rate, step), strict=True):
        assert isinstance(ours, type(xp.asarray(a)))
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-14)


def test_the_dtype_of_the_elements_is_kept(xp: Any) -> None:
    found = record(everything, 2, ["rate", "step"])
    (row,) = scalar_values(found.scalars, {"rate": 0.25, "step": 2.0}).tolist()
    elements = [xp.asarray([0.5, -1.0], dtype=xp.float32), xp.asarray([1.5, 2.0], dtype=xp.float32)]
    for result in found(xp, elements, row):
        assert result.dtype == xp.float32
        assert result.shape == (2,)


def test_a_record_called_with_the_wrong_number_of_arguments_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        record(lambda a, b: a + b, 2)(np, [np.zeros(2)])
