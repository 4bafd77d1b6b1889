"""Samples that are kept out of the training and tell after each epoch how good the network is on what it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import to_backend
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.training.checks import check_labels
from mlp_accel.training.evaluate import mean_loss, pieces

MONITORS = ("loss", "accuracy")

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Samples and their labels."""


@dataclass(frozen=True)
class EarlyStopping:
    """Which epoch is the best one, and when there is no hope of a better one.

    Attributes
    ----------
    monitor : {"loss", "accuracy"}
        What tells of two epochs which is the better one.
    patience : int, optional
        The training ends after so many epochs in a row without progress; by default never.
    min_delta : float
        By how much an epoch must be better than the last one that was progress, to be progress itself. The best epoch is the best
        one by however little; of several the first.

    Raises
    ------
    SettingError
        If a setting is out of range.
    """

    monitor: str = "loss"
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_choice("monitor", self.monitor, MONITORS)
        if self.patience is not None and self.patience < 1:
            raise SettingError(f"patience must be at least 1 epoch; got {self.patience}")
        if not (math.isfinite(self.min_delta) and self.min_delta >= 0):
            raise SettingError(f"min_delta must be a number, 0 or more; got {self.min_delta}")

    def best_epoch(self, losses: Sequence[float], accuracies: Sequence[float]) -> int:
        """The number, from 1, of the best of the epochs that had these losses and accuracies on the validation samples."""
        values = self._to_minimise(losses, accuracies)
        return values.index(min(values)) + 1

    def reason_to_stop(self, losses: Sequence[float], accuracies: Sequence[float]) -> str | None:
        """Why the training is to end after these epochs, or None if it is to go on."""
        lowest, waited = math.inf, 0
        for value in self._to_minimise(losses, accuracies):
            lowest, waited = (value, 0) if value < lowest - self.min_delta else (lowest, waited + 1)
        if self.patience is None or waited < self.patience:
            return None
        return f"the validation {self.monitor} has not become better for {waited} epochs"

    def _to_minimise(self, losses: Sequence[float], accuracies: Sequence[float]) -> list[float]:
        return list(losses) if self.monitor == "loss" else [-accuracy for accuracy in accuracies]


class Validation:
    """Samples on the device that networks are evaluated on after each epoch.

    Parameters
    ----------
    pair : (x, y)
        As for training.
    stopping : EarlyStopping
    n_in, n_classes : int
        Of the networks.

    Raises
    ------
    ValueError
        If samples, labels and networks do not fit together.
    """

    def __init__(
        self, backend: Backend, pair: Pair, stopping: EarlyStopping, activation: Activation, n_in: int, n_classes: int
    ) -> None:
        x, y = pair
        check_labels(y, len(x), n_classes)
        self.backend, self.stopping, self.activation = backend, stopping, activation
        self.pieces = list(pieces(backend, x, y, n_in))

    def evaluate(self, params: Sequence[tuple[Any, Any]]) -> tuple[float, float]:
        """Mean loss and accuracy of a network."""
        return mean_loss(self.backend, to_backend(self.backend, params), self.pieces, self.activation)


def kept_out(
    x: npt.NDArray[Any], y: npt.NDArray[Any], validation: Pair | float | None, seed: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Pair | None]:
    """The samples and labels to train on, and those to validate on: a pair that is given, or a share of `x` and `y`.

    Raises
    ------
    SettingError
        If the share is no number between 0 and 1, or leaves nothing to train or to validate on.
    ValueError
        If one of the pair is pixels and the other is not: uint8 is scaled, floating is not.
    """
    if validation is None:
        return x, y, None
    if isinstance(validation, tuple):
        x_validation, y_validation = validation
        if (x.dtype == np.uint8) != (x_validation.dtype == np.uint8):
            dtypes = f"{x.dtype} and {x_validation.dtype}"
            raise ValueError(f"samples for training and for validation differ in dtype: {dtypes}; uint8 is scaled, floating is not")
        return x, y, (x_validation, y_validation)
    chosen = stratified_share(y, validation, seed)
    return x[~chosen], y[~chosen], (x[chosen], y[chosen])


def stratified_share(y: npt.NDArray[Any], share: float, seed: int) -> npt.NDArray[np.bool]:
    """Choose a share of the samples at random, the same share of every class up to rounding.

    Parameters
    ----------
    y : array (n,)
        Labels of any kind.
    share : float
        Between 0 and 1.
    seed : int
        Another stream than those of `init_params` and of the order of the samples.

    Returns
    -------
    array (n,)
        Whether each sample is chosen. ``share * n`` of them are, rounded; of every class one at least is not.

    Raises
    ------
    SettingError
        If the share is no number between 0 and 1, or so small or large that nothing is left on one side.
    """
    if not (isinstance(share, float | int | np.number) and 0 < share < 1):
        raise SettingError(f"validation must be samples and labels, or a share of them between 0 and 1; got {share!r}")
    _, classes, counts = np.unique(y, return_inverse=True, return_counts=True)
    exact = share * counts
    numbers = np.floor(exact).astype(np.int64)
    missing = round(share * len(y)) - int(numbers.sum())
    numbers[np.argsort(numbers - exact, kind="stable")[: max(0, missing)]] += 1
    numbers = np.minimum(numbers, counts - 1)
    if not numbers.any():
        raise SettingError(f"a share of {share:g} of {len(y)} samples of {len(counts)} classes leaves none for validation")
    rng, chosen = np.random.default_rng([seed, 2]), np.zeros(len(y), bool)
    for number, rows in zip(numbers, np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1]), strict=True):
        chosen[rng.permutation(rows)[:number]] = True
    return chosen
