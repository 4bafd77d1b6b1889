"""NumPy code that works in place against the same record evaluated in fresh memory."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_accel import elementwise as e
from mlp_accel.backends.numpy.elementwise import numpy_function, numpy_source
from mlp_accel.optimizers import OPTIMIZERS, Optimizer
from mlp_accel.recording import Record, record, scalar_values

SCALARS = {"u": 0.75, "v": -1.5}
UNARY: tuple[Callable[[Any], Any], ...] = (
    lambda a: -a,
    abs,
    lambda a: e.exp(-abs(a)),
    lambda a: e.expm1(-abs(a)),
    lambda a: e.log1p(abs(a)),
    e.tanh,
    lambda a: e.sqrt(abs(a)),
    lambda a: a**3,
    e.sign,
)
BINARY: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / (abs(b) + 0.5),
    e.maximum,
    e.minimum,
    lambda a, b: e.where(a > b, 1.0, 0.0) * a,  # a condition as a factor, which the printer treats in its own way
    lambda a, b: e.where(a > b, 1.0, 0.0) * e.where(a > b, 2.0, b),
    lambda a, b: e.where(a <= 0.25, b, 1.0),
    lambda a, b: e.where(a >= b, 1.0, 0.0) - b,
)
TERNARY: tuple[Callable[[Any, Any, Any], Any], ...] = (
    lambda a, b, c: e.where(a < b, c, a),
    lambda a, b, c: e.where((a < b) & (c > 0.1), a, c),
    lambda a, b, c: e.where((a <= b) | (b >= c), b, 0.0),
    lambda a, b, c: e.where(a < b, b, b) * c,
)


def memory(shape: tuple[int, ...], dtype: Any = np.float64) -> npt.NDArray[Any]:
    """New memory, in which whatever is read before it is written shows."""
    return np.full(shape, np.nan) if dtype is not bool else np.ones(shape, bool)


def check(found: Record, targets: tuple[str | None, ...], spare: tuple[str, ...], seed: int = 0) -> None:
    """Call the printed function, and compare its results and all that it must leave alone with `Record.__call__`."""
    rng = np.random.default_rng(seed)
    arguments = [rng.normal(size=(3, 4)) for _ in found.elements]
    row = scalar_values(found.scalars, dict(SCALARS))[0].tolist()
    before = [a.copy() for a in arguments]
    expected = [np.array(a) for a in found(np, before, row)]
    source = numpy_source(found, targets, spare)
    results = numpy_function(found, targets, spare)(*arguments, *row, memory)
    assert len(results) == len(expected)
    for result, value, target in zip(results, expected, targets, strict=True):
        assert isinstance(result, np.ndarray), source
        np.testing.assert_allclose(result, value, rtol=1e-12, atol=1e-14, err_msg=source)
        if target is not None:
            assert result is arguments[found.elements.index(target)], source
        else:  # memory of its own, or what the caller said that nobody needs
            kept = [a for name, a in zip(found.elements, arguments, strict=True) if name not in spare]
            assert not any(np.shares_memory(result, a) for a in kept), source
    for i, result in enumerate(results):
        assert not any(np.shares_memory(result, other) for other in results[:i]), source
    for name, argument, copy in zip(found.elements, arguments, before, strict=True):
        if name not in targets and name not in spare:
            np.testing.assert_array_equal(argument, copy, err_msg=source)


Tree = tuple[Any, ...]


@st.composite
def programs(draw: st.DrawFn) -> tuple[int, list[Tree], list[int]]:
    """Number of arguments, steps that use what was there before them, and which values are the results."""
    n_arguments = draw(st.integers(1, 4))
    n_steps = draw(st.integers(0, 7))
    steps: list[Tree] = []
    for at in range(n_steps):
        kinds = (UNARY, BINARY, TERNARY)
        arity = draw(st.sampled_from([0, 1, 1, 2]))
        function = draw(st.integers(0, len(kinds[arity]) - 1))
        places = [draw(st.integers(-4, n_arguments + at - 1)) for _ in range(arity + 1)]
        steps.append((arity, function, *places))
    results = draw(st.lists(st.integers(-4, n_arguments + n_steps - 1), min_size=1, max_size=4))
    return n_arguments, steps, results


def recorded(program: tuple[int, list[Tree], list[int]]) -> Record:
    """Places below 0 are two constants and two scalars."""
    n_arguments, steps, results = program

    def function(*values: Any) -> tuple[Any, ...]:
        known, (u, v) = list(values[:n_arguments]), values[n_arguments:]
        others = (1.0, -0.5, u, v)

        def value(place: int) -> Any:
            return known[place] if place >= 0 else others[place]

        for arity, number, *places in steps:
            kinds: tuple[tuple[Callable[..., Any], ...], ...] = (UNARY, BINARY, TERNARY)
            known.append(kinds[arity][number](*map(value, places)))
        return tuple(map(value, results))

    return record(function, n_arguments, list(SCALARS))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(programs(), st.data())
def test_any_expression_in_place_is_what_it_is_in_fresh_memory(
    program: tuple[int, list[Tree], list[int]], data: st.DataObject
) -> None:
    found = recorded(program)
    free = list(found.elements)
    targets: list[str | None] = []
    for _ in found.results:
        target = data.draw(st.sampled_from([None, *free]))
        targets.append(target)
        if target is not None:
            free.remove(target)
    spare = data.draw(st.lists(st.sampled_from(found.elements), unique=True, max_size=len(found.elements)))
    check(found, tuple(targets), tuple(spare), seed=len(program[1]))


def all_ways(n_elements: int, n_results: int) -> list[tuple[tuple[str | None, ...], tuple[str, ...]]]:
    """Every choice of targets with every choice of spare arguments."""
    names = [f"a{i}" for i in range(n_elements)]
    targets = sorted(set(permutations([*names, *[None] * n_results], n_results)), key=str)
    spares = [tuple(n for i, n in enumerate(names) if number >> i & 1) for number in range(2**n_elements)]
    return [(target, spare) for target in targets for spare in spares]


def _factor_outlives_condition(a: Any, b: Any) -> Any:
    factor, y = e.where(a > b, 1.0, 0.0), e.where(a > b, b, a + 1.0)
    return factor * e.where(b > y - 1.0, y, 2.0) + y


def _condition_outlives_factor(a: Any, b: Any) -> Any:
    y = e.where(a > b, 1.0, 0.0) * a
    return e.where(a > b, e.where(b > y, y, 2.0), b)


SMALL: dict[str, Callable[..., Any]] = {
    "swapped": lambda a, b: (b, a),
    "rotated": lambda a, b, c: (b, c, a),
    "an argument": lambda a, b: (a, a + b),
    "an argument that another result goes to": lambda a, b: (a + b, a),
    "the same argument twice": lambda a, b: (a, a),
    "the same value twice": lambda a, b: (a + b, a + b),
    "the same value three times": lambda a, b, c: (a * c, a * c, a * c),
    "constants": lambda a, b: (1.0, 2.0),
    "a constant and an argument": lambda a, b: (0.5, a),
    "swapped after use": lambda a, b: (b - a, a - b),
    "a chain": lambda a, b: (a + b, e.tanh(a + b) * b),
    "where over its own branches": lambda a, b: (e.where(a > b, a, b), e.where(a > b, b, a)),
    "where over its condition": lambda a, b: e.where(a > 0, b, 1.0) + a,
    "a condition used three times": lambda a, b: (e.where(a > b, 1.0, 0.0) * a, e.where(a > b, a, 0.0) * b),
    "a condition as a factor and as a result": lambda a, b: (e.where(a > b, 1.0, 0.0), e.where(a > b, 1.0, 0.0) * b),
    "a factor that is needed longer than its condition": _factor_outlives_condition,
    "a condition that is needed longer than its factor": _condition_outlives_factor,
    "the square of a condition": lambda a, b: e.where(a > b, 1.0, 0.0) * e.where(a > b, 1.0, 0.0),
    "two conditions": lambda a, b: e.where(a > 0, 1.0, 0.0) * e.where(b > 0, 1.0, 0.0),
    "an argument that nobody uses": lambda a, b: a * 2.0,
    "adam": lambda p, g, m, v: (p - (m + g) / (e.sqrt(v * v + g * g) + 1e-8), m + g, v * v + g * g),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_choice_of_targets_and_spare_arguments_gives_the_same(name: str) -> None:
    function = SMALL[name]
    found = record(function, function.__code__.co_argcount)
    for targets, spare in all_ways(len(found.elements), len(found.results)):
        check(found, targets, spare)


@pytest.mark.parametrize("targets", [(None, None, None), ("a0", None, "a1"), (None, "a1", "a0")])
def test_a_result_that_is_a_scalar_fills_an_array(targets: tuple[str | None, ...]) -> None:
    check(record(lambda a, b, u, v: (u, u * v, a), 2, ["u", "v"]), targets, ())


def test_a_condition_on_scalars_chooses_for_all_elements() -> None:
    for found in (record(lambda a, b, u, v: e.where(u > v, a, b) - e.where(u < v, a, 1.0), 2, ["u", "v"]),):
        for targets, spare in all_ways(2, 1):
            check(found, targets, spare)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_have_the_dtype_of_the_memory(dtype: str) -> None:
    def empty(shape: tuple[int, ...], kind: Any = None) -> Any:
        return np.empty(shape, kind or dtype)

    a = np.array([-1.0, 0.5, np.nan], dtype)
    function = numpy_function(
        record(lambda a, rate: (e.where(a > 0, 1.0, 0.0) * 3.0 * rate, rate, a * rate), 1, ["rate"]), (None,) * 3
    )
    results = function(a, 0.1, empty)
    assert [result.dtype for result in results] == [np.dtype(dtype)] * 3
    np.testing.assert_allclose(results[0], np.array([0.0, 3.0, 0.0]) * 0.1, rtol=1e-6)


def test_an_update_rule_in_place_takes_few_new_arrays() -> None:
    new_arrays = {"sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2, "adamw": 3}
    for name, optimizer in OPTIMIZERS.items():
        found = Optimizer.record_for([optimizer]).record
        parameter, grad, *slots = found.elements
        assert numpy_source(found, (parameter, *slots), (grad,)).count("= empty(") <= new_arrays[name], name
