"""Result files of `mlp-accel bench`: read, checked, and brought up to date. Here alone JSON becomes a `Result`.

A row is known by ``name`` and ``path``: ``numba`` and ``loop``. Schema 1 had one row for each backend, whose ``path`` was a
sentence, and peers whose ``path`` was what is now their ``form``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlp_accel.bench.record import RecordError
from mlp_accel.bench.results import SCHEMA, Result, label
from mlp_accel.errors import MlpAccelError

__all__ = ["SCHEMA", "ResultFileError", "label", "parse_result", "read_result", "result_of", "up_to_date"]

MAX_DEPTH, MAX_DIGITS = 40, 18
"""Of objects within each other, and of a whole number: it fits into 64 bits."""

EXPECTED = "give a file that `mlp-accel bench --json` wrote"

PATHS_OF_SCHEMA_1 = {
    "ops": "loop",
    "fused epoch skipping zero pixels": "sparse",
    "fused loop": "fused",  # a loop of NumPy's own; what is called loop now is another one
    "cluster of": "cluster",
    "graph of fused steps": "graph",
    "fused steps": "steps",
}
"""How the sentences began, and what each is called now."""

Object = Mapping[str, Any]
"""An object as JSON has it."""


class ResultFileError(MlpAccelError, ValueError):
    """A result file is missing or malformed; the message names the file and the field."""


def read_result(path: Path) -> Result:
    """A result file of `mlp-accel bench`, checked and brought up to date.

    Raises
    ------
    ResultFileError
        If it cannot be read or is something else.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ResultFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_result(content, str(path))


def parse_result(content: bytes, where: str) -> Result:
    """The result that a file holds, checked and brought up to date; `where` is what the file is called in messages.

    Raises
    ------
    ResultFileError
        If it is something else.
    """
    try:
        result = json.loads(content.decode("utf-8"), parse_constant=_no_number, parse_float=_float, parse_int=_int)
        _check_text(result)
    except (ValueError, RecursionError) as error:
        raise ResultFileError(f"{where}: is not JSON ({error}); {EXPECTED}") from error
    if not isinstance(result, dict) or "schema" not in result:
        raise ResultFileError(f"{where}: has no field schema; {EXPECTED}")
    if type(result["schema"]) is not int or result["schema"] not in (1, SCHEMA):
        raise ResultFileError(f"{where}: has the schema {result['schema']!r:.40}; this version reads schema 1 and {SCHEMA}")
    for name, kind in {"environment": dict, "config": dict, "results": list}.items():
        if not isinstance(result.get(name), kind):
            raise ResultFileError(f"{where}: the field {name} is missing or is no {kind.__name__}; {EXPECTED}")
    try:
        return result_of(result)
    except RecordError as error:
        raise ResultFileError(f"{where}: {error}; {EXPECTED}") from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # what is brought up to date is not checked yet
        raise ResultFileError(f"{where}: is no result of schema {result['schema']} ({error}); {EXPECTED}") from error


def result_of(content: Object) -> Result:
    """The object of a result file of any schema that this version reads."""
    return Result.from_dict(up_to_date(content))


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number there")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.20}… is too large")
    return number


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{text:.20}… is too large")
    return int(text)


def _check_text(content: Any, depth: int = 0) -> None:
    """Refuse what Python's JSON takes and nothing else can use: half a character, and objects in objects without an end."""
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} objects within each other")
    if isinstance(content, str):
        content.encode()
    elif isinstance(content, list):
        for item in content:
            _check_text(item, depth + 1)
    elif isinstance(content, dict):
        for name, item in content.items():
            name.encode()
            _check_text(item, depth + 1)


def up_to_date(result: Object) -> Object:
    """The object of a result file of an older schema in the form of this one; any other comes back as it is.

    Before ``--until`` took several accuracies, ``until`` was one object.
    """
    if isinstance(result.get("until"), Mapping):
        result = {**result, "until": [result["until"]]}
    if result.get("schema") != 1:
        return result
    rows = [_row_up_to_date(row) for row in result["results"]]
    config = {name: value for name, value in result["config"].items() if name != "fused"}
    config |= {"optimizer": "sgd", "momentum": None, "weight_decay": 0.0}
    config["path"] = None if result["config"].get("fused", True) else "loop"
    found: dict[str, Any] = {**result, "schema": SCHEMA, "config": config, "results": rows}
    if "reference" in result:
        found["reference"] = _row_up_to_date(result["reference"])
    if "sweeps" in result:
        found["sweeps"] = [
            {**sweep, "cells": [{**cell, "results": list(map(_row_up_to_date, cell["results"]))} for cell in sweep["cells"]]}
            for sweep in result["sweeps"]
        ]
    if "until" in result:
        paths = {row["name"]: row["path"] for row in rows}
        found["until"] = [
            {**until, "results": [{**row, "path": paths.get(row["name"])} for row in until["results"]]} for until in result["until"]
        ]
    return found


def _row_up_to_date(row: Object) -> Object:
    """A row of schema 1. A backend that could not run has no path; a sentence that is not known stays as it is."""
    if not isinstance(row, Mapping):
        return row  # that it is no object will be said
    text = row.get("path")
    if row.get("kind") == "peer":
        return {**row, "path": None, "form": text}
    known = (path for beginning, path in PATHS_OF_SCHEMA_1.items() if isinstance(text, str) and text.startswith(beginning))
    return {**row, "path": next(known, text), "passed_over": []}
