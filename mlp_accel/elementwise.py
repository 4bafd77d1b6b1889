"""What elementwise functions are made of: symbols, and the functions of them.

An activation or an update rule is an ordinary function of numbers. Called with symbols in place of numbers it is *recorded*: see
`mlp_accel.recording`. The functions here (`exp`, `tanh`, `where`, …) take symbols, numbers and NumPy arrays, so a function that is
made of them can be called, and is tested, with numbers. An ``if``, ``==`` or ``float()`` on a symbol is an error: it could not be
recorded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import numpy as np

from mlp_accel.errors import RecordingError

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

PYTHON: dict[str, Callable[..., Any]] = {
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
"""What each operation is for numbers."""


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
        return PYTHON[op](*arguments)
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
