"""Training by gradient descent on minibatches, of one network (`mini_batch_sgd`) or of several (`train_many`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation
from mlp_accel.backends import get_backend
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import Step
from mlp_accel.backends.paths import State
from mlp_accel.backends.threads import thread_count
from mlp_accel.errors import SettingError
from mlp_accel.optimizers import Optimizer, UpdateFunction, find_optimizer
from mlp_accel.schedules import Schedule, ScheduleFunction, find_schedule
from mlp_accel.training.checks import Networks, one_for_each
from mlp_accel.training.evaluate import evaluate
from mlp_accel.training.history import DIVERGED, INTERRUPTED, History, NonFiniteLossError
from mlp_accel.training.trainer import Trainer

__all__ = ["evaluate", "mini_batch_sgd", "train_many"]

Callback = Callable[[History], object]
"""Called after every epoch; one that returns true ends the training."""


def mini_batch_sgd(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    params: Sequence[tuple[Any, Any]],
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
    backend: Backend | str | None = None,
    threads: int | None = None,
    path: str | None = None,
    step: Step | None = None,
    loss_average: str = "samples",
    callbacks: Sequence[Callback] = (),
) -> History:
    """Train a network by gradient descent on minibatches.

    Every epoch visits all samples in a fresh random order; the short last minibatch is used too.

    Parameters
    ----------
    x : array (n, n_in)
        uint8 pixels (scaled by 1/255) or floating values (used as they are).
    y : array (n,)
        Integer labels ``0 ... n_classes - 1``.
    params : list of (weights, bias)
        Where to start, as from `init_params`; not changed.
    epochs, batch_size : int
        How often to visit every sample, and how many to average each gradient over.
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
        What to compute on; by default as `get_backend` chooses.
    threads : int, optional
        CPU threads; by default ``MLP_ACCEL_NUM_THREADS``, else the cores granted to the process.
    path : str, optional
        How an epoch is trained, by name: ``"loop"`` is `mlp_accel.network.train_step` in a loop; by default ``MLP_ACCEL_PATH``,
        else the backend's fastest path that can.
    step : callable, optional
        A step of your own, with the arguments and results of `mlp_accel.network.train_step`; it runs in the loop.
    loss_average : {"samples", "notebook"}
        ``"notebook"``: sum of the minibatch means over ``n // batch_size``, which is what the notebook prints.
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
    """
    settings = find_optimizer(optimizer, momentum=momentum, weight_decay=weight_decay)
    rates = find_schedule(schedule, warmup=warmup, step_epochs=step_epochs, gamma=gamma)
    with _training(backend, threads, epochs) as (used, n_threads):
        trainer = Trainer(
            *(x, y, [params], used),
            batch_size=batch_size,
            activation=activation,
            gradient=gradient,
            optimizers=[settings],
            learning_rates=[learning_rate],
            schedule=rates,
            epochs=epochs,
            seeds=[seed],
            path=path,
            step=step,
            threads=n_threads,
            loss_average=loss_average,
        )
        (history,) = _run(trainer, epochs, callbacks)
    if history.status == DIVERGED:
        raise NonFiniteLossError(str(history.reason), history)
    return history


def train_many(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
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
    backend: Backend | str | None = None,
    threads: int | None = None,
    path: str | None = None,
    step: Step | None = None,
    loss_average: str = "samples",
) -> list[History]:
    """Train several networks of the same layer sizes on the same data.

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
    with _training(backend, threads, epochs) as (used, n_threads):
        trainer = Trainer(
            *(x, y, networks, used),
            batch_size=batch_size,
            activation=activation,
            gradient=gradient,
            optimizers=optimizers,
            learning_rates=learning_rates,
            schedule=rates,
            epochs=epochs,
            seeds=range(count) if seeds is None else seeds,
            path=path,
            step=step,
            threads=n_threads,
            loss_average=loss_average,
        )
        return _run(trainer, epochs)


@contextmanager
def _training(backend: Backend | str | None, threads: int | None, epochs: int) -> Iterator[tuple[Backend, int]]:
    """The backend, with the number of threads that it may use inside the context."""
    if epochs < 1:
        raise SettingError(f"the number of epochs must be at least 1; got {epochs}")
    used = backend if isinstance(backend, Backend) else get_backend(backend)
    count = thread_count(threads)
    # A loss that is not finite is an error of its own; NumPy's warnings about overflow would add nothing.
    with used.limit_threads(count), np.errstate(all="ignore"):
        yield used, count


def _not_finite(loss: float, state: State) -> str | None:
    """What has diverged, or None: the loss, or a parameter, by the last update of the epoch, after which no loss was computed."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not all(np.isfinite(array).all() for pair in state.params for array in pair):
        return "a parameter became infinite or NaN"
    return None


def _run(trainer: Trainer, epochs: int, callbacks: Sequence[Callback] = ()) -> list[History]:
    """Train to the end, to a loss that is not finite, or to Ctrl-C; a history for each network."""
    paths = [trainer.taken_by(network) for network in range(len(trainer.optimizers))]
    name = trainer.backend.name
    histories = [History(backend=name, path=taken.name, passed_over=list(taken.passed_over)) for taken in paths]
    training = list(range(len(histories)))
    states = trainer.states()
    for history, state in zip(histories, states, strict=True):
        history.params = state.params
    whole = {network: (0, state.params) for network, state in enumerate(states)}
    try:
        for epoch in range(1, epochs + 1):
            result = trainer.epoch()
            states = trainer.states()
            finite = []
            for index, (loss, state) in enumerate(zip(result.losses, states, strict=True)):
                problem = _not_finite(loss, state)
                if problem is None:
                    finite.append(index)
                    continue
                history, rate = histories[training[index]], trainer.learning_rates[index]
                history.status, history.reason = DIVERGED, f"{problem} in epoch {epoch} at learning rate {rate:g}"
            if not finite:
                break
            if len(finite) < len(training):
                trainer.keep(finite)
                training, states = [training[index] for index in finite], [states[index] for index in finite]
            for index, network, state in zip(finite, training, states, strict=True):
                history = histories[network]
                history.loss.append(result.losses[index])
                history.accuracy.append(result.accuracies[index])
                history.seconds.append(result.seconds)
                history.params = state.params
                history.rests = trainer.rests
            whole |= {network: (epoch, state.params) for network, state in zip(training, states, strict=True)}
            votes = [callback(histories[0]) for callback in callbacks]  # also those behind one that returned true
            if any(votes):
                break
    except KeyboardInterrupt:
        for network, history in enumerate(histories):
            history.cut(*whole[network])
            if history.status != DIVERGED:
                history.status, history.reason = INTERRUPTED, "Ctrl-C"
    return histories
