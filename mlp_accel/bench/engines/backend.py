"""The worker of an engine that is one of our backends, by one of its paths."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends import get_backend
from mlp_accel.backends.paths import AUTO, LOOP
from mlp_accel.bench.checks import CHECK_STEPS
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.op_times import limits, op_times, whole_step
from mlp_accel.datasets import Dataset, load
from mlp_accel.network import init_params
from mlp_accel.optimizers import find_optimizer
from mlp_accel.schedules import find_schedule
from mlp_accel.training.parameters import save_params
from mlp_accel.training.train import evaluate
from mlp_accel.training.trainer import Trainer, density

ROOFLINE_EPOCHS = 5
"""Epochs of which the median is taken."""


class BackendWorker:
    """Trains on a backend; each method answers one command.

    Parameters
    ----------
    name : str
        As in the registry of backends.
    config : Config
    path : str
        The path to take, by name; ``"auto"`` for the fastest that can.
    """

    trainer: Trainer
    data: Dataset

    def __init__(self, name: str, config: Config, path: str = AUTO) -> None:
        self.config, self.path = config, path
        self.backend = get_backend(name, config.dtype)
        self.optimizer = find_optimizer(config.optimizer, momentum=config.momentum, weight_decay=config.weight_decay)
        self.initial_params = init_params(config.layer_sizes, config.seed)
        self._context = ExitStack()
        self._context.enter_context(np.errstate(all="ignore"))  # a bad loss is reported by the protocol
        self._context.enter_context(self.backend.limit_threads(config.threads))

    def warm_up(self) -> dict[str, Any]:
        """Two steps on noise, four pixels in five of it black: with them every kernel is compiled and every library loaded."""
        rng = np.random.default_rng(0)
        n_in, *_, n_classes = self.config.layer_sizes
        n = min(2 * self.config.batch_size, self.config.n_train)
        x = rng.integers(0, 256, (n, n_in), dtype=np.uint8) * (rng.random((n, n_in)) < 0.2).astype(np.uint8)
        self._trainer(x, rng.integers(0, n_classes, n)).epoch()
        return {"device": self.backend.device}

    def versions(self) -> dict[str, str]:
        """Libraries and their settings."""
        return self.backend.versions()

    def load(self) -> dict[str, Any]:
        """Read the data, and put it on the device in the form that it is trained on; the path that takes it is then kept to."""
        self.data = load(self.config.data)
        self.backend.synchronize()
        start = time.perf_counter()
        self.trainer = self._trainer(self.data.x_train, self.data.y_train)
        seconds = time.perf_counter() - start
        self.path = self.trainer.taken.name
        return {"transfer_seconds": seconds, "path": self.path, "passed_over": self.trainer.taken.passed_over}

    def restart(self, seed: int, nudged: bool = False) -> dict[str, Any]:
        """Begin the training anew, with initial weights and an order of the samples drawn from `seed`.

        With `nudged` the weights differ in the last bit, to see how far the training carries a rounding error.
        """
        self.config = replace(self.config, seed=seed)
        self.initial_params = init_params(self.config.layer_sizes, seed)
        del self.trainer  # its memory may be needed
        self.backend.synchronize()
        start = time.perf_counter()
        self.trainer = self._trainer(self.data.x_train, self.data.y_train, self._factor(nudged))
        return {"preparation_seconds": time.perf_counter() - start}

    def roofline(self) -> dict[str, Any]:
        """How far a step is from what the device can do: whole, and where it is the loop each of its ops."""
        seconds = [self.trainer.epoch().seconds for _ in range(ROOFLINE_EPOCHS)]
        x = self.data.x_train
        n_batches = -(-len(x) // self.config.batch_size)
        item = x.dtype.itemsize if x.dtype == np.uint8 else np.dtype(self.config.dtype).itemsize
        step = whole_step(self.config, density(x), item, float(np.median(seconds)) / n_batches)
        ops = op_times(self.backend, self.config) if self.path == LOOP else []
        return {**limits(self.backend, self.config.threads), "ops": [*ops, step]}

    def check(self, file: str, nudged: bool = False) -> dict[str, Any]:
        """Write the parameters after `CHECK_STEPS` steps from the start to `file`.

        With `nudged` as in `restart`.
        """
        n = CHECK_STEPS * self.config.batch_size
        trainer = self._trainer(self.data.x_train[:n], self.data.y_train[:n], self._factor(nudged))
        trainer.epoch()
        save_params(Path(file), trainer.params())
        return {}

    def epoch(self) -> tuple[float, float | None]:
        """Train for one epoch, the device synchronised before and after."""
        epoch = self.trainer.epoch()
        return epoch.losses[0], epoch.accuracies[0]

    def params(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """The parameters as they are now, on the host."""
        return self.trainer.params()

    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the test set."""
        data, config = self.data, self.config
        arguments = (self.backend, self.trainer.params(), data.x_test, data.y_test, config.activation)
        loss, accuracy = evaluate(*arguments, threads=config.threads)
        return {"test_loss": loss, "test_accuracy": accuracy, "rests": self.trainer.rests}

    def _factor(self, nudged: bool) -> float:
        """What the initial weights are multiplied with."""
        return 1 + float(np.finfo(self.backend.dtype).eps) if nudged else 1.0

    def _trainer(self, x: Any, y: Any, factor: float = 1.0) -> Trainer:
        config = self.config
        params = [(weights * factor, bias) for weights, bias in self.initial_params]
        return Trainer(
            *(x, y, [params], self.backend),
            batch_size=config.batch_size,
            activation=config.activation,
            gradient=config.gradient,
            optimizers=[self.optimizer],
            learning_rates=[config.learning_rate],
            schedule=find_schedule(config.schedule),
            epochs=config.schedule_epochs or 1,
            seeds=[config.seed],
            path=self.path,
            threads=config.threads,
        )
