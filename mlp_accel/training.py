"""Training by minibatch stochastic gradient descent."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends import ACTIVATIONS, GRADIENTS, get_backend
from mlp_accel.backends.base import Array, Backend, Params
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.history import History, NonFiniteLossError
from mlp_accel.network import backward, forward, sgd
from mlp_accel.threads import thread_count
from mlp_accel.workspace import Workspace

LOSS_AVERAGES = ("samples", "notebook")


@dataclass(frozen=True)
class SGDStep:
    """One step of minibatch SGD, for `Backend.train_epoch`."""

    learning_rate: float
    activation: str = "tanh"
    gradient: str = "exact"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SettingError(f"the learning rate must be a positive number; got {self.learning_rate}")
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("gradient", self.gradient, GRADIENTS)

    def __call__(
        self, backend: Backend, params: Params, x: Array, y: Array, rows: Array, workspace: Workspace
    ) -> tuple[Params, Any, Any]:
        """Train on the samples `rows` of `x` and `y`; `params` may be overwritten.

        Returns
        -------
        params, loss, hits
            The new parameters, and the sum of the losses and the number of right answers before the update.
        """
        x, y = backend.minibatch(x, y, rows, out=workspace.x)
        outputs, y_hat = forward(backend, params, x, self.activation, workspace)
        logits = outputs[-1]
        loss, hits = backend.cross_entropy_from_logits(y, logits), backend.correct(y, logits)
        grads = backward(backend, params, outputs, y_hat, y, self.gradient, self.activation, workspace)
        return sgd(backend, params, grads, self.learning_rate, in_place=True), loss, hits


class Trainer:
    """A training run, epoch by epoch: data and parameters stay on the device between epochs.

    The parameters are those of `mini_batch_sgd`, which is the simple way to use this.

    Raises
    ------
    SettingError
        If a setting is out of range.
    ValueError
        If images, labels and parameters do not fit together.
    """

    def __init__(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        params: Sequence[tuple[Any, Any]],
        step: SGDStep,
        backend: Backend,
        *,
        batch_size: int = 128,
        seed: int = 0,
        fused: bool = True,
        loss_average: str = "samples",
    ) -> None:
        if batch_size < 1:
            raise SettingError(f"the batch size must be at least 1; got {batch_size}")
        self.loss_average = check_choice("loss average", loss_average, LOSS_AVERAGES)
        layer_sizes = check_params(params)
        check_labels(y, x.shape[0], layer_sizes[-1])
        self.backend, self.step = backend, step
        self.batch_size = min(batch_size, x.shape[0])
        self.params = to_backend(backend, params)
        self.x, self.y = backend.asarray(x), backend.asarray(y)
        backend.check_input(self.x, layer_sizes[0])
        self._workspace = Workspace.allocate(backend, layer_sizes, self.batch_size)
        self._rng = order_generator(seed)
        self._order = self._rng.permutation(x.shape[0])
        self._train_epoch = backend.train_epoch if fused else functools.partial(Backend.train_epoch, backend)
        self._images = backend.training_images(self.x) if fused else self.x
        backend.synchronize()

    def epoch(self) -> tuple[float, float, float]:
        """Train on every sample once, in a fresh random order.

        Returns
        -------
        loss, accuracy, seconds : float
            The loss may be non-finite: that is for the caller to judge.
        """
        start = time.perf_counter()
        order = self.backend.asarray(self._order)
        self.params, losses, hits = self._train_epoch(
            self.step, self.params, self._images, self.y, order, self.batch_size, self._workspace
        )
        self._order = self._rng.permutation(self.x.shape[0])  # of the next epoch, while a GPU still works on this one
        n, host = self.x.shape[0], self.backend.to_numpy
        loss, accuracy = (epoch_mean(host(sums), n, self.batch_size, self.loss_average) for sums in (losses, hits))
        self.backend.synchronize()
        return loss, accuracy, time.perf_counter() - start

    def host_params(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """The parameters as NumPy arrays."""
        host = self.backend.to_numpy
        return [(np.array(host(weights)), np.array(host(bias))) for weights, bias in self.params]  # copies


def order_generator(seed: int) -> np.random.Generator:
    """What draws the order of the samples: not the stream that drew the parameters."""
    return np.random.default_rng([seed, 1])


def epoch_mean(batch_sums: npt.NDArray[np.float64], n: int, batch_size: int, loss_average: str) -> float:
    """The mean over an epoch of `n` samples from the sums of its minibatches; `loss_average` as in `mini_batch_sgd`."""
    if loss_average == "samples":
        return float(batch_sums.sum() / n)
    sizes = np.full(len(batch_sums), batch_size)
    sizes[-1] = n - batch_size * (len(batch_sums) - 1)
    return float((batch_sums / sizes).sum() / (n // batch_size))  # one batch too few in the divisor, as the notebook


def mini_batch_sgd(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    params: Sequence[tuple[Any, Any]],
    *,
    epochs: int = 5,
    batch_size: int = 128,
    learning_rate: float = 0.5,
    activation: str = "tanh",
    gradient: str = "exact",
    seed: int = 0,
    backend: Backend | str | None = None,
    threads: int | None = None,
    fused: bool = True,
    loss_average: str = "samples",
    callbacks: Sequence[Callable[[History], object]] = (),
) -> History:
    """Train a network by stochastic gradient descent on minibatches.

    Every epoch visits all samples in a fresh random order; the short last minibatch is used too.

    Parameters
    ----------
    x : array (n, n_in)
        uint8 images (scaled by 1/255) or floating values (used as they are).
    y : array (n,)
        Integer labels ``0 ... n_classes - 1``.
    params : list of (weights, bias)
        Where to start, as from `init_params`; not changed.
    epochs, batch_size : int
        How often to visit every sample, and how many to average each gradient over.
    learning_rate : float
        Step size of SGD.
    activation : {"tanh", "relu", "sigmoid"}
        Of the hidden layers.
    gradient : {"exact", "notebook"}
        See `backward`.
    seed : int
        Of the order of the samples, which is the same on every backend.
    backend : Backend or str, optional
        What to compute on; by default as `get_backend` chooses.
    threads : int, optional
        CPU threads; by default ``MLP_ACCEL_NUM_THREADS``, else the cores granted to the process.
    fused : bool
        Use the backend's fused epoch where it has one.
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
    """
    if epochs < 1:
        raise SettingError(f"the number of epochs must be at least 1; got {epochs}")
    step = SGDStep(float(learning_rate), activation, gradient)
    if not isinstance(backend, Backend):
        backend = get_backend(backend)
    history = History(backend=backend.name)
    # A loss that is not finite is reported below, by name; NumPy's warnings on the way there add nothing.
    with backend.limit_threads(thread_count(threads)), np.errstate(over="ignore", invalid="ignore"):
        trainer = Trainer(x, y, params, step, backend, batch_size=batch_size, seed=seed, fused=fused, loss_average=loss_average)
        history.params = trainer.host_params()
        whole = 0, history.params
        try:
            for epoch in range(1, epochs + 1):
                loss, accuracy, seconds = trainer.epoch()
                if not math.isfinite(loss):
                    raise NonFiniteLossError(loss, f"in epoch {epoch}", learning_rate, history)
                params_after = trainer.host_params()
                history.loss.append(loss)
                history.accuracy.append(accuracy)
                history.seconds.append(seconds)
                history.params = params_after
                whole = epoch, params_after
                votes = [callback(history) for callback in callbacks]  # every one is called
                if any(votes):
                    break
        except KeyboardInterrupt:
            history.interrupted = True
            history.cut(*whole)
    return history


def evaluate(
    backend: Backend,
    params: Sequence[tuple[Any, Any]],
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    activation: str = "tanh",
    batch_size: int = 1000,
) -> tuple[float, float]:
    """Mean loss and accuracy of a network on a whole data set, `batch_size` samples at a time.

    Returns
    -------
    loss, accuracy : float

    Raises
    ------
    ValueError
        If data and parameters do not fit together.
    """
    check_labels(y, len(x), check_params(params)[-1])
    params = to_backend(backend, params)
    loss = hits = 0.0
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        outputs, _ = forward(backend, params, backend.asarray(x[part]), activation)
        labels = backend.asarray(y[part])
        loss += float(backend.cross_entropy_from_logits(labels, outputs[-1]))
        hits += float(backend.correct(labels, outputs[-1]))
    return loss / len(x), hits / len(x)


def to_backend(backend: Backend, params: Sequence[tuple[Any, Any]]) -> Params:
    """Parameters as arrays of `backend`."""
    return [(backend.asarray(weights), backend.asarray(bias)) for weights, bias in params]


def check_params(params: Sequence[tuple[Any, Any]]) -> list[int]:
    """The layer sizes of a network; ValueError if its layers do not fit together."""
    if not params:
        raise ValueError("a network has at least one layer; got none")
    sizes = [params[0][0].shape[0]]
    for layer, (weights, bias) in enumerate(params, start=1):
        if weights.shape != (sizes[-1], *bias.shape) or len(weights.shape) != 2:
            expected = f"({sizes[-1]}, n) and (n,)"
            raise ValueError(f"layer {layer} must have weights and bias of shape {expected}; got {weights.shape} and {bias.shape}")
        sizes.append(weights.shape[1])
    return sizes


def check_labels(y: npt.NDArray[Any], n_samples: int, n_classes: int) -> None:
    """Refuse labels that do not fit the samples or the network; ValueError."""
    if n_samples == 0 or y.shape != (n_samples,):
        raise ValueError(f"y must hold one label for each of the {n_samples} samples of x, at least one; its shape is {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"y must be integer labels; its dtype is {y.dtype}")
    if y.min() < 0 or y.max() >= n_classes:
        raise ValueError(f"y has labels from {y.min()} to {y.max()}; the network knows 0 to {n_classes - 1}")
