"""Epoch after epoch: what is recorded, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mlp_accel.training.fastest import selection
from mlp_accel.training.history import DIVERGED, DONE, INTERRUPTED, STOPPED, History
from mlp_accel.training.snapshot import Snapshot
from mlp_accel.training.trainer import EpochResult, Trainer
from mlp_accel.training.validation import Validation

Callback = Callable[[History], object]
"""Called after every epoch; one that returns true ends the training."""


def run(
    trainer: Trainer,
    epochs: int,
    callbacks: Sequence[Callback] = (),
    validations: Sequence[Validation | None] = (),
    resumed: History | None = None,
) -> list[History]:
    """Train to the end, to a loss that is not finite, until patience runs out, or to Ctrl-C; a history for each network.

    `validations` has one for each network, or none at all. With `resumed`, the history of a single network up to now, that is gone
    on with.
    """
    histories = [resumed] if resumed else new_histories(trainer)
    reason = selection(trainer)
    for history in histories:
        history.selection = reason
    whole = [history.mark() for history in histories]
    training = list(range(len(histories)))
    validated_by = list(validations) or [None] * len(histories)
    try:
        while trainer.epochs_trained < epochs:
            result = trainer.epoch()
            for index, (network, snapshot) in enumerate(zip(training, trainer.snapshots(), strict=True)):
                _record(histories[network], result, index, snapshot, validated_by[network], trainer)
            for network in training:
                whole[network] = histories[network].mark()
            recorded = histories[0].status != DIVERGED  # else this epoch is none
            votes = [callback(histories[0]) for callback in callbacks if recorded]  # also those behind one that returned true
            left = [index for index, network in enumerate(training) if histories[network].status == DONE]
            if any(votes) or not left:
                break
            if len(left) < len(training):
                trainer.keep(left)
                training = [training[index] for index in left]
    except KeyboardInterrupt:
        for history, mark in zip(histories, whole, strict=True):
            history.back_to(mark)
            if history.status == DONE:
                history.status, history.reason = INTERRUPTED, "Ctrl-C"
    return histories


def new_histories(trainer: Trainer) -> list[History]:
    """For each network a history without epochs, and the parameters at which it starts."""
    histories, name = [], trainer.backend.name
    for network, state in enumerate(trainer.states()):
        taken = trainer.taken_by(network)
        histories.append(History(params=list(state.params), backend=name, path=taken.name, passed_over=list(taken.passed_over)))
    return histories


def _record(
    history: History, result: EpochResult, index: int, snapshot: Snapshot, validation: Validation | None, trainer: Trainer
) -> None:
    """Write an epoch down in the history of a network, the one with this index among those that are still trained."""
    loss, accuracy = result.losses[index], result.accuracies[index]
    problem = _not_finite("loss", loss, snapshot)
    if problem is None and validation is not None:
        validation_loss, validation_accuracy = validation.evaluate(snapshot.params)
        problem = _not_finite("validation loss", validation_loss, snapshot)
    if problem is not None:
        reason = f"{problem} in epoch {snapshot.epochs} at learning rate {trainer.learning_rates[index]:g}"
        history.status, history.reason = DIVERGED, reason
        return
    history.loss.append(loss)
    history.accuracy.append(accuracy)
    history.seconds.append(result.seconds)
    history.rests = trainer.rests
    history.last = snapshot
    if validation is None:
        history.params = list(snapshot.params)
        return
    history.validation_loss.append(validation_loss)
    history.validation_accuracy.append(validation_accuracy)
    validated = (history.validation_loss, history.validation_accuracy)
    history.best_epoch = validation.stopping.best_epoch(*validated)
    if history.best_epoch == len(history):
        history.params = list(snapshot.params)
    reason_to_stop = validation.stopping.reason_to_stop(*validated)
    if reason_to_stop is not None:
        history.status, history.reason = STOPPED, reason_to_stop


def _not_finite(what: str, loss: float, snapshot: Snapshot) -> str | None:
    """What has diverged, or None: the loss, or a parameter, by the last update of the epoch, after which no loss was computed."""
    if not math.isfinite(loss):
        return f"the {what} is {loss}"
    if not all(np.isfinite(array).all() for pair in snapshot.params for array in pair):
        return "a parameter became infinite or NaN"
    return None
