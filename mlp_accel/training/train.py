"""Training by gradient descent on minibatches, of one network (`mini_batch_sgd`) or of several (`train_many`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import mlp_accel
from mlp_accel.activations import Activation, find_activation
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import Step
from mlp_accel.backends.threads import thread_count
from mlp_accel.errors import SettingError
from mlp_accel.inputs import as_labels
from mlp_accel.optimizers import Optimizer, UpdateFunction, find_optimizer
from mlp_accel.schedules import Schedule, ScheduleFunction, find_schedule
from mlp_accel.training.checkpoint import Checkpoint, Start, trained_by
from mlp_accel.training.checks import Networks, check_rows, one_for_each
from mlp_accel.training.evaluate import evaluate
from mlp_accel.training.fastest import Fastest, resolve
from mlp_accel.training.fingerprint import (
    describe_activation,
    describe_array,
    describe_optimizer,
    describe_schedule,
    describe_start,
)
from mlp_accel.training.history import DIVERGED, History, NonFiniteLossError
from mlp_accel.training.run import Callback, run
from mlp_accel.training.snapshot import Snapshot
from mlp_accel.training.trainer import Trainer
from mlp_accel.training.trainer import learning_rate as find_rate
from mlp_accel.training.validation import EarlyStopping, Pair, Validation, kept_out, validation_pairs

__all__ = ["evaluate", "mini_batch_sgd", "train_many"]


def mini_batch_sgd(
    x: Any,
    y: Any,
    params: Sequence[tuple[Any, Any]] | Snapshot,
    *,
    epochs: int = 5,
    batch_size: int = 128,
    learning_rate: float | None = None,
    activation: str | Activation = "tanh",
    gradient: str = "exact",
    optimizer: str | Optimizer | UpdateFunction = "sgd",
    momentum: float | None = None,
    weight_decay: float | None = None,
    schedule: str | Schedule | ScheduleFunction = "constant",
    warmup: float | None = None,
    step_epochs: int | None = None,
    gamma: float | None = None,
    seed: int = 0,
    backend: Backend | Fastest | str | None = None,
    threads: int | None = None,
    path: str | None = None,
    step: Step | None = None,
    loss_average: str = "samples",
    validation: Pair | float | None = None,
    monitor: str = "loss",
    patience: int | None = None,
    min_delta: float = 0.0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 1.0,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Train a network by gradient descent on minibatches.

    Every epoch visits all samples in a fresh random order; the short last minibatch is used too.

    Parameters
    ----------
    x : array-like (n, n_in)
        uint8 pixels (scaled by 1/255) or other numbers (used as they are): an array, a tensor, a frame or a sparse matrix of a
        library that ``mlp_accel.inputs`` names.
    y : array-like (n,)
        Integer labels ``0 ... n_classes - 1``.
    params : list of (weights, bias), or Snapshot
        Where to start, as from `init_params`; not changed. With `History.last` of an earlier training that one goes on: optimiser,
        schedule and order of the samples too (then `seed` does not count), to the same bits as if it had never stopped.
    epochs, batch_size : int
        How often to visit every sample, those before a `Snapshot` included, and how many to average each gradient over.
    learning_rate : float, optional
        By default that of the optimiser: 0.5 for sgd (0.01 with the notebook's gradient, which is a sum).
    activation : str or Activation
        Activation of the hidden layers: a name in `mlp_accel.activations`, or one of your own.
    gradient : {"exact", "notebook"}
        See `backward`.
    optimizer : str, Optimizer or callable
        A name in `mlp_accel.optimizers`, or a rule of your own.
    momentum, weight_decay : float, optional
        Settings of the optimiser, where it has them.
    schedule : str, Schedule or callable
        How the learning rate goes from minibatch to minibatch: a name in `mlp_accel.schedules`, or a function ``(step, steps)`` of
        your own that returns what the learning rate is multiplied with.
    warmup : float, optional
        Share of all steps in which the learning rate rises.
    step_epochs, gamma : int, float, optional
        Settings of the schedule ``"step"``.
    seed : int
        Seed of the order of the samples, which is the same on every backend.
    backend : Backend or str, optional
        What to compute on; by default as `get_backend` chooses. ``"fastest"`` trains some epochs of this network by every backend
        and path that can run here, once, and takes the fastest; `History.selection` says which one that is, and why.
    threads : int, optional
        CPU threads; by default ``MLP_ACCEL_NUM_THREADS``, else the cores granted to the process.
    path : str, optional
        How an epoch is trained, by name: ``"loop"`` is `mlp_accel.network.train_step` in a loop; by default ``MLP_ACCEL_PATH``,
        else the backend's fastest path that can.
    step : callable, optional
        A step of your own, with the arguments and results of `mlp_accel.network.train_step`; it runs in the loop.
    loss_average : {"samples", "notebook"}
        ``"notebook"``: sum of the minibatch means over ``n // batch_size``, which is what the notebook prints.
    validation : (x, y) or float, optional
        Samples on which loss and accuracy are computed after each epoch; or a share of `x` and `y`, of each class alike, that is
        kept out of the training for this. The parameters that are returned are then those of the best epoch.
    monitor : {"loss", "accuracy"}
        Which of the two tells the best epoch.
    patience : int, optional
        End the training after so many epochs in a row without progress on these samples; by default it never ends early.
    min_delta : float
        By how much an epoch must be better to be progress.
    checkpoint : path, optional
        A file that is written after epochs, and from which the same call goes on if the process was killed: to the bits of a
        training that never stopped, without training again what is in it. Settings or data that differ from those of the file are
        an error. `epochs` may grow where the learning rates so far do not depend on it.
    checkpoint_every : float
        Least number of seconds between two writes; the end of the training is always written.
    callbacks : sequence of callable
        Each is called with the `History` after every epoch; one that returns true ends the training.

    Returns
    -------
    History
        With the trained parameters. Ctrl-C ends the training and returns what was reached.

    Raises
    ------
    SettingError
        If a setting is out of range.
    ValueError
        If data and parameters do not fit together.
    NonFiniteLossError
        If the loss becomes NaN or infinite.
    PathError
        If the path that was asked for cannot train this.
    CheckpointError
        If the checkpoint is damaged, of another training, or in use.
    OutputError
        If the checkpoint cannot be written. The one before is still there.
    """
    settings = find_optimizer(optimizer, momentum=momentum, weight_decay=weight_decay)
    rates = find_schedule(schedule, warmup=warmup, step_epochs=step_epochs, gamma=gamma)
    stopping = EarlyStopping.of(validation, monitor, patience, min_delta)
    if isinstance(params, Snapshot) and params.epochs >= epochs:
        raise SettingError(f"the snapshot has been trained for {params.epochs} epochs; there are none left of {epochs}")
    x, y, pair = kept_out(x, y, validation, seed)
    activation = find_activation(activation)
    rate = find_rate(learning_rate, settings, gradient)
    trainer_of = partial(
        Trainer,
        batch_size=batch_size,
        activation=activation,
        gradient=gradient,
        optimizers=[settings],
        learning_rates=[rate],
        seeds=[seed],
        loss_average=loss_average,
    )
    before = trained_by(Path(checkpoint)) if checkpoint is not None and Fastest.wished(backend) else None
    with _training(backend, path, threads, epochs, trainer_of, x, y, [params], step, before) as (used, path, n_threads):

        def train(start: Start, path: str | None, callbacks: Sequence[Callback], resumed: History | None) -> History:
            trainer = trainer_of(x, y, [start], used, schedule=rates, epochs=epochs, path=path, step=step, threads=n_threads)
            return run(trainer, epochs, callbacks, _validations(trainer, [pair], stopping), resumed)[0]

        if checkpoint is None:
            history = train(params, path, callbacks, None)
        else:
            steps = -(-len(y) // min(batch_size, len(y)))
            described = {
                "x": describe_array(x),
                "y": describe_array(as_labels(y)),
                "params": describe_start(params),
                "batch_size": min(batch_size, len(y)),
                "learning_rate": rate,
                "activation": describe_activation(activation),
                "gradient": gradient,
                "optimizer": describe_optimizer(settings),
                "schedule": describe_schedule(rates, steps),
                "seed": seed,
                "backend": used.name,
                "dtype": used.dtype,
                "step": None if step is None else getattr(step, "__name__", "a step of your own"),
                "loss_average": loss_average,
                "validation": None if pair is None else {"x": describe_array(pair[0]), "y": describe_array(as_labels(pair[1]))},
                "early_stopping": None if pair is None else asdict(stopping),
                "threads": n_threads,
                "device": used.device,
                "versions": {"mlp_accel": mlp_accel.__version__, "numpy": np.__version__, **used.versions()},
            }
            with Checkpoint(Path(checkpoint), described, rates, epochs, steps, checkpoint_every) as keeper:
                history = keeper.train(train, params, path, callbacks, len(settings.slots))
    if history.status == DIVERGED:
        raise NonFiniteLossError(str(history.reason), history)
    return history


def train_many(
    x: Any,
    y: Any,
    networks: Networks,
    *,
    epochs: int = 5,
    batch_size: int = 128,
    learning_rates: float | Sequence[float] | None = None,
    activation: str | Activation = "tanh",
    gradient: str = "exact",
    optimizer: str | Optimizer | UpdateFunction = "sgd",
    momentum: float | Sequence[float] | None = None,
    weight_decay: float | Sequence[float] | None = None,
    schedule: str | Schedule | ScheduleFunction = "constant",
    warmup: float | None = None,
    step_epochs: int | None = None,
    gamma: float | None = None,
    seeds: Sequence[int] | None = None,
    backend: Backend | Fastest | str | None = None,
    threads: int | None = None,
    path: str | None = None,
    step: Step | None = None,
    loss_average: str = "samples",
    rows: Sequence[npt.ArrayLike] | None = None,
    validation: Pair | str | None = None,
    monitor: str = "loss",
    patience: int | None = None,
    min_delta: float = 0.0,
) -> list[History]:
    """Train several networks of the same layer sizes on the same data, or on rows of their own of the same data.

    Each result is, bit for bit, that of `mini_batch_sgd` with the network's own parameters, settings and seed. A path may train
    them side by side: the sparse path of the Numba backend spreads them over the cores, one thread each; the cluster path of CuPy
    trains them in one launch.

    Parameters
    ----------
    networks : sequence of list of (weights, bias)
        Where each starts, as from `init_params`; not changed.
    learning_rates, momentum, weight_decay : float or sequence of float, optional
        For all networks, or one for each.
    seeds : sequence of int, optional
        Seed of each network's order of the samples; by default 0, 1, 2, ...
    rows : sequence of array-like of int, optional
        For each network the numbers of the samples that it is trained on, as for cross-validation; by default all. Those with
        equally many can share a launch. The results do not depend on which networks are trained together. They are those of a
        training on a copy of the rows, unless the path looks at the samples to decide in which order it adds: the sparse path of
        Numba divides many inputs by how often each is not zero, so that the last digits differ.
    validation : (x, y) or "held_out", optional
        Samples that all networks are validated on, or for each network those that are not among its rows. One whose patience runs
        out is left out, and the others go on.

    The others are those of `mini_batch_sgd`.

    Returns
    -------
    list of History
        One for each network, with its trained parameters and its `status`: one whose loss becomes NaN or infinite is
        ``"diverged"``, keeps what it had reached before, and is left out; the others go on. ``seconds`` is the duration of an epoch
        of all networks together. Ctrl-C ends the training and returns what was reached.

    Raises
    ------
    SettingError
        If a setting is out of range.
    ValueError
        If data and parameters do not fit together.
    PathError
        If the path that was asked for cannot train this.
    """
    count = len(networks)
    given = {"momentum": momentum, "weight_decay": weight_decay}
    settings = {name: one_for_each(value, count, f"values of {name}") for name, value in given.items()}
    optimizers = [find_optimizer(optimizer, **{name: values[i] for name, values in settings.items()}) for i in range(count)]
    rates = find_schedule(schedule, warmup=warmup, step_epochs=step_epochs, gamma=gamma)
    stopping = EarlyStopping.of(validation, monitor, patience, min_delta)
    if rows is not None:
        rows = check_rows(rows, count, len(as_labels(y)))
    x, y, pairs = validation_pairs(x, y, validation, rows, count)
    trainer_of = partial(
        Trainer,
        batch_size=batch_size,
        activation=activation,
        gradient=gradient,
        optimizers=optimizers,
        learning_rates=learning_rates,
        seeds=range(count) if seeds is None else seeds,
        loss_average=loss_average,
        rows=rows,
    )
    with _training(backend, path, threads, epochs, trainer_of, x, y, networks, step) as (used, path, n_threads):
        trainer = trainer_of(x, y, networks, used, schedule=rates, epochs=epochs, path=path, step=step, threads=n_threads)
        return run(trainer, epochs, validations=_validations(trainer, pairs, stopping))


def _validations(trainer: Trainer, pairs: Sequence[Pair | None], stopping: EarlyStopping) -> list[Validation | None]:
    """For each network how it is validated; the same object for the same samples, which are put on the device once."""
    task, sizes = trainer.task, trainer.task.layer_sizes
    different = {id(pair): pair for pair in pairs}
    made = {
        name: None if pair is None else Validation(trainer.backend, pair, stopping, task.activation, sizes[0], sizes[-1])
        for name, pair in different.items()
    }
    return [made[id(pair)] for pair in pairs]


@contextmanager
def _training(
    backend: Backend | Fastest | str | None,
    path: str | None,
    threads: int | None,
    epochs: int,
    trainer_of: Callable[..., Trainer],
    x: Any,
    y: Any,
    networks: Sequence[Any],
    step: Step | None,
    before: str | None = None,
) -> Iterator[tuple[Backend, str | None, int]]:
    """The backend, with the number of threads that it may use inside the context, and the path to ask for.

    Training goes on by the backend `before`, that of a checkpoint, if the fastest is wished for.
    """
    if epochs < 1:
        raise SettingError(f"the number of epochs must be at least 1; got {epochs}")
    count = thread_count(threads)
    # A loss that is not finite is an error of its own; NumPy's warnings about overflow would add nothing.
    with np.errstate(all="ignore"):
        used, path = resolve(backend, path, trainer_of, x, y, networks, count, step, before)
        with used.limit_threads(count):
            yield used, path, count
