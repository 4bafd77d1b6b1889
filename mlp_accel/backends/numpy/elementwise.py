"""Recorded functions as NumPy code that works in place: an operation writes to memory that is free, or was passed for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mlp_accel.elementwise import OPERATORS, Assignment, Operand, Record

UFUNCS = {
    **{symbol: name for name, symbol in OPERATORS.items()},
    **{name: name for name in ("negative", "exp", "expm1", "log", "log1p", "tanh", "sqrt", "abs", "maximum", "minimum")},
}


class _Writer:
    """Writes the source of one function, and keeps track of the memory that each value is in and of the line that last needs it."""

    def __init__(self, record: Record, targets: Sequence[str | None], spare: Sequence[str]) -> None:
        self.record, self.targets = record, list(targets)
        self.lines: list[str] = []
        self.places: dict[Operand, str] = {name: name for name in (*record.elements, *record.uniforms)}
        self.last_use = {name: at for at, line in enumerate(record.assignments) for name in line.operands}
        self.last_use |= dict.fromkeys(record.results, len(record.assignments))
        self.free: dict[str, list[str]] = {"real": [], "bool": []}
        self.made = 0
        self.spare = set(spare) - set(targets)
        self.free["real"] += sorted(self.spare - set(self.last_use))

    def function(self, name: str) -> str:
        """The whole function."""
        for at, line in enumerate(self.record.assignments):
            self._assign(at, line)
        results = self._results()
        body = "\n    ".join([*self.lines, f"return ({', '.join(results)},)"])
        return f"def {name}({', '.join((*self.record.elements, *self.record.uniforms))}, empty):\n    {body}\n"

    def _results(self) -> list[str]:
        """Write the lines that bring each result to its target; first the copies, since a target may hold what they copy."""
        returned: list[str] = []
        moves: dict[str, str] = {}
        for result, target in zip(self.record.results, self.targets, strict=True):
            place = self._place(result)
            if target is None:
                if place in returned or not (place.startswith("m") or place in self.spare):
                    place = self._copy(place)
            elif place != target:
                moves[target] = place
            returned.append(target or place)
        while moves:
            ready = [target for target in moves if target not in moves.values()]
            for target in ready:
                self.lines.append(f"np.copyto({target}, {moves.pop(target)})")
            if not ready:  # a circle: each target holds what belongs into another one
                target = next(iter(moves))
                saved = self._copy(target)
                moves = {other: saved if place == target else place for other, place in moves.items()}
        return returned

    def _place(self, operand: Operand) -> str:
        return self.places[operand] if operand in self.places else repr(operand)

    def _new(self, kind: str = "real") -> str:
        """Write a line that makes new memory; returns its name."""
        place, self.made = f"m{self.made}", self.made + 1
        self.lines.append(f"{place} = empty({self.record.elements[0]}.shape{', bool' if kind == 'bool' else ''})")
        return place

    def _copy(self, place: str) -> str:
        """Write lines that copy to new memory; returns its name."""
        copy = self._new()
        self.lines.append(f"np.copyto({copy}, {place})")
        return copy

    def _assign(self, at: int, line: Assignment) -> None:
        if self._is_mask(line):
            self.places[line.name] = self._place(line.operands[0])  # NumPy multiplies by a condition as by 1 and 0
            return
        if line.op == "where":
            place = self._memory(at, line)
            condition, a, b = map(self._place, line.operands)
            if place != b:
                self.lines.append(f"np.copyto({place}, {b})")
            self.lines.append(f"np.copyto({place}, {a}, where={condition})")
            self._release(at, line, keep=place)
        else:
            operands = [self._place(operand) for operand in line.operands]
            self._release(at, line)
            place = self._memory(at, line)
            self.lines.append(f"np.{UFUNCS[line.op]}({', '.join(operands)}, out={place})")
        self.places[line.name] = place

    def _is_mask(self, line: Assignment) -> bool:
        """Whether the value is 1 where a condition holds and 0 elsewhere, and is only used as a factor."""
        uses = [other for other in self.record.assignments if line.name in other.operands]
        factor = all(other.op == "*" and other.operands[0] != other.operands[1] for other in uses)
        return line.op == "where" and line.operands[1:] == (1.0, 0.0) and factor and line.name not in self.record.results

    def _memory(self, at: int, line: Assignment) -> str:
        """The memory that the result of a line is written to."""
        if line.name in self.record.results:
            target = self.targets[self.record.results.index(line.name)]
            if target is not None and self._overwritable(target, at, line):
                return target
        kind = "bool" if line.boolean else "real"
        if self.free[kind]:
            return self.free[kind].pop()
        return self._new(kind)

    def _overwritable(self, target: str, at: int, line: Assignment) -> bool:
        """Whether nothing after this line needs what is there. A `where` writes before it has read, so it counts itself."""
        holders = [name for name, place in self.places.items() if place == target]
        limit = at - 1 if line.op == "where" and target in [self._place(o) for o in line.operands[:2]] else at
        return all(self.last_use.get(name, -1) <= limit for name in holders)

    def _release(self, at: int, line: Assignment, keep: str | None = None) -> None:
        """Set free the memory that this line was the last to need; that of arguments only if they were passed as spare."""
        for name in dict.fromkeys(line.operands):
            if not isinstance(name, str) or self.last_use.get(name) != at:
                continue
            place = self.places[name]
            shared = any(p == place and self.last_use.get(n, -1) > at for n, p in self.places.items() if n != name)
            if place == keep or shared or not (place.startswith("m") or place in self.spare):
                continue
            boolean = any(other.name == name and other.boolean for other in self.record.assignments) or self._aliases_condition(
                name
            )
            self.free["bool" if boolean else "real"].append(place)

    def _aliases_condition(self, name: str) -> bool:
        return any(other.name == name and self._is_mask(other) for other in self.record.assignments)


def numpy_source(record: Record, targets: Sequence[str | None], spare: Sequence[str] = (), name: str = "function") -> str:
    """The source of a function of the elements, the uniforms and ``empty(shape[, dtype])``, which makes memory.

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
