"""Labels of any kind, and the numbers of their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import SettingError

PLAIN = (str, bool, int, float)
"""What labels in an object array may be: all that JSON knows."""

KINDS = "biufUO"
"""Kinds of dtypes that a file can hold: booleans, integers, floats, strings, and objects that are `PLAIN`."""


def check_classes(classes: npt.ArrayLike, n_classes: int) -> npt.NDArray[Any]:
    """The labels of the classes as an array ``(n_classes,)``; ValueError if their number is another or two are the same."""
    array = np.array(classes, copy=True)
    if array.shape != (n_classes,):
        raise ValueError(f"classes must name each of the {n_classes} classes of the network; its shape is {array.shape}")
    if len(set(array.tolist())) != n_classes:
        raise ValueError(f"classes must all be different; got {array.tolist()}")
    return array


def class_indices(y: npt.ArrayLike, classes: npt.NDArray[Any] | None, n_classes: int) -> npt.NDArray[np.int64]:
    """For each label the number of its class, ``(n,)`` int64.

    Parameters
    ----------
    classes : array (n_classes,) or None
        The label of each class; None means 0 ... n_classes - 1.

    Raises
    ------
    ValueError
        For a label that is none of them; names it and its row.
    """
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(f"y must hold one label for each sample; its shape is {labels.shape}")
    known = {label: index for index, label in enumerate(range(n_classes) if classes is None else classes.tolist())}
    indices = np.fromiter((known.get(label, -1) for label in labels.tolist()), np.int64, len(labels))
    unknown = np.flatnonzero(indices < 0)
    if len(unknown):
        some = ", ".join(map(repr, list(known)[:10])) + (", ..." if len(known) > 10 else "")
        raise ValueError(f"y has the label {labels.tolist()[unknown[0]]!r} in row {unknown[0]}; the model knows {some}")
    return indices


def classes_to_json(classes: npt.NDArray[Any]) -> dict[str, Any]:
    """The labels in types that JSON knows, with their dtype; SettingError if they have none."""
    values = classes.tolist()
    if classes.dtype.kind not in KINDS or not all(isinstance(value, PLAIN) and value == value for value in values):
        raise SettingError(f"classes in a file must be numbers, booleans or strings; got {values} of dtype {classes.dtype}")
    return {"dtype": classes.dtype.str, "values": values}


def classes_from_json(described: Mapping[str, Any]) -> npt.NDArray[Any]:
    """The inverse of `classes_to_json`."""
    dtype, values = np.dtype(described["dtype"]), list(described["values"])
    longest = max((len(value) for value in values if isinstance(value, str)), default=0)
    if dtype.kind not in KINDS or not all(isinstance(value, PLAIN) for value in values) or dtype.itemsize > max(16, 4 * longest):
        raise ValueError(f"{values} of dtype {dtype} are no classes")
    return np.array(values, dtype)
