"""A task as text, and back: so that another process can try a path on it without importing what the user has written.

An activation or a rule travels as what was recorded of it (`mlp_accel.recording`), which is all that any kernel is made of.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from mlp_accel import elementwise
from mlp_accel.activations import Activation
from mlp_accel.backends.paths import Task
from mlp_accel.elementwise import FUNCTIONS, PYTHON, Symbol
from mlp_accel.optimizers import Rule
from mlp_accel.recording import Assignment, Record, record

OPERATIONS: dict[str, Callable[..., Any]] = {
    **PYTHON,
    "&": operator.and_,
    "|": operator.or_,
    **{name: getattr(elementwise, name) for name in FUNCTIONS if hasattr(elementwise, name)},
    "abs": abs,
}
"""What the operations of a record do with numbers and with symbols."""


def packed(task: Task) -> dict[str, Any]:
    """The task in types that JSON knows."""
    content = {field.name: getattr(task, field.name) for field in fields(task)}
    functions = {"function": _packed_record(task.activation.value), "slope": _packed_record(record(task.activation.slope, 1))}
    content["activation"] = {"name": task.activation.name, "of_input": task.activation.of_input, **functions}
    content["rule"] = {"n_slots": task.rule.n_slots, "record": _packed_record(task.rule.record)}
    return content


def unpacked(content: dict[str, Any]) -> Task:
    """The task that `packed` made this of; the values of the rule's scalars can no longer be computed, which no kernel does."""
    rule, activation = content["rule"], content["activation"]
    function, slope = (_replayed(_unpacked_record(activation[name])) for name in ("function", "slope"))
    own = {
        "layer_sizes": tuple(content["layer_sizes"]),
        "activation": Activation(function, slope, activation["of_input"], activation["name"]),
        "rule": Rule(_unpacked_record(rule["record"]), rule["n_slots"]),
    }
    return Task(**{**content, **own})


def _packed_record(found: Record) -> dict[str, Any]:
    lines = [[line.name, line.op, list(line.operands)] for line in found.assignments]
    return {"elements": found.elements, "assignments": lines, "results": found.results, "n_scalars": len(found.scalars)}


def _unpacked_record(content: dict[str, Any]) -> Record:
    lines = tuple(Assignment(name, op, tuple(operands)) for name, op, operands in content["assignments"])
    scalars = tuple(Symbol("name", f"u{i}", scalar=True) for i in range(content["n_scalars"]))
    return Record(tuple(content["elements"]), lines, tuple(content["results"]), scalars)


def _replayed(found: Record) -> Callable[..., Any]:
    """A function of numbers or symbols that does what was recorded, and of which the same would be recorded."""

    def function(*elements: Any) -> Any:
        known: dict[Any, Any] = dict(zip(found.elements, elements, strict=True))
        for line in found.assignments:
            known[line.name] = OPERATIONS[line.op](*(known.get(operand, operand) for operand in line.operands))
        (result,) = found.results
        return known.get(result, result)

    return function
