"""Elementwise functions, written once in plain Python and lowered to every target.

A function is recorded as a list of assignments, each subexpression once, which is then evaluated with any array module or printed
as source for NumPy, Numba or CUDA C. The numbers of a step that are the same for all elements (the learning rate,
``1 - beta2**step``) are its *scalars*; they are computed on the host, once a step and in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlp_accel.elementwise import COMPARISONS, FUNCTIONS, LOGICAL, PYTHON, Symbol
from mlp_accel.errors import RecordingError

Operand: TypeAlias = str | float
"""A name or a constant."""


@dataclass(frozen=True)
class Assignment:
    """``name = op(operands)``."""

    name: str
    op: str
    operands: tuple[Operand, ...]

    @property
    def boolean(self) -> bool:
        """Whether it is a condition."""
        return self.op in (*COMPARISONS, *LOGICAL)


@dataclass(frozen=True, eq=False)
class Record:
    """What a function computes, as a list of assignments.

    Attributes
    ----------
    elements : tuple of str
        Names of the arguments that differ from element to element: ``a0``, ``a1``, ….
    assignments : tuple of Assignment
        In order; each assigns a name of its own, ``t0``, ``t1``, ….
    results : tuple of str or float
        What the function returns: names, or constants.
    scalars : tuple of Symbol
        The scalars that it needs, called ``u0``, ``u1``, … in the assignments; `scalar_values` computes them.
    """

    elements: tuple[str, ...]
    assignments: tuple[Assignment, ...]
    results: tuple[Operand, ...]
    scalars: tuple[Symbol, ...]

    @property
    def scalar_names(self) -> tuple[str, ...]:
        """Names of the scalars in the assignments."""
        return tuple(f"u{i}" for i in range(len(self.scalars)))

    def __call__(self, xp: Any, elements: Sequence[Any], scalars: Sequence[Any] = ()) -> tuple[Any, ...]:
        """Evaluate it with the array module `xp` (a Python array API standard one): one array for each result.

        `elements` are arrays of one shape and dtype, `scalars` numbers or 0-d arrays of that dtype.
        """
        like = elements[0]
        known: dict[Operand, Any] = dict(zip((*self.elements, *self.scalar_names), (*elements, *scalars), strict=True))

        def array(operand: Operand) -> Any:
            """The operand as an array: unlike operators, the standard's functions do not take numbers."""
            value = known.get(operand, operand)
            if isinstance(value, float | int):
                return xp.full_like(like, value)
            return value if value.ndim else xp.zeros_like(like) + value

        for line in self.assignments:
            if line.op in FUNCTIONS:
                value = getattr(xp, line.op)(*map(array, line.operands))
            elif line.op in LOGICAL:
                value = (xp.logical_and if line.op == "&" else xp.logical_or)(*map(array, line.operands))
            elif line.op in COMPARISONS:  # a comparison of scalars, too, must be a condition for each element
                value = PYTHON[line.op](*map(array, line.operands))
            else:
                value = PYTHON[line.op](*(known.get(operand, operand) for operand in line.operands))
            known[line.name] = value
        return tuple(array(result) for result in self.results)


def record(function: Callable[..., Any], elements: int, scalars: Sequence[Any] = ()) -> Record:
    """Record what `function` does with that many elements, followed by scalars.

    Parameters
    ----------
    function : callable
        Of numbers; returns a number or a tuple of them.
    elements : int
        How many of its first arguments differ from element to element.
    scalars : sequence of str or float
        The other arguments, which are the same for all elements: for each its value or, if that is not known yet, a name.

    Raises
    ------
    RecordingError
        If the function does what cannot be recorded, or returns something else.
    """
    name = getattr(function, "__name__", repr(function))
    symbols = [Symbol("name", f"a{i}") for i in range(elements)]
    known = [Symbol("name", value, scalar=True) if isinstance(value, str) else value for value in scalars]
    try:
        result = function(*symbols, *known)
    except RecordingError as error:
        raise RecordingError(f"{name}: {error}") from None
    except TypeError as error:
        raise RecordingError(f"{name} cannot be recorded: {error}; use the functions of mlp_accel.elementwise") from error
    except ArithmeticError as error:  # 1.0 / 0.0, where Python raises and NumPy would not
        what = f"computing with its constants, or with a setting that is 0, fails ({error})"
        raise RecordingError(f"{name} cannot be recorded: {what}; its results must be finite") from error
    results = result if isinstance(result, tuple) else (result,)
    for value in results:
        if not isinstance(value, Symbol | int | float | np.number) or (isinstance(value, Symbol) and value.boolean):
            raise RecordingError(f"{name} must return a number, or a tuple of them; it returns {value!r}")
    try:
        return _assignments(symbols, results)
    except RecordingError as error:
        raise RecordingError(f"{name}: {error}") from None


def _assignments(symbols: Sequence[Symbol], results: Sequence[Any]) -> Record:
    lines: dict[tuple[Any, ...], str] = {}
    scalars: dict[int, Symbol] = {}
    numbers: dict[tuple[Any, ...], int] = {}  # of the expressions of scalars; two that are written alike have the same
    numbered: dict[int, int] = {}

    def number_of(value: Any) -> int:
        if not isinstance(value, Symbol):
            return numbers.setdefault(("constant", value), len(numbers))
        if id(value) not in numbered:
            numbered[id(value)] = numbers.setdefault((value.op, *map(number_of, value.arguments)), len(numbers))
        return numbered[id(value)]

    def assign(op: str, *operands: Operand) -> str:
        return lines.setdefault((op, *operands), f"t{len(lines)}")

    seen: dict[int, Operand] = {}  # so that a symbol that is used twice is recorded once

    def visit(value: Any) -> Operand:
        if not isinstance(value, Symbol):
            if not math.isfinite(value):
                raise RecordingError(f"the constant {value} has no form that every target knows; use a finite number")
            return float(value)
        if id(value) not in seen:
            seen[id(value)] = operand_of(value)
        return seen[id(value)]

    def operand_of(value: Symbol) -> Operand:
        if value.scalar:
            number = number_of(value)
            scalars.setdefault(number, value)
            name = f"u{list(scalars).index(number)}"
            return assign(">", name, 0.5) if value.boolean else name
        if value.op == "name":
            return str(value.arguments[0])
        return assign(value.op, *map(visit, value.arguments))

    operands = tuple(visit(result) for result in results)
    assignments = tuple(Assignment(name, op, tuple(names)) for (op, *names), name in lines.items())
    return Record(tuple(str(s.arguments[0]) for s in symbols), assignments, operands, tuple(scalars.values()))


def scalar_values(scalars: Sequence[Symbol], values: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The values of a record's scalars, from those of the arguments that they are computed from.

    Parameters
    ----------
    scalars : sequence of Symbol
        Those of the `Record`.
    values : dict
        By the names that `record` was given: a number, or an array with a number for each step.

    Returns
    -------
    array (n_steps, n_scalars)
        float64.
    """
    n_steps = max((np.size(value) for value in values.values()), default=1)

    known: dict[int, Any] = {}  # so that a symbol that is used twice is computed once

    def evaluate(value: Any) -> Any:
        if not isinstance(value, Symbol):
            return value
        if id(value) not in known:
            known[id(value)] = (
                np.asarray(values[value.arguments[0]], np.float64)
                if value.op == "name"
                else PYTHON[value.op](*map(evaluate, value.arguments))
            )
        return known[id(value)]

    table = np.empty((n_steps, len(scalars)))
    for position, scalar in enumerate(scalars):
        table[:, position] = evaluate(scalar)
    return table
