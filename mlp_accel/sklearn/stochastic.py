"""The solvers sgd and adam: epochs of minibatches, and scikit-learn's rules of when they end and how the rate changes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from mlp_accel.activations import Activation
from mlp_accel.backends.arrays import Slots
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import to_backend
from mlp_accel.inputs import take
from mlp_accel.optimizers import Optimizer
from mlp_accel.sklearn.rules import first_slots, optimizer_of, penalty_shares
from mlp_accel.training.evaluate import mean_loss, on_device, pieces
from mlp_accel.training.fastest import Fastest, resolve, selection
from mlp_accel.training.snapshot import Snapshot
from mlp_accel.training.trainer import Trainer

SMALLEST_RATE = 1e-6
"""A rate that adapts falls no further; the training then ends."""

Params = Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]


@dataclass
class Solver:
    """An optimiser at work: what it remembers from one call of ``partial_fit`` to the next.

    Attributes
    ----------
    rate : float
        The learning rate of the next epoch.
    slots, steps
        As in `Snapshot`.
    epochs_without_progress : int
        How many in a row, up to now.
    """

    optimizer: Optimizer
    rate: float
    slots: Slots
    steps: int = 0
    epochs_without_progress: int = 0

    @staticmethod
    def start(estimator: Any, params: Params) -> Solver:
        """The optimiser that the parameters of an estimator describe, at its start."""
        optimizer = optimizer_of(estimator)
        return Solver(optimizer, float(estimator.learning_rate_init), first_slots(optimizer, params))


class Validation:
    """Samples that are kept out of the training."""

    def __init__(self, backend: Backend, x: Any, y: npt.NDArray[np.int64], layer_sizes: Sequence[int], activation: Activation):
        self.backend, self.activation = backend, activation
        self.x, self.y = on_device(backend, x, y, layer_sizes)

    def accuracy(self, params: Params) -> float:
        """Of a network with these parameters."""
        network = to_backend(self.backend, params)
        return mean_loss(self.backend, network, pieces(self.backend, self.x, self.y), self.activation)[1]


def keep_out(
    estimator: Any, x: Any, y: npt.NDArray[np.int64], rng: np.random.RandomState
) -> tuple[Any, npt.NDArray[np.int64], Any, npt.NDArray[np.int64]]:
    """Samples and labels for training, then those for validation; ValueError if these are fewer than two."""
    share = estimator.validation_fraction
    _, rows = train_test_split(np.arange(len(y)), random_state=rng, test_size=share, stratify=y)
    if len(rows) < 2:
        raise ValueError(f"validation_fraction={share} of {len(y)} samples is fewer than two; raise it, or give more samples")
    chosen = np.zeros(len(y), bool)
    chosen[rows] = True
    return take(x, ~chosen), y[~chosen], take(x, chosen), y[chosen]


def fastest(
    estimator: Any,
    wish: Fastest,
    params: Params,
    x: Any,
    y: npt.NDArray[np.int64],
    activation: Activation,
    threads: int,
    before: str | None,
) -> tuple[Backend, str | None]:
    """The backend and the path that train this network on these data fastest; the backend `before`, if there was one."""
    trainer_of = partial(
        Trainer,
        batch_size=200 if estimator.batch_size == "auto" else int(estimator.batch_size),
        activation=activation,
        optimizers=optimizer_of(estimator),
        learning_rates=float(estimator.learning_rate_init),
    )
    path = estimator.path if before is None else estimator.path_
    return resolve(wish, path, trainer_of, x, y, [Snapshot(params)], threads, before=before)


def train(
    estimator: Any,
    solver: Solver,
    params: Params,
    backend: Backend,
    path: str | None,
    x: Any,
    y: npt.NDArray[np.int64],
    activation: Activation,
    threads: int,
    seed: int,
    epochs: int,
    validation: Validation | None = None,
) -> Params:
    """Train until there is no progress any more, or for so many epochs.

    Returns the parameters of the last epoch or, with validation, of the best one.

    Writes ``n_iter_``, ``loss_``, ``loss_curve_`` and the like of the estimator, and what `solver` remembers.

    Raises
    ------
    ValueError
        If the loss or a parameter becomes NaN or infinite.
    """
    trainer = Trainer(
        *(x, y, [Snapshot(params, solver.slots, steps=solver.steps)], backend),
        batch_size=_batch_size(estimator, len(y)),
        activation=activation,
        optimizers=solver.optimizer,
        learning_rates=solver.rate,
        seeds=seed,
        path=path,
        threads=threads,
        shuffle=estimator.shuffle,
    )
    estimator.path_, estimator.selection_, estimator.n_iter_, best = trainer.taken.name, selection(trainer), 0, params
    snapshot = trainer.snapshots()[0]
    after, n_batches = _squares(params), -(-len(y) // trainer.batch_size)
    try:
        for _ in range(epochs):
            loss = trainer.epoch().losses[0]
            snapshot = trainer.snapshots()[0]
            before, after = after, _squares(snapshot.params)
            loss += estimator.alpha / 2 * n_batches / len(y) * (before + after) / 2
            if not (np.isfinite(loss) and all(np.isfinite(array).all() for pair in snapshot.params for array in pair)):
                reason = f"the loss is {loss} after epoch {estimator.n_iter_ + 1} at learning rate {solver.rate:g}"
                raise ValueError(f"{reason}: scale the data, or try a smaller learning_rate_init")
            if _record(estimator, solver, loss, validation, snapshot.params):
                best = snapshot.params
            estimator.t_ += len(y)
            if _ends(estimator, solver):
                break
            trainer.learning_rates[0] = solver.rate
        else:
            if epochs == estimator.max_iter:
                message = f"Maximum iterations ({epochs}) reached and the training has not converged yet."
                warnings.warn(message, ConvergenceWarning, stacklevel=5)
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    solver.steps = snapshot.steps
    solver.slots = solver.slots if snapshot.slots is None else snapshot.slots
    return snapshot.params if validation is None else best


def _squares(params: Params) -> float:
    """The sum of the squares of the weights, each times its share of the penalty."""
    layers = zip(params, penalty_shares(params), strict=True)
    return sum(share * float(np.vdot(weights, weights)) for (weights, _), share in layers)


def _batch_size(estimator: Any, n: int) -> int:
    if estimator.batch_size == "auto":
        return min(200, n)
    if estimator.batch_size > n:
        warnings.warn(f"batch_size={estimator.batch_size} is more than the {n} samples; all are one minibatch", stacklevel=6)
    return min(int(estimator.batch_size), n)


def _record(estimator: Any, solver: Solver, loss: float, validation: Validation | None, params: Params) -> bool:
    """Write an epoch down; whether it is the best one so far."""
    is_best: bool
    estimator.n_iter_ += 1
    estimator.loss_ = loss
    estimator.loss_curve_.append(loss)
    _say(estimator, f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
    if validation is None:
        is_best = loss < estimator.best_loss_
        progress = loss <= estimator.best_loss_ - estimator.tol
        estimator.best_loss_ = min(loss, estimator.best_loss_)
    else:
        score = validation.accuracy(params)
        estimator.validation_scores_.append(score)
        _say(estimator, f"Validation score: {score:f}")
        is_best = score > estimator.best_validation_score_
        progress = score >= estimator.best_validation_score_ + estimator.tol
        estimator.best_validation_score_ = max(score, estimator.best_validation_score_)
    solver.epochs_without_progress = 0 if progress else solver.epochs_without_progress + 1
    return is_best


def _ends(estimator: Any, solver: Solver) -> bool:
    """Whether the training ends after this epoch; if it does not, the rate of the next one is set."""
    adapts = estimator.solver == "sgd" and estimator.learning_rate == "adaptive"
    if estimator.solver == "sgd" and estimator.learning_rate == "invscaling":
        solver.rate = float(estimator.learning_rate_init) / (estimator.t_ + 1) ** estimator.power_t
    if solver.epochs_without_progress <= estimator.n_iter_no_change:
        return False
    what = "Training loss" if estimator.validation_scores_ is None else "Validation score"
    reason = f"{what} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} consecutive epochs."
    if not adapts or solver.rate <= SMALLEST_RATE:
        _say(estimator, f"{reason} {'Learning rate too small. ' if adapts else ''}Stopping.")
        return True
    solver.rate, solver.epochs_without_progress = solver.rate / 5, 0
    _say(estimator, f"{reason} Setting learning rate to {solver.rate:f}")
    return False


def _say(estimator: Any, line: str) -> None:
    if estimator.verbose:
        sys.stdout.write(f"{line}\n")
