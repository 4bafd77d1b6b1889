"""Data sets: the MNIST that ships with the package, folders of IDX files and ``.npz`` files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.datasets import idx
from mlp_accel.datasets.npz import read_npz
from mlp_accel.errors import DatasetError

__all__ = ["ENVIRONMENT_VARIABLE", "MAX_CLASSES", "Dataset", "load"]

ENVIRONMENT_VARIABLE = "MLP_ACCEL_DATA_DIR"
MAX_CLASSES = 65_536
"""A label of this size or larger is taken for a mistake, not for a class."""

FIELDS = ("x_train", "y_train", "x_test", "y_test")

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
        Labels ``0 ... n_classes - 1``.
    """

    name: str
    x_train: npt.NDArray[Any]
    y_train: npt.NDArray[np.int64]
    x_test: npt.NDArray[Any]
    y_test: npt.NDArray[np.int64]

    @property
    def n_in(self) -> int:
        """Values per sample."""
        return int(self.x_train.shape[1])

    @property
    def n_classes(self) -> int:
        """One more than the largest label."""
        return int(max(self.y_train.max(), self.y_test.max())) + 1


def load(source: str | os.PathLike[str] | None = None) -> Dataset:
    """Read a data set.

    Parameters
    ----------
    source : str or path, optional
        ``"mnist"``: the one in the package, its checksums verified. A folder: IDX files named as those of MNIST, plain or ``.gz``
        (Fashion-MNIST, EMNIST, KMNIST come that way). A file ``.npz`` with the arrays ``x_train``, ``y_train``, ``x_test`` and
        ``y_test``. By default the environment variable ``MLP_ACCEL_DATA_DIR``, else ``"mnist"``.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If it is missing or malformed; names the file and the field.
    """
    origin = ""
    if source is None:
        source = os.environ.get(ENVIRONMENT_VARIABLE, "").strip() or "mnist"
        origin = f" (from the environment variable {ENVIRONMENT_VARIABLE})" if source != "mnist" else ""
    path = Path(source)
    raw: Mapping[str, npt.NDArray[Any]]
    try:
        if source == "mnist":
            raw = idx.read_folder(_MNIST, checksums=_MNIST / "SHA256SUMS")
        elif str(source) and path.is_dir():
            raw = idx.read_folder(path)
        elif path.is_file():
            raw = read_npz(path, DatasetError, FIELDS)
        else:
            raw = {}
    except OSError as error:  # a path too long, a folder that may not be read
        raise DatasetError(f"{source}{origin}: cannot be read: {error.strerror or error}") from error
    if not raw:
        raise DatasetError(f"{source}{origin}: no such file or folder; give mnist, a folder of IDX files or a file .npz")
    return _checked(str(source), raw)


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
