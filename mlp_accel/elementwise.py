"""Elementwise functions, written once in plain Python and lowered to every target.

An activation or an update rule is an ordinary function of numbers. Called with symbols in place of numbers it is *recorded*: a list
of assignments, each subexpression once, which is then evaluated with any array module or printed as source for NumPy, Numba or
CUDA C. The numbers of a step that are the same for all elements (the learning rate, ``1 - beta2**step``) are its *scalars*; they
are computed on the host, once a step and in float64.

The functions here (`exp`, `tanh`, `where`, …) take symbols, numbers and NumPy arrays, so a function that is made of them can be
called, and is tested, with numbers. An ``if``, ``==`` or ``float()`` on a symbol is an error: it could not be recorded.

The module is longer than others because a symbol has a method for each of Python's operators; recording itself is about 100 lines.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

import numpy as np

from mlp_accel.errors import RecordingError

Operand: TypeAlias = str | float
"""A name or a constant."""

COMPARISONS = ("<", "<=", ">", ">=")
LOGICAL = ("&", "|")
OPERATORS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "power": "**",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "bitwise_and": "&",
    "bitwise_or": "|",
}
"""Operators by the names of the NumPy functions that do the same."""
FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh", "sqrt", "abs", "maximum", "minimum", "where")

_PYTHON: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "negative": operator.neg,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "&": np.logical_and,
    "|": np.logical_or,
    **{name: getattr(np, name) for name in FUNCTIONS},
}


class Symbol:
    """A number that is not known yet: records what is done with it. A `scalar` is the same for all elements."""

    def __init__(self, op: str, *arguments: Any, scalar: bool = False) -> None:
        self.op, self.arguments, self.scalar = op, arguments, scalar

    @property
    def boolean(self) -> bool:
        """Whether it is a condition."""
        return self.op in (*COMPARISONS, *LOGICAL)

    def __add__(self, other: Any) -> Any:
        return _apply("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return _apply("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return _apply("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _apply("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return _apply("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _apply("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _apply("/", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _apply("/", other, self)

    def __pow__(self, other: Any) -> Any:
        if isinstance(other, int | float | np.number) and other in range(1, 9) and not self.scalar:
            result = self
            for _ in range(int(other) - 1):
                result = result * self
            return result
        return _power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return _power(other, self)

    def __neg__(self) -> Any:
        return _apply("negative", self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return _apply("abs", self)

    def __lt__(self, other: Any) -> Any:
        return _apply("<", self, other)

    def __le__(self, other: Any) -> Any:
        return _apply("<=", self, other)

    def __gt__(self, other: Any) -> Any:
        return _apply(">", self, other)

    def __ge__(self, other: Any) -> Any:
        return _apply(">=", self, other)

    def __and__(self, other: Any) -> Any:
        return _apply("&", self, other)

    def __or__(self, other: Any) -> Any:
        return _apply("|", self, other)

    __rand__, __ror__ = __and__, __or__

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> NoReturn:
        raise RecordingError("== and != cannot be recorded; write where(abs(a - b) < tolerance, …), or compare by <, <=, > or >=")

    __ne__ = __eq__

    def __bool__(self) -> NoReturn:
        raise RecordingError("an if, and, or, min or max cannot be recorded; write where(condition, a, b) or maximum(a, b)")

    def _no_number(self) -> NoReturn:
        raise RecordingError("a value cannot be made a number while it is recorded; use the functions of mlp_accel.elementwise")

    __float__ = __int__ = __index__ = __complex__ = _no_number

    def __array_ufunc__(self, ufunc: Any, method: str, *arguments: Any, **keywords: Any) -> Any:
        if method == "__call__" and not keywords and ufunc.__name__ in OPERATORS:  # what np.float64(2) * z calls
            return (_power if ufunc.__name__ == "power" else partial(_apply, OPERATORS[ufunc.__name__]))(*arguments)
        known = ufunc.__name__ if ufunc.__name__ in FUNCTIONS else "exp, tanh, where and the like"
        raise RecordingError(f"np.{ufunc.__name__} cannot be recorded; use {known} of mlp_accel.elementwise")


def exp(x: Any) -> Any:
    """``e**x``."""
    return _apply("exp", x)


def expm1(x: Any) -> Any:
    """``exp(x) - 1``, accurate near 0."""
    return _apply("expm1", x)


def log(x: Any) -> Any:
    """Natural logarithm."""
    return _apply("log", x)


def log1p(x: Any) -> Any:
    """``log(1 + x)``, accurate near 0."""
    return _apply("log1p", x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return _apply("tanh", x)


def sqrt(x: Any) -> Any:
    """Square root."""
    return _apply("sqrt", x)


def maximum(a: Any, b: Any) -> Any:
    """The larger one; NaN if one of them is NaN."""
    return _apply("maximum", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller one; NaN if one of them is NaN."""
    return _apply("minimum", a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`; both are computed."""
    if not _recording(condition, a, b):
        return np.where(condition, a, b)[()]  # of numbers this is a number again, not a 0-d array
    if isinstance(condition, Symbol) and not condition.boolean:
        raise RecordingError("the condition of where must be a comparison, such as z > 0")
    if not isinstance(condition, Symbol):
        return a if condition else b
    return _apply("where", condition, a, b)


def sign(x: Any) -> Any:
    """-1, 0 or 1; NaN stays NaN."""
    return where(x > 0, 1.0, where(x < 0, -1.0, x))


def _recording(*arguments: Any) -> bool:
    return any(isinstance(argument, Symbol) for argument in arguments)


def _is(value: Any, number: float) -> bool:
    return not isinstance(value, Symbol) and value == number


def _apply(op: str, *arguments: Any) -> Any:
    """A number from numbers; a symbol if one of them is a symbol. Terms of 0 and factors of 0 and 1 are left out."""
    if not _recording(*arguments):
        return _PYTHON[op](*arguments)
    arguments = tuple(x.item() if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in arguments)
    if op in LOGICAL and any(
        isinstance(x, bool | np.bool) for x in arguments
    ):  # one side is a comparison of constants, whose outcome is known already
        known, other = sorted(arguments, key=lambda x: isinstance(x, Symbol))
        return other if bool(known) == (op == "&") else bool(known)
    n_conditions = {"where": 1, "&": 2, "|": 2}.get(op, 0)
    for position, argument in enumerate(arguments):
        if not isinstance(argument, Symbol | int | float | np.number):
            raise RecordingError(f"{argument!r} of type {type(argument).__name__} cannot be recorded; use numbers")
        if (isinstance(argument, Symbol) and argument.boolean) != (position < n_conditions):
            raise RecordingError(
                "& and | take conditions, all else takes numbers; where(condition, 1.0, 0.0) makes a number of one"
            )
    a, b = arguments[0], arguments[-1]
    if op in ("+", "-") and _is(b, 0):
        return a
    if op == "+" and _is(a, 0):
        return b
    if op == "*" and (_is(a, 0) or _is(b, 0)):
        return 0.0
    if op in ("*", "/") and _is(b, 1):
        return a
    if op == "*" and _is(a, 1):
        return b
    if op == "/" and _is(a, 0):
        return 0.0
    if op == "-" and _is(a, 0):
        op, arguments = "negative", (b,)
    return Symbol(op, *arguments, scalar=all(not isinstance(x, Symbol) or x.scalar for x in arguments))


def _power(base: Any, exponent: Any) -> Any:
    if any(isinstance(x, Symbol) and not x.scalar for x in (base, exponent)):
        raise RecordingError("** needs a whole number from 1 to 8 behind it, or two values that are the same for all elements")
    return _apply("**", base, exponent)


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
                value = _PYTHON[line.op](*map(array, line.operands))
            else:
                value = _PYTHON[line.op](*(known.get(operand, operand) for operand in line.operands))
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


def scalar_values(scalars: Sequence[Symbol], values: dict[str, Any]) -> Any:
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
                else _PYTHON[value.op](*map(evaluate, value.arguments))
            )
        return known[id(value)]

    table = np.empty((n_steps, len(scalars)))
    for position, scalar in enumerate(scalars):
        table[:, position] = evaluate(scalar)
    return table
