"""Training several networks on the same data at once."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from mlp_accel.backends import get_backend
from mlp_accel.backends.base import Backend
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.history import History, NonFiniteLossError
from mlp_accel.threads import thread_count
from mlp_accel.training import LOSS_AVERAGES, SGDStep, check_labels, check_params, epoch_mean, order_generator, to_backend
from mlp_accel.workspace import Workspace

Networks = Sequence[Sequence[tuple[Any, Any]]]


class ManyTrainer:
    """A training run of several networks, epoch by epoch: data and parameters stay on the device between epochs.

    The parameters are those of `train_many`, which is the simple way to use this.

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
        networks: Networks,
        steps: Sequence[SGDStep],
        backend: Backend,
        *,
        batch_size: int = 128,
        seeds: Sequence[int],
        fused: bool = True,
        threads: int = 1,
        loss_average: str = "samples",
    ) -> None:
        if batch_size < 1:
            raise SettingError(f"the batch size must be at least 1; got {batch_size}")
        shapes = {tuple((weights.shape, bias.shape) for weights, bias in params) for params in networks}
        if len(shapes) != 1:
            raise ValueError(
                f"the networks must be one or more, all of the same layer sizes; got {len(networks)} of {len(shapes)} kinds"
            )
        layer_sizes = check_params(networks[0])
        check_labels(y, x.shape[0], layer_sizes[-1])
        self.backend, self.steps = backend, list(steps)
        self.loss_average = check_choice("loss average", loss_average, LOSS_AVERAGES)
        self.batch_size = min(batch_size, x.shape[0])
        stacked = [tuple(np.stack(arrays) for arrays in zip(*layer, strict=True)) for layer in zip(*networks, strict=True)]
        self.params = to_backend(backend, [(weights, bias) for weights, bias in stacked])
        self.x, self.y = backend.asarray(x), backend.asarray(y)
        backend.check_input(self.x, layer_sizes[0])
        self._workspace = Workspace.allocate(backend, layer_sizes, self.batch_size)
        self._generators = [order_generator(seed) for seed in seeds]
        self._threads, self._fused = threads, fused
        self._images = backend.training_images(self.x) if fused else self.x
        self._orders = self._draw()
        backend.synchronize()

    def epoch(self) -> tuple[list[float], list[float], float]:
        """Train every network on every sample once, each in a fresh random order of its own.

        Returns
        -------
        losses, accuracies : list of float
            One for each network; a loss may be non-finite: that is for the caller to judge.
        seconds : float
        """
        start = time.perf_counter()
        orders = self.backend.asarray(self._orders)
        train = self.backend.train_epoch_of_each if self._fused else self._one_after_another
        arguments = (self.steps, self.params, self._images, self.y, orders, self.batch_size, self._workspace)
        self.params, losses, hits = train(*arguments)
        self._orders = self._draw()  # for the next epoch, while a GPU still works on this one
        n = self.x.shape[0]
        means = [
            [epoch_mean(sums, n, self.batch_size, self.loss_average) for sums in self.backend.to_numpy(of_each)]
            for of_each in (losses, hits)
        ]
        self.backend.synchronize()
        return means[0], means[1], time.perf_counter() - start

    def host_params(self) -> list[list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]]:
        """The parameters of each network as NumPy arrays."""
        host = [(self.backend.to_numpy(weights), self.backend.to_numpy(bias)) for weights, bias in self.params]
        return [[(weights[i].copy(), bias[i].copy()) for weights, bias in host] for i in range(len(self.steps))]

    def _draw(self) -> npt.NDArray[np.int32]:
        """The order of the samples for each network. NumPy draws outside of Python's lock, so threads help."""
        n = self.x.shape[0]
        orders = np.empty((len(self._generators), n), np.int32)

        def draw(network: int) -> None:
            orders[network] = self._generators[network].permutation(n)

        if self._threads == 1 or len(orders) == 1:
            for network in range(len(orders)):
                draw(network)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(draw, range(len(orders))))
        return orders

    def _one_after_another(self, *arguments: Any) -> Any:
        """The base implementation, op by op."""
        return Backend.train_epoch_of_each(cast(Backend, _OpByOp(self.backend)), *arguments)


