"""Data sets: the MNIST that ships with the package, folders of IDX files, ``.npz`` files and CSV tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.datasets import idx
from mlp_accel.datasets.npz import array_names, read_npz
from mlp_accel.datasets.split import stratified_share
from mlp_accel.datasets.table import is_table, read_table, table_columns
from mlp_accel.errors import DatasetError, SettingError

__all__ = ["ENVIRONMENT_VARIABLE", "MAX_CLASSES", "Dataset", "load", "load_samples"]

ENVIRONMENT_VARIABLE = "MLP_ACCEL_DATA_DIR"
MAX_CLASSES = 65_536
"""A label of this size or larger is taken for a mistake, not for a class."""

FIELDS = ("x_train", "y_train", "x_test", "y_test")
WHOLE = ("x", "y")
"""Names of the arrays of a ``.npz`` that is not divided."""

TEST_SHARE = 0.2
"""Share of the samples that are for testing, where neither the data nor the caller say which."""

_MNIST = Path(__file__).parent / "mnist"


@dataclass(frozen=True)
class Dataset:
    """Samples and labels for training and testing.

    Attributes
    ----------
    name : str
        ``"mnist"``, or the file or folder it was read from.
    x_train, x_test : array (n, n_in)
        A row for each sample: uint8 pixels, or floating values that are used as they are.
    y_train, y_test : int64 array (n,)
        Classes ``0 ... n_classes - 1``.
    classes : array (n_classes,), optional
        The label of each class; None if the labels are those numbers.
    features : tuple of str, optional
        The names of the columns, if it was a table.
    target : str, optional
        The name of the column of the labels.
    """

    name: str
    x_train: npt.NDArray[Any]
    y_train: npt.NDArray[np.int64]
    x_test: npt.NDArray[Any]
    y_test: npt.NDArray[np.int64]
    classes: npt.NDArray[Any] | None = None
    features: tuple[str, ...] | None = None
    target: str | None = None

    @property
    def n_in(self) -> int:
        """Values per sample."""
        return int(self.x_train.shape[1])

    @property
    def n_classes(self) -> int:
        """How many classes there are; if they have no labels, one more than the largest number."""
        return int(max(self.y_train.max(), self.y_test.max())) + 1 if self.classes is None else len(self.classes)


def load(
    source: str | os.PathLike[str] | None = None, *, target: str | None = None, test_share: float | None = None, seed: int = 0
) -> Dataset:
    """Read a data set.

    Parameters
    ----------
    source : str or path, optional
        ``"mnist"``: the one in the package, its checksums verified. A folder: IDX files named as those of MNIST, plain or ``.gz``
        (Fashion-MNIST, EMNIST, KMNIST come that way). A file ``.npz`` with the arrays ``x_train``, ``y_train``, ``x_test`` and
        ``y_test``, or with ``x`` and ``y``. A table ``.csv`` or ``.csv.gz`` whose first line names the columns (extra ``tables``).
        By default the environment variable ``MLP_ACCEL_DATA_DIR``, else ``"mnist"``.
    target : str, optional
        The column of a table that holds the labels; all others are the values of the samples.
    test_share : float, optional
        Where the data are not divided: the share of each class that is for testing, by default 0.2.
    seed : int
        Which samples those are.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If it is missing or malformed; names the file and the field.
    SettingError
        If a target or a share does not fit the kind of data.
    """
    origin = ""
    if source is None:
        source = os.environ.get(ENVIRONMENT_VARIABLE, "").strip() or "mnist"
        origin = f" (from the environment variable {ENVIRONMENT_VARIABLE})" if source != "mnist" else ""
    path = Path(source)
    raw: Mapping[str, npt.NDArray[Any]]
    try:
        if source != "mnist" and is_table(path) and path.is_file():
            return _divided(str(source), *_read_whole_table(path, target), target, test_share, seed)
        if target is not None:
            raise SettingError(f"{source}{origin}: only a table, a file .csv, has a target column; got {target!r}")
        if source == "mnist":
            raw = idx.read_folder(_MNIST, checksums=_MNIST / "SHA256SUMS")
        elif str(source) and path.is_dir():
            raw = idx.read_folder(path)
        elif path.is_file():
            raw = read_npz(path, DatasetError, WHOLE if set(array_names(path, DatasetError)) == set(WHOLE) else FIELDS)
        else:
            raw = {}
    except OSError as error:  # a path too long, a folder that may not be read
        raise DatasetError(f"{source}{origin}: cannot be read: {error.strerror or error}") from error
    if not raw:
        kinds = "give mnist, a folder of IDX files, a file .npz or a table .csv"
        raise DatasetError(f"{source}{origin}: no such file or folder; {kinds}")
    if set(raw) == set(WHOLE):
        return _divided(str(source), raw["x"], raw["y"], None, None, test_share, seed)
    if test_share is not None:
        raise SettingError(f"{source}{origin}: has test samples of its own; a share for testing is for data that have none")
    return _checked(str(source), raw)


def load_samples(
    source: str | os.PathLike[str], features: Sequence[str] | None = None, target: str | None = None
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Read samples to predict, and their labels where the file has them.

    Parameters
    ----------
    source : str or path
        A table ``.csv``; a file ``.npz`` with ``x`` or ``x_test`` (and ``y`` or ``y_test``); a file of IDX images, plain or
        ``.gz``; or what `load` takes, of which these are the test samples.
    features, target : optional
        The columns of a table, as in training. Without them all columns are values of the samples; the target may be missing.

    Returns
    -------
    x : array (n, n_in)
    labels : array (n,) or None

    Raises
    ------
    DatasetError
        If it is missing or malformed; names the file and the field.
    """
    path = Path(source)
    if source == "mnist" or path.is_dir():
        data = load(source)
        return data.x_test, data.y_test
    if not path.is_file():
        raise DatasetError(f"{source}: no such file; give a table .csv, a file .npz or a file of IDX images")
    if is_table(path):
        x, labels, _ = read_table(path, target, features, optional_target=True)
        return x, labels
    if path.suffix == ".npz":
        names = array_names(path, DatasetError)
        ending = "" if "x" in names else "_test"
        wanted = [name for name in (f"x{ending}", f"y{ending}") if name in names or name.startswith("x")]
        raw = read_npz(path, DatasetError, wanted)
        x = raw[f"x{ending}"]
        if x.ndim < 2:
            raise DatasetError(f"{path}: x{ending} has the shape {x.shape}; it needs samples and at least one more dimension")
        return x.reshape(len(x), -1), raw.get(f"y{ending}")
    images = idx.read(path, 3)
    return images.reshape(len(images), -1), None


