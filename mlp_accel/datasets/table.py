"""Tables in CSV files, read by polars (extra ``tables``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import DatasetError, MissingPackageError

SUFFIXES = (".csv", ".csv.gz")


def is_table(path: Path) -> bool:
    """Whether the name of the file is that of a table."""
    return path.name.lower().endswith(SUFFIXES)


def read_table(
    path: Path, target: str | None, features: Sequence[str] | None = None, optional_target: bool = False
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any] | None, list[str]]:
    """Read a CSV file whose first line names the columns.

    Parameters
    ----------
    target : str or None
        The column of the labels, which may be integers or strings.
    features : sequence of str, optional
        The columns of the samples' values, in this order; by default all but the target.
    optional_target : bool
        The table may lack the target.

    Returns
    -------
    x : array (n, n_in)
    labels : array (n,) or None
        None without a target, or if the table lacks an optional one.
    features : list of str

    Raises
    ------
    DatasetError
        If the file is no table, lacks a column, or has a value that is missing, no number or not finite; names column and line.
    MissingPackageError
        If polars is not installed.
    """
    frame = _frame(path)
    if frame.height == 0:
        raise DatasetError(f"{path}: no line below the names of the columns: {', '.join(frame.columns)}")
    if optional_target and target not in frame.columns:
        target = None
    wanted = [name for name in frame.columns if name != target] if features is None else list(features)
    for name in [*wanted, *([] if target is None else [target])]:
        if name not in frame.columns:
            raise DatasetError(f"{path}: no column {name!r}; there is {', '.join(frame.columns)}")
    labels = None if target is None else _labels(path, frame[target])
    x = np.empty((frame.height, len(wanted)))
    for index, name in enumerate(wanted):
        x[:, index] = _values(path, frame[name])
    return x, labels, wanted


def table_columns(path: Path) -> list[str]:
    """The names of the columns of a CSV file; DatasetError if it is no table."""
    names: list[str] = _frame(path, 0).columns
    return names


def _frame(path: Path, n_rows: int | None = None) -> Any:
    try:
        import polars
    except ImportError as error:
        raise MissingPackageError("polars", "tables", f"to read {path}") from error
    try:
        return polars.read_csv(path, infer_schema_length=None, try_parse_dates=False, n_rows=n_rows)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from error


def _values(path: Path, column: Any) -> npt.NDArray[np.float64]:
    """A column of numbers."""
    _refuse_missing(path, column)
    if not (column.dtype.is_numeric() or str(column.dtype) == "Boolean"):
        first = column.cast(float, strict=False).is_null().arg_true()[0]
        what = f"line {first + 2} of the column {column.name!r} holds {column[first]!r}, which is no number"
        raise DatasetError(f"{path}: {what}; name the column of the labels as the target, and give others as numbers")
    values: npt.NDArray[np.float64] = column.cast(float).to_numpy()
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise DatasetError(f"{path}: line {wrong[0] + 2} of the column {column.name!r} holds {values[wrong[0]]}")
    return values


def _labels(path: Path, column: Any) -> npt.NDArray[Any]:
    """A column of labels: strings, booleans or integers."""
    _refuse_missing(path, column)
    values: npt.NDArray[Any] = column.to_numpy()
    if values.dtype.kind == "f":
        if not (np.isfinite(values) & (values == np.floor(values))).all():
            first = int(np.flatnonzero(~(values == np.floor(values)))[0])
            raise DatasetError(f"{path}: line {first + 2} of the target {column.name!r} holds {values[first]}, which is no class")
        return values.astype(np.int64)
    return values.astype(str) if values.dtype == object else values


def _refuse_missing(path: Path, column: Any) -> None:
    missing = column.is_null()
    if missing.any():
        raise DatasetError(f"{path}: line {missing.arg_true()[0] + 2} of the column {column.name!r} is empty")