class _OpByOp:
    """A backend without its fused epoch."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def train_epoch(self, *arguments: Any) -> Any:
        return Backend.train_epoch(self._backend, *arguments)


def train_many(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    networks: Networks,
    *,
    epochs: int = 5,
    batch_size: int = 128,
    learning_rates: float | Sequence[float] = 0.5,
    activation: str = "tanh",
    gradient: str = "exact",
    seeds: Sequence[int] | None = None,
    backend: Backend | str | None = None,
    threads: int | None = None,
    fused: bool = True,
    loss_average: str = "samples",
) -> list[History]:
    """Train several networks of the same layer sizes on the same data.

    Each result is, bit for bit, that of `mini_batch_sgd` with the network's own parameters, learning rate and seed. The CuPy
    backend trains them side by side in one launch an epoch where its cluster kernel has room for the network; the other backends
    train them one after another.

    Parameters
    ----------
    x : array (n, n_in)
        uint8 images (scaled by 1/255) or floating values (used as they are).
    y : array (n,)
        Integer labels ``0 ... n_classes - 1``.
    networks : sequence of list of (weights, bias)
        Where each starts, as from `init_params`; not changed.
    epochs, batch_size : int
        How often to visit every sample, and how many to average each gradient over.
    learning_rates : float or sequence of float
        Step size of SGD, of all networks or of each.
    activation, gradient : str
        As in `mini_batch_sgd`.
    seeds : sequence of int, optional
        Of each network's order of the samples; by default 0, 1, 2, ...
    backend, threads, fused, loss_average
        As in `mini_batch_sgd`.

    Returns
    -------
    list of History
        One for each network, with its trained parameters. ``seconds`` is the duration of an epoch of all networks together. Ctrl-C
        ends the training and returns what was reached.

    Raises
    ------
    SettingError
        If a setting is out of range.
    ValueError
        If data and parameters do not fit together.
    NonFiniteLossError
        If the loss of a network becomes NaN or infinite; names the network.
    """
    if epochs < 1:
        raise SettingError(f"the number of epochs must be at least 1; got {epochs}")
    count = len(networks)
    rates = [float(rate) for rate in np.atleast_1d(learning_rates)] * (count if np.ndim(learning_rates) == 0 else 1)
    seeds = list(range(count)) if seeds is None else list(seeds)
    for values, what in ((rates, "learning rates"), (seeds, "seeds")):
        if len(values) != count:
            raise SettingError(f"there must be one of the {what} for each of the {count} networks; got {len(values)}")
    steps = [SGDStep(rate, activation, gradient) for rate in rates]
    if not isinstance(backend, Backend):
        backend = get_backend(backend)
    histories = [History(backend=backend.name) for _ in range(count)]
    n_threads = thread_count(threads)
    with backend.limit_threads(n_threads), np.errstate(over="ignore", invalid="ignore"):
        trainer = ManyTrainer(
            *(x, y, networks, steps, backend),
            batch_size=batch_size,
            seeds=seeds,
            fused=fused,
            threads=n_threads,
            loss_average=loss_average,
        )
        params = trainer.host_params()
        whole = 0, params
        for history, own in zip(histories, params, strict=True):
            history.params = own
        try:
            for epoch in range(1, epochs + 1):
                losses, accuracies, seconds = trainer.epoch()
                for network, loss in enumerate(losses):
                    if not math.isfinite(loss):
                        where = f"of network {network} in epoch {epoch}"
                        raise NonFiniteLossError(loss, where, rates[network], histories[network])
                params = trainer.host_params()
                for history, loss, accuracy, own in zip(histories, losses, accuracies, params, strict=True):
                    history.loss.append(loss)
                    history.accuracy.append(accuracy)
                    history.seconds.append(seconds)
                    history.params = own
                whole = epoch, params
        except KeyboardInterrupt:
            n_epochs, params = whole
            for history, own in zip(histories, params, strict=True):
                history.interrupted = True
                history.cut(n_epochs, own)
    return histories