def _read_whole_table(path: Path, target: str | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[str, ...]]:
    """Samples, labels and names of the columns of a table."""
    if target is None:
        raise SettingError(f"{path}: which column holds the labels? Give the target: one of {', '.join(table_columns(path))}")
    x, labels, features = read_table(path, target)
    if labels is None or not features:
        raise DatasetError(f"{path}: has no column beside the target {target!r}")
    return x, labels, tuple(features)


def _divided(
    name: str,
    x: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    features: tuple[str, ...] | None,
    target: str | None,
    test_share: float | None,
    seed: int,
) -> Dataset:
    """A data set that is divided in training and test samples here."""
    if labels.ndim != 1 or labels.dtype.kind not in "biuU" or len(labels) != len(x) or len(x) == 0:
        raise DatasetError(
            f"{name}: y must be a label for each of the {len(x)} samples, at least one; it is {labels.shape} of {labels.dtype}"
        )
    classes, numbers = np.unique(labels, return_inverse=True)
    if len(classes) > MAX_CLASSES:
        raise DatasetError(f"{name}: {len(classes)} classes are too many; at most {MAX_CLASSES}")
    test = stratified_share(numbers, TEST_SHARE if test_share is None else test_share, seed)
    train = ~test
    raw = {"x_train": x[train], "y_train": numbers[train], "x_test": x[test], "y_test": numbers[test]}
    return replace(_checked(name, raw), classes=classes, features=features, target=target)


def _checked(name: str, raw: Mapping[str, npt.NDArray[Any]]) -> Dataset:
    """The arrays of `raw` as a `Dataset`, if they fit together."""
    samples: dict[str, npt.NDArray[Any]] = {}
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for part in ("train", "test"):
        x, y = raw[f"x_{part}"], raw[f"y_{part}"]
        if x.ndim < 2:
            raise DatasetError(f"{name}: x_{part} has the shape {x.shape}; it needs samples and at least one more dimension")
        if x.size == 0:
            raise DatasetError(f"{name}: x_{part} is empty, its shape is {x.shape}")
        if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
            raise DatasetError(f"{name}: x_{part} has the dtype {x.dtype}; it must be uint8 (pixels) or floating")
        if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
            raise DatasetError(f"{name}: y_{part} must be integer labels (n,); its shape is {y.shape}, its dtype {y.dtype}")
        if len(x) != len(y):
            raise DatasetError(f"{name}: x_{part} has {len(x)} samples, y_{part} has {len(y)} labels")
        if y.min() < 0 or y.max() >= MAX_CLASSES:
            raise DatasetError(f"{name}: y_{part} has labels from {y.min()} to {y.max()}; they must lie in 0 to {MAX_CLASSES - 1}")
        if x.dtype != np.uint8 and not np.isfinite(x).all():
            raise DatasetError(f"{name}: x_{part} has values that are not finite")
        samples[part] = x.reshape(len(x), -1)
        labels[part] = y.astype(np.int64)
    n_train, n_test = samples["train"].shape[1], samples["test"].shape[1]
    if n_train != n_test:
        raise DatasetError(f"{name}: x_train has {n_train} values a sample, x_test has {n_test}")
    if samples["train"].dtype != samples["test"].dtype:
        dtypes = f"{samples['train'].dtype} and {samples['test'].dtype}"
        raise DatasetError(f"{name}: x_train and x_test differ in dtype: {dtypes}; uint8 is scaled, floating is not")
    if labels["test"].max() > labels["train"].max():
        largest = f"{labels['test'].max()}, the largest in y_train is {labels['train'].max()}"
        raise DatasetError(f"{name}: y_test has the label {largest}: labels out of range")
    return Dataset(name, samples["train"], labels["train"], samples["test"], labels["test"])
