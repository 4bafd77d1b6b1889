"""The data of a search: where workers find them, and which samples each network is trained on and judged by."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel import datasets
from mlp_accel.datasets.split import stratified_share
from mlp_accel.errors import MlpAccelError, SettingError
from mlp_accel.training.checks import check_labels

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Samples ``(n, n_in)`` and their labels ``(n,)``."""


class UnfitWorkerError(MlpAccelError, RuntimeError):
    """A worker has other versions or other data than the search; the message names it and the difference."""


@dataclass(frozen=True)
class Source:
    """Where the samples are: what a task carries in their place.

    Attributes
    ----------
    name : str or None
        As `datasets.load` takes it; None for arrays that came from memory.
    folder : str
        A folder of this host with the same arrays as files that processes map into their memory, so that they share it.
    fingerprint : str
        Of samples and labels.
    shape : (int, int)
        Samples, and values per sample.
    n_classes : int
        One more than the largest label.
    """

    name: str | None
    folder: str
    fingerprint: str
    shape: tuple[int, int]
    n_classes: int


@dataclass(frozen=True)
class Split:
    """Which samples judge a network: a share that is kept out of the training, or each of some folds in turn.

    Attributes
    ----------
    validation : float or None
        The share, of each class alike.
    folds : int or None
        In how many parts the samples are dealt; a network is trained on all but one of them.
    seed : int
        Of the choice.

    Raises
    ------
    SettingError
        If there is no such split.
    """

    validation: float | None = 0.1
    folds: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds is not None and self.folds < 2:
            raise SettingError(f"the number of folds must be at least 2; got {self.folds}")
        if self.folds is None and not (self.validation is not None and 0 < self.validation < 1):
            raise SettingError(f"the share of the samples for validation must lie between 0 and 1; got {self.validation}")

    @property
    def parts(self) -> tuple[int | None, ...]:
        """The folds that are the judge in turn; a share is one part without a number."""
        return (None,) if self.folds is None else tuple(range(self.folds))

    def rows(self, y: npt.NDArray[Any], part: int | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The numbers of the samples to train on, and of those to judge by, each ascending.

        Raises
        ------
        SettingError
            If nothing is left on one side.
        """
        if self.folds is None:
            judges = stratified_share(y, float(self.validation or 0), self.seed)
            return np.flatnonzero(~judges), np.flatnonzero(judges)
        dealt = np.random.default_rng([self.seed, 2]).permutation(len(y))
        dealt = dealt[np.argsort(y[dealt], kind="stable")]  # class after class: what is dealt in turn has its share of each
        chosen = np.arange(len(y)) % self.folds == part
        if not 0 < chosen.sum() < len(y):
            raise SettingError(f"{len(y)} samples are too few for {self}: none are left to train on, or none to judge by")
        return np.sort(dealt[~chosen]), np.sort(dealt[chosen])


@contextmanager
def shared(data: datasets.Dataset | Arrays | str | Path | None) -> Iterator[Source]:
    """The training samples of a data set in files that the processes of this host share, as long as the context lasts.

    Parameters
    ----------
    data : Dataset, (x, y), str, path or None
        A data set, samples and labels, or what `datasets.load` takes. Test sets are not touched.

    Raises
    ------
    DatasetError, ValueError
        If they cannot be read, or do not fit together.
    """
    name: str | None = None
    if isinstance(data, tuple):
        x, y = np.asarray(data[0]), np.asarray(data[1])
        if x.ndim != 2:
            raise ValueError(f"x must be samples (n, n_in); its shape is {x.shape}")
        check_labels(y, len(x), datasets.MAX_CLASSES)
    else:
        dataset = data if isinstance(data, datasets.Dataset) else datasets.load(data)
        x, y = dataset.x_train, dataset.y_train
        name = dataset.name if dataset.name == "mnist" else str(Path(dataset.name).resolve())
    with tempfile.TemporaryDirectory(prefix="mlp-accel-tune.") as folder:
        for kind, array in (("x", x), ("y", y)):
            np.save(Path(folder) / f"{kind}.npy", np.ascontiguousarray(array))
        yield Source(name, folder, fingerprint(x, y), (x.shape[0], x.shape[1]), int(y.max()) + 1)


def fingerprint(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> str:
    """Tells samples and labels from all others: a hash of their dtypes, shapes and values."""
    digest = hashlib.blake2b(digest_size=8)
    for array in (x, y.astype(np.int64)):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def find(source: Source) -> Arrays:
    """The samples and labels of a source, in a worker; they stay in memory until others are asked for.

    Raises
    ------
    UnfitWorkerError
        If they are not to be had here, or are others.
    """
    folder = Path(source.folder)
    if folder.is_dir():
        return np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "y.npy")
    if source.name is None:
        raise UnfitWorkerError(
            "the data came from memory and are on another host: give a file or folder that every worker can read"
        )
    try:
        dataset = datasets.load(source.name)
    except MlpAccelError as error:
        raise UnfitWorkerError(f"the data cannot be read: {error}") from error
    found = fingerprint(dataset.x_train, dataset.y_train)
    if found != source.fingerprint:
        raise UnfitWorkerError(f"{source.name} has the fingerprint {found}, the search has {source.fingerprint}: other data")
    return dataset.x_train, dataset.y_train
