"""Elementwise functions as CUDA C: the activation and the update rule of a kernel, printed from their records.

Everything is computed in ``Real``, which is float or double: constants are cast to it, and the functions of the CUDA maths library
are called by the names that are overloaded for both.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlp_accel.activations import Activation
from mlp_accel.elementwise import COMPARISONS, LOGICAL
from mlp_accel.optimizers import Rule
from mlp_accel.recording import Operand, Record

REAL = {"float32": "float", "float64": "double"}

EXPRESSIONS = {
    **{op: f"{{0}} {op} {{1}}" for op in ("+", "-", "*", "/", *COMPARISONS)},
    **{op: f"{{0}} {op}{op} {{1}}" for op in LOGICAL},
    **{name: f"{name}({{0}})" for name in ("exp", "expm1", "log", "log1p", "tanh", "sqrt")},
    "abs": "fabs({0})",
    "negative": "-{0}",
    "maximum": "{0} >= {1} || {0} != {0} ? {0} : {1}",  # the first, too, if it is NaN
    "minimum": "{0} <= {1} || {0} != {0} ? {0} : {1}",
    "where": "{0} ? {1} : {2}",
}


def real_source(dtype: str = "float32") -> str:
    """The line that defines ``Real``, the type that the functions compute in."""
    return f"using Real = {REAL[dtype]};\n"


def activation_source(activation: Activation) -> str:
    """``activate(z)``, ``times_slope(delta, slope_input)``, and ``SLOPE_OF_INPUT``: whether `slope_input` is z, or the output."""
    lines = [
        '#line 1 "activation"',
        f"[[maybe_unused]] constexpr bool SLOPE_OF_INPUT = {str(activation.of_input).lower()};",
        *_function("activate", activation.value),
        *_function("times_slope", activation.times_slope),
    ]
    return "\n".join([*lines, ""])


def rule_source(rule: Rule) -> str:
    """``apply_rule(parameter, gradient, slots, stride, scalars)``, with the number of slots and of scalars.

    Slot ``s`` of the parameter is ``slots[s * stride]`` and is written over; the new parameter is returned. ``RATE_INDEX`` is
    `Rule.rate_index`, or -1 for None.
    """
    record, rate_index = rule.record, -1 if rule.rate_index is None else rule.rate_index
    parameter, gradient, *slots = record.elements
    read_slots = [f"const Real {name} = slots[{s} * stride];" for s, name in enumerate(slots)]
    scalars = [f"const Real {name} = scalars[{i}];" for i, name in enumerate(record.scalar_names)]
    updated, *remembered = _results(record)
    stores = [f"slots[{s} * stride] = {value};" for s, value in enumerate(remembered)]
    arguments = [f"Real {parameter}", f"Real {gradient}", "Real* slots", "unsigned long long stride", "const Real* scalars"]
    lines = [
        '#line 1 "rule"',
        f"[[maybe_unused]] constexpr int SLOTS = {rule.n_slots}, SCALARS = {rule.n_scalars}, RATE_INDEX = {rate_index};",
        f"DEVICE Real apply_rule({', '.join(f'[[maybe_unused]] {argument}' for argument in arguments)}) {{",
        *(f"    [[maybe_unused]] {line}" for line in (*read_slots, *scalars)),
        *(f"    {line}" for line in (*_assignments(record), *stores, f"return {updated};")),
        "}",
    ]
    return "\n".join([*lines, ""])


def _function(name: str, record: Record) -> list[str]:
    """A function of the elements that returns the one result."""
    (result,) = _results(record)
    arguments = ", ".join(f"[[maybe_unused]] Real {element}" for element in record.elements)
    body = [f"    {line}" for line in (*_assignments(record), f"return {result};")]
    return [f"DEVICE Real {name}({arguments}) {{", *body, "}"]


def _assignments(record: Record) -> Iterator[str]:
    for line in record.assignments:
        value = EXPRESSIONS[line.op].format(*map(_operand, line.operands))
        yield f"const {'bool' if line.boolean else 'Real'} {line.name} = {value};"


def _results(record: Record) -> list[str]:
    return [_operand(result) for result in record.results]


def _operand(operand: Operand) -> str:
    return operand if isinstance(operand, str) else f"(Real){operand!r}"
