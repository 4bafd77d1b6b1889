"""Recorded functions as NumPy code that works in place: an operation writes to memory that is free, or was passed for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mlp_accel.elementwise import OPERATORS
from mlp_accel.recording import Assignment, Operand, Record

UFUNCS = {
    **{symbol: name for name, symbol in OPERATORS.items()},
    **{name: name for name in ("negative", "exp", "expm1", "log", "log1p", "tanh", "sqrt", "abs", "maximum", "minimum")},
}


class _Writer:
    """Writes the source of one function: a line for each assignment of the record.

    It keeps track of the variable whose memory holds each value, and of the number of the line that last needs the value. A
    variable whose memory nothing needs any more is free, and the next result may be written to it.
    """

    def __init__(self, record: Record, targets: Sequence[str | None], spare: Sequence[str]) -> None:
        self.record, self.targets = record, list(targets)
        self.lines: list[str] = []
        self.variables: dict[Operand, str] = {name: name for name in (*record.elements, *record.scalar_names)}
        self.last_use = {name: number for number, line in enumerate(record.assignments) for name in line.operands}
        self.last_use |= dict.fromkeys(record.results, len(record.assignments))
        self.free: dict[str, list[str]] = {"real": [], "bool": []}
        self.n_made = 0
        self.spare = set(spare) - set(targets)
        self.free["real"] += sorted(self.spare - set(self.last_use))

    def function(self, name: str) -> str:
        """The whole function."""
        for number, line in enumerate(self.record.assignments):
            self._assign(number, line)
        results = self._results()
        body = "\n    ".join([*self.lines, f"return ({', '.join(results)},)"])
        return f"def {name}({', '.join((*self.record.elements, *self.record.scalar_names))}, empty):\n    {body}\n"

    def _results(self) -> list[str]:
        """Write the lines that bring each result to its target; first the copies, since a target may hold what they copy."""
        returned: list[str] = []
        moves: dict[str, str] = {}
        for result, target in zip(self.record.results, self.targets, strict=True):
            variable = self._variable(result)
            if target is None:
                if variable in returned or not (variable.startswith("m") or variable in self.spare):
                    variable = self._copy(variable)
            elif variable != target:
                moves[target] = variable
            returned.append(target or variable)
        while moves:
            ready = [target for target in moves if target not in moves.values()]
            for target in ready:
                self.lines.append(f"np.copyto({target}, {moves.pop(target)})")
            if not ready:  # a circle: each target holds what belongs into another one
                target = next(iter(moves))
                saved = self._copy(target)
                moves = {other: saved if variable == target else variable for other, variable in moves.items()}
        return returned

    def _variable(self, operand: Operand) -> str:
        return self.variables[operand] if operand in self.variables else repr(operand)

    def _new(self, kind: str = "real") -> str:
        """Write a line that makes a variable with new memory; returns its name."""
        variable, self.n_made = f"m{self.n_made}", self.n_made + 1
        self.lines.append(f"{variable} = empty({self.record.elements[0]}.shape{', bool' if kind == 'bool' else ''})")
        return variable

    def _copy(self, variable: str) -> str:
        """Write lines that copy to a variable with new memory; returns its name."""
        copy = self._new()
        self.lines.append(f"np.copyto({copy}, {variable})")
        return copy

    def _assign(self, number: int, line: Assignment) -> None:
        if self._is_mask(line):
            self.variables[line.name] = self._variable(line.operands[0])  # NumPy multiplies by a condition as by 1 and 0
            return
        if line.op == "where":
            variable = self._variable_for(number, line)
            condition, a, b = map(self._variable, line.operands)
            if variable != b:
                self.lines.append(f"np.copyto({variable}, {b})")
            self.lines.append(f"np.copyto({variable}, {a}, where={condition})")
            self._release(number, line, keep=variable)
        else:
            operands = [self._variable(operand) for operand in line.operands]
            self._release(number, line)
            variable = self._variable_for(number, line)
            self.lines.append(f"np.{UFUNCS[line.op]}({', '.join(operands)}, out={variable})")
        self.variables[line.name] = variable

    def _is_mask(self, line: Assignment) -> bool:
        """Whether the value is 1 where a condition holds and 0 elsewhere, and is only used as a factor."""
        uses = [other for other in self.record.assignments if line.name in other.operands]
        factor = all(other.op == "*" and other.operands[0] != other.operands[1] for other in uses)
        return line.op == "where" and line.operands[1:] == (1.0, 0.0) and factor and line.name not in self.record.results

    def _variable_for(self, number: int, line: Assignment) -> str:
        """The variable that the result of a line is written to."""
        if line.name in self.record.results:
            target = self.targets[self.record.results.index(line.name)]
            if target is not None and self._overwritable(target, number, line):
                return target
        kind = "bool" if line.boolean else "real"
        if self.free[kind]:
            return self.free[kind].pop()
        return self._new(kind)

    def _overwritable(self, target: str, number: int, line: Assignment) -> bool:
        """Whether the line may write to `target`: no later line needs what it holds.

        A `where` writes to its target before it has read its condition and its first value, so it must not need them from there.
        """
        holders = [name for name, variable in self.variables.items() if variable == target]
        limit = number - 1 if line.op == "where" and target in [self._variable(o) for o in line.operands[:2]] else number
        return all(self.last_use.get(name, -1) <= limit for name in holders)

    def _release(self, number: int, line: Assignment, keep: str | None = None) -> None:
        """Set free the variables that this line was the last to need; arguments only if they were passed as spare."""
        for name in dict.fromkeys(line.operands):
            if not isinstance(name, str) or self.last_use.get(name) != number:
                continue
            variable = self.variables[name]
            shared = any(p == variable and self.last_use.get(n, -1) > number for n, p in self.variables.items() if n != name)
            if variable == keep or shared or not (variable.startswith("m") or variable in self.spare):
                continue
            boolean = any(other.name == name and other.boolean for other in self.record.assignments) or self._aliases_condition(
                name
            )
            self.free["bool" if boolean else "real"].append(variable)

    def _aliases_condition(self, name: str) -> bool:
        return any(other.name == name and self._is_mask(other) for other in self.record.assignments)


def numpy_source(record: Record, targets: Sequence[str | None], spare: Sequence[str] = (), name: str = "function") -> str:
    """The source of a function of the elements, the scalars and ``empty(shape[, dtype])``, which makes memory.

    Parameters
    ----------
    record : Record
    targets : sequence of str or None
        For each result the element argument that it is written over, each at most once, or None for memory of its own.
    spare : sequence of str
        Element arguments whose contents nobody needs afterwards.
    """
    return _Writer(record, targets, spare).function(name)


@lru_cache(maxsize=256)
def numpy_function(record: Record, targets: tuple[str | None, ...], spare: tuple[str, ...] = ()) -> Callable[..., Any]:
    """`numpy_source`, ready to be called."""
    space: dict[str, Any] = {"np": np}
    exec(compile(numpy_source(record, targets, spare), "<recorded function>", "exec"), space)
    function: Callable[..., Any] = space["function"]
    return function
