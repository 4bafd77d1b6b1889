"""Immutable objects that are objects of a JSON file as well, read and written without a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Self


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
    PARTS: ClassVar[Mapping[str, type[Record]]] = {}
    """Classes of the fields that hold records, or lists of them."""

    others: Mapping[str, Any] = field(default_factory=dict, repr=False)
    absent: frozenset[str] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def names(cls) -> list[str]:
        """The fields of the file, in the order in which they are written."""
        return [entry.name for entry in _file_fields(cls)]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read an object of the result file; what it does not have gets its default value.

        Raises
        ------
        TypeError
            If a field is missing that has no default.
        """
        names = cls.names()
        given: dict[str, Any] = {name: _read(cls.PARTS.get(name), content[name]) for name in names if name in content}
        others = {name: value for name, value in content.items() if name not in names}
        return cls(**given, others=others, absent=frozenset(names) - given.keys())

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


def _read(part: type[Record] | None, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_read(part, item) for item in value)
    return value if part is None or value is None else part.from_dict(value)


def _json(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    return [_json(item) for item in value] if isinstance(value, tuple) else value
