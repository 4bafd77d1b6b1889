"""One of our backends as an engine of the benchmark."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends import get_backend
from mlp_accel.benchmarking.checks import CHECK_STEPS
from mlp_accel.benchmarking.roofline import measure_roofline
from mlp_accel.datasets import Dataset, load
from mlp_accel.network import init_params
from mlp_accel.parameters import save_params
from mlp_accel.training import SGDStep, Trainer, evaluate, to_backend


class BackendEngine:
    """Trains on a backend; each method answers one command.

    Parameters
    ----------
    name : str
        As in the registry of backends.
    config : dict
        As in the result file.
    """

    trainer: Trainer
    data: Dataset

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        self.config = config
        self.backend = get_backend(name, config["dtype"])
        self.step = SGDStep(config["learning_rate"], config["activation"], config["gradient"])
        self.initial_params = init_params(config["layer_sizes"], config["seed"])
        self._context = ExitStack()
        self._context.enter_context(np.errstate(over="ignore", invalid="ignore"))  # a bad loss is reported by the protocol
        self._context.enter_context(self.backend.limit_threads(config["threads"]))

    def warm_up(self) -> dict[str, Any]:
        """Two steps on noise, four pixels in five of it black: with them every kernel is compiled and every library loaded."""
        rng = np.random.default_rng(0)
        n_in, *_, n_classes = self.config["layer_sizes"]
        n = min(2 * self.config["batch_size"], self.config["n_train"])
        x = rng.integers(0, 256, (n, n_in), dtype=np.uint8) * (rng.random((n, n_in)) < 0.2).astype(np.uint8)
        self._trainer(x, rng.integers(0, n_classes, n)).epoch()
        return {"device": self.backend.device, "path": self._path}

    def versions(self) -> dict[str, str]:
        """Libraries and their settings."""
        return self.backend.versions()

    def load(self) -> dict[str, float]:
        """Read the data, and put it on the device in the form that it is trained on."""
        self.data = load(self.config["data"])
        self.backend.synchronize()
        start = time.perf_counter()
        self.trainer = self._trainer(self.data.x_train, self.data.y_train)
        return {"transfer_seconds": time.perf_counter() - start}

    def restart(self, seed: int) -> dict[str, Any]:
        """Begin the training anew, with initial weights and an order of the samples drawn from `seed`."""
        self.config = {**self.config, "seed": seed}
        self.initial_params = init_params(self.config["layer_sizes"], seed)
        self.trainer = self._trainer(self.trainer.x, self.data.y_train)
        return {}

    def roofline(self) -> dict[str, Any]:
        """How far the main ops are from what the device can do: `measure_roofline`."""
        return measure_roofline(self.backend, self.config)

    def check(self, path: str, nudged: bool = False) -> dict[str, Any]:
        """Write the parameters after `CHECK_STEPS` steps from the start to `path`; ``path``, the way they went.

        With `nudged` the start differs in the last bit, to see how far the training carries a rounding error.
        """
        n = CHECK_STEPS * self.config["batch_size"]
        trainer = self._trainer(self.data.x_train[:n], self.data.y_train[:n])
        if nudged:
            factor = 1 + float(np.finfo(self.backend.dtype).eps)
            trainer.params = to_backend(self.backend, [(weights * factor, bias) for weights, bias in self.initial_params])
        trainer.epoch()
        save_params(Path(path), trainer.host_params())
        return {"path": self._path}

    def epoch(self) -> tuple[float, float | None]:
        """Train for one epoch, the device synchronised before and after."""
        loss, accuracy, _ = self.trainer.epoch()
        return loss, accuracy

    def params(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """The parameters as they are now, on the host."""
        return self.trainer.host_params()

    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the test set."""
        data, activation = self.data, self.config["activation"]
        loss, accuracy = evaluate(self.backend, self.trainer.host_params(), data.x_test, data.y_test, activation)
        return {"test_loss": loss, "test_accuracy": accuracy}

    @property
    def _path(self) -> str:
        return self.backend.epoch_path if self.config["fused"] else "ops"

    def _trainer(self, x: Any, y: Any) -> Trainer:
        config = self.config
        return Trainer(
            x,
            y,
            self.initial_params,
            self.step,
            self.backend,
            batch_size=config["batch_size"],
            seed=config["seed"],
            fused=config["fused"],
        )
