"""Immutable objects that are objects of a JSON file as well, read and written without a loss.

What a field may hold is said once, by its annotation: a file that holds anything else is refused, with the field named.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from mlp_accel.errors import MlpAccelError

SMALLEST, LARGEST = 1e-30, 1e30
Positive = Annotated[float, SMALLEST, LARGEST]
"""A time, or an amount of work: a number within these limits, so that ratios of two are numbers too."""

WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


class RecordError(MlpAccelError, ValueError):
    """An object of a file is not what it should be; the message begins with the field."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """An object of the result file.

    Attributes
    ----------
    others : dict
        Fields of the file that this version does not know; they are written again as they are.
    absent : frozenset of str, optional
        Fields that are left out of the file while they have their default values. Of a record that was read they are the ones that
        its file does not have, so that it is written as it was; of a new one they are `OPTIONAL`.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    others: Mapping[str, Any] = field(default_factory=dict, repr=False)
    absent: frozenset[str] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = "") -> Self:
        """Read an object of the result file; what it does not have gets its default value.

        Parameters
        ----------
        content : mapping
            The object as JSON has it.
        where : str
            What it is in the file, such as ``results[0]``, for messages.

        Raises
        ------
        RecordError
            If a field is missing that has no default, or holds what its annotation does not allow.
        """
        for entry in _file_fields(cls):
            if entry.name not in content and entry.default is MISSING and entry.default_factory is MISSING:
                raise RecordError(f"{where or 'the file'} has no field {entry.name}")
        names = _kinds(cls).keys()
        given = {name: cls.read_field(name, content[name], where) for name in names if name in content}
        others = {name: value for name, value in content.items() if name not in names}
        return cls(**given, others=others, absent=frozenset(names) - given.keys())

    @classmethod
    def read_field(cls, name: str, value: Any, where: str = "") -> Any:
        """The attribute `name` for the `value` that JSON has; raises `RecordError` as `from_dict` does."""
        return _read(_kinds(cls)[name], value, _inner(where, name))

    def to_dict(self) -> dict[str, Any]:
        """The object of the result file, in types that JSON knows."""
        absent = self.OPTIONAL if self.absent is None else self.absent
        content = {}
        for entry in _file_fields(self):
            value = getattr(self, entry.name)
            if entry.name not in absent or entry.default is MISSING or value != entry.default:
                content[entry.name] = _json(value)
        return {**content, **self.others}


def _file_fields(record: Record | type[Record]) -> list[Field[Any]]:
    return [entry for entry in fields(record) if entry.name not in ("others", "absent")]


_KINDS: dict[type[Record], dict[str, Any]] = {}


def _kinds(record: type[Record]) -> dict[str, Any]:
    """What each field of the file may hold, in the order in which they are written."""
    if record not in _KINDS:
        hints = get_type_hints(record, include_extras=True)
        _KINDS[record] = {entry.name: hints[entry.name] for entry in _file_fields(record)}
    return _KINDS[record]


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON has it, as an attribute that is annotated with `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is types.UnionType:  # of something and None
        (something,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _read(something, value, where)
    if origin is Annotated:
        number = _read(arguments[0], value, where)
        low, high = kind.__metadata__
        if not low <= number <= high:
            raise RecordError(f"{where} must be a positive number, {low:g} to {high:g}; got {number!r}")
        return number
    if origin is tuple:
        if not isinstance(value, list):
            raise RecordError(f"{where} must be a list; got {_shown(value)}")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise RecordError(f"{where} must have {len(inner)} items; got {len(value)}")
        return tuple(_read(part, item, f"{where}[{index}]") for index, (part, item) in enumerate(zip(inner, value, strict=True)))
    if origin is Mapping or issubclass(kind, Record):
        if not isinstance(value, dict):
            raise RecordError(f"{where} must be an object; got {_shown(value)}")
        if origin is None:
            return kind.from_dict(value, where)
        return {name: _read(arguments[1], item, _inner(where, name)) for name, item in value.items()}
    allowed = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not allowed or (kind is float and not math.isfinite(value)):
        raise RecordError(f"{where} must be {WORDS[kind]}; got {_shown(value)}")
    return value


def _inner(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _shown(value: Any, length: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}…"


def _json(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    return [_json(item) for item in value] if isinstance(value, tuple) else value
