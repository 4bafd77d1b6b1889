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
from mlp_accel.datasets.split import stratified_share
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.inputs import as_labels, is_pixels, take
from mlp_accel.training.evaluate import mean_loss, on_device, pieces

MONITORS = ("loss", "accuracy")

HELD_OUT = "held_out"

Pair = tuple[Any, Any]
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

    @staticmethod
    def of(validation: object, monitor: str, patience: int | None, min_delta: float) -> EarlyStopping:
        """With these settings; SettingError if there is no validation, so that they would be ignored."""
        stopping = EarlyStopping(monitor, patience, min_delta)
        if validation is None and stopping != EarlyStopping():
            raise SettingError("monitor, patience and min_delta need samples to watch: give validation, such as validation=0.1")
        return stopping

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
        self.backend, self.stopping, self.activation = backend, stopping, activation
        self.x, self.y = on_device(backend, *pair, [n_in, n_classes])

    def evaluate(self, params: Sequence[tuple[Any, Any]]) -> tuple[float, float]:
        """Mean loss and accuracy of a network."""
        return mean_loss(self.backend, to_backend(self.backend, params), pieces(self.backend, self.x, self.y), self.activation)


def validation_pairs(
    x: Any, y: Any, validation: Pair | str | None, rows: Sequence[npt.NDArray[np.int64]] | None, count: int
) -> tuple[Any, Any, list[Pair | None]]:
    """The samples and labels to train on, and for each of `count` networks those to validate it on.

    Parameters
    ----------
    validation : (x, y), "held_out" or None
        A pair for all networks, or for each network the samples that are not among its `rows`.

    Raises
    ------
    SettingError
        If a network has no samples that are held out.
    """
    if not isinstance(validation, str):
        if rows is not None and validation is not None and not isinstance(validation, tuple):
            raise SettingError(f"beside rows validation is a pair of arrays or 'held_out'; got {validation!r}")
        x, y, pair = kept_out(x, y, validation, seed=0)
        return x, y, [pair] * count
    check_choice("validation", validation, (HELD_OUT,))
    if rows is None:
        raise SettingError("validation='held_out' needs rows: the samples that are not among those of a network")
    y, pairs = as_labels(y), dict[bytes, Pair]()
    found: list[Pair | None] = []
    for network, own in enumerate(rows):
        held_out = np.ones(len(y), bool)
        held_out[own] = False
        if not held_out.any():
            raise SettingError(f"no samples are held out of the training of network {network}: its rows are all of them")
        name = held_out.tobytes()
        if name not in pairs:
            pairs[name] = take(x, held_out), y[held_out]
        found.append(pairs[name])
    return x, y, found


def kept_out(x: Any, y: Any, validation: Pair | float | None, seed: int) -> tuple[Any, Any, Pair | None]:
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
        if is_pixels(x) != is_pixels(x_validation):
            dtypes = " and ".join(str(getattr(samples, "dtype", "numbers")) for samples in (x, x_validation))
            raise ValueError(f"samples for training and for validation differ in dtype: {dtypes}; uint8 is scaled, others are not")
        return x, y, (x_validation, y_validation)
    y = as_labels(y)
    chosen = stratified_share(y, validation, seed)
    return take(x, ~chosen), y[~chosen], (take(x, chosen), y[chosen])
