"""The worker of an engine that is a peer: another library that trains the same network on the same data."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import metadata
from time import perf_counter
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import threadpoolctl

from mlp_accel.backends import get_backend
from mlp_accel.bench.config import Config
from mlp_accel.datasets import Dataset, load
from mlp_accel.errors import PeerUnavailableError
from mlp_accel.network import init_params
from mlp_accel.schedules import find_schedule
from mlp_accel.training.snapshot import order_generator
from mlp_accel.training.train import evaluate

HostParams = list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]
"""``(weights (n_in, n_out), bias (n_out,))`` for each layer, as NumPy arrays."""

WARM_UP_STEPS = 2

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam and AdamW: the defaults of every library here."""


class Peer(ABC):
    """Another library that trains; each method answers one command.

    All peers start from the same weights as the backends, and those that can be told take the samples in the same order. Pixels
    are scaled and converted once, before the first epoch, because that is what their users do.

    Parameters
    ----------
    config : Config

    Raises
    ------
    PeerUnavailableError
        If its library is missing, or it has no form of what `config` asks for.
    """

    modules: ClassVar[Sequence[str]]
    """What to import, the main one first."""

    distributions: ClassVar[Sequence[str]]
    """What to report the version of."""

    form: ClassVar[str]
    """In which way the library is used, in the words of the report."""

    activations: ClassVar[Sequence[str]] = ("tanh", "relu", "sigmoid")
    gradients: ClassVar[Sequence[str]] = ("exact",)
    optimizers: ClassVar[Sequence[str]] = ("sgd", "momentum", "nesterov", "adam", "adamw")
    decays: ClassVar[bool] = True
    """Whether it has a weight decay that means the same as ours."""

    schedules: ClassVar[bool] = True
    """Whether its learning rate can change from step to step; otherwise it keeps to the first one, and says so."""

    takes_order: ClassVar[bool] = True
    """Whether it can be told the order of the samples (`next_order`); its losses are then held to those of the backends."""

    data: Dataset

    def __init__(self, config: Config) -> None:
        self.layer_sizes = config.layer_sizes
        self.activation = config.activation
        self.gradient = config.gradient
        self.dtype = config.dtype
        self.batch_size = min(config.batch_size, config.n_train)
        self.learning_rate = config.learning_rate
        self.optimizer = config.optimizer
        self.momentum = config.momentum or 0.0
        self.weight_decay = config.weight_decay or 0.0
        self.seed = config.seed
        self.threads = config.threads
        self.config = config
        self.check_settings()
        self.prepare_import()
        self.package = self._import()
        self.limit_threads()

    # What each peer writes ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def place(self, x: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> None:
        """Take the data as arrays of the library; `x` is of the dtype of the training."""

    @abstractmethod
    def start(self, params: HostParams) -> None:
        """Begin a training from these weights; `next_order` begins anew."""

    @abstractmethod
    def epoch(self) -> tuple[float, float | None]:
        """Train on every sample once, in a fresh random order, and wait until it is done.

        Returns
        -------
        loss, accuracy
            Means over the samples, taken before the update by their minibatch; None if the library does not give it.
        """

    @abstractmethod
    def params(self) -> HostParams:
        """The parameters as they are now, copied."""

    def limit_threads(self) -> None:
        """Compute with `self.threads` CPU threads and no more."""
        threadpoolctl.threadpool_limits(self.threads)

    def prepare_import(self) -> None:
        """Set what must be set before the library is imported."""
        return  # most libraries need nothing

    def check_settings(self) -> None:
        """Raise `PeerUnavailableError` for settings that this peer has no form of."""
        if self.activation not in self.activations:
            raise PeerUnavailableError(f"it has no {self.activation}, only {', '.join(self.activations)}")
        if self.optimizer not in self.optimizers:
            raise PeerUnavailableError(f"it has no {self.optimizer}, only {', '.join(self.optimizers)}")
        if self.weight_decay and not self.decays:
            raise PeerUnavailableError("it has no weight decay that means the same as ours")
        if self.gradient not in self.gradients:
            raise PeerUnavailableError(f"it has only the {' and the '.join(self.gradients)} gradient, not {self.gradient}")

    def follows_schedule(self) -> bool:
        """Whether it trains with the learning rates that were asked for."""
        return self.schedules or self.config.schedule == "constant"

    def next_order(self) -> npt.NDArray[np.int64]:
        """The order of the samples in the next epoch, the same as that of the backends; drawn by the clock, as theirs is."""
        return self._generator.permutation(self._n)

    def next_rates(self) -> list[float]:
        """The learning rate of each step of the next epoch, of which `next_order` tells the samples."""
        config, epoch = self.config, self._epoch
        self._epoch += 1
        n_steps, epochs = -(-self._n // self.batch_size), max(config.schedule_epochs or 1, epoch + 1)
        rates: list[float] = find_schedule(config.schedule).rates(self.learning_rate, epoch, epochs, n_steps).tolist()
        return rates

    # What the worker calls ----------------------------------------------------------------------------------------------------

    def warm_up(self) -> dict[str, Any]:
        """Two steps on noise: with them every library is loaded and every kernel compiled."""
        rng = np.random.default_rng(0)
        n = min(WARM_UP_STEPS * self.batch_size, self.config.n_train)
        self.place(rng.random((n, self.layer_sizes[0])).astype(self.dtype), rng.integers(0, self.layer_sizes[-1], n))
        self._begin(n)
        self.epoch()
        return {"device": "cpu", "form": self.form if self.follows_schedule() else f"{self.form}, at a constant rate"}

    def versions(self) -> dict[str, str]:
        """Of the libraries."""
        return {name: metadata.version(name) for name in self.distributions}

    def load(self) -> dict[str, Any]:
        """Read the data, scale and convert it, and begin the training."""
        self.data = load(self.config.data)
        begin = perf_counter()
        self._place_data()
        seconds = perf_counter() - begin
        self._begin(len(self.data.y_train))
        return {"transfer_seconds": seconds}

    def restart(self, seed: int) -> dict[str, Any]:
        """Begin the training anew, with initial weights and an order of the samples drawn from `seed`."""
        self.seed = seed
        params = self._initial_params()
        begin = perf_counter()
        self._place_data()
        self._begin(len(self.data.y_train), params)
        return {"preparation_seconds": perf_counter() - begin}

    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the test set of the parameters it has reached, computed by our NumPy backend."""
        backend = get_backend("numpy", "float64")
        arguments = (backend, self.params(), self.data.x_test, self.data.y_test, self.activation)
        loss, accuracy = evaluate(*arguments, threads=self.threads)
        return {"test_loss": loss, "test_accuracy": accuracy}

    def _place_data(self) -> None:
        x = self.data.x_train
        if x.dtype == np.uint8:
            x = np.multiply(x, 1 / 255, dtype=self.dtype)
        self.place(np.ascontiguousarray(x, dtype=self.dtype), self.data.y_train)

    def _begin(self, n: int, params: HostParams | None = None) -> None:
        self._n, self._generator, self._epoch = n, order_generator(self.seed), 0
        self.start(params or self._initial_params())

    def _initial_params(self) -> HostParams:
        return [(w.astype(self.dtype), b.astype(self.dtype)) for w, b in init_params(self.layer_sizes, self.seed)]

    def _import(self) -> ModuleType:
        try:
            modules = [importlib.import_module(name) for name in self.modules]
        except Exception as error:  # a library may fail to import in any way
            missing = isinstance(error, ModuleNotFoundError)
            cause = f"not installed ({error})" if missing else f"it cannot be imported ({type(error).__name__}: {error})"
            raise PeerUnavailableError(f"{cause}. To fix it: python -m pip install 'mlp-accel[peers]'") from error
        return modules[0]
