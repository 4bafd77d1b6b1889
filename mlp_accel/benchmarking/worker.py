"""The worker process of one engine: ``python -m mlp_accel.benchmarking.worker``.

Reads one JSON command per line from standard input and answers each with one line on what was standard output; anything that a
library prints goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mlp_accel.backends import get_backend
from mlp_accel.benchmarking.checks import CHECK_STEPS
from mlp_accel.datasets import Dataset, load
from mlp_accel.errors import BackendUnavailableError
from mlp_accel.network import init_params
from mlp_accel.parameters import save_params
from mlp_accel.training import SGDStep, Trainer, evaluate


class BackendEngine:
    """Trains on one of our backends; each method answers one command.

    Parameters
    ----------
    config : dict
        As in the result file, and ``"backend"``.
    """

    trainer: Trainer
    data: Dataset

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.backend = get_backend(config["backend"], config["dtype"])
        self.step = SGDStep(config["learning_rate"], config["activation"], config["gradient"])
        self.params = init_params(config["layer_sizes"], config["seed"])
        self._context = ExitStack()
        self._context.enter_context(np.errstate(over="ignore", invalid="ignore"))  # a bad loss is reported by the protocol
        self._context.enter_context(self.backend.limit_threads(config["threads"]))

    def warm_up(self) -> dict[str, Any]:
        """Two steps on noise: with them every kernel is compiled and every library loaded."""
        rng = np.random.default_rng(0)
        n_in, *_, n_classes = self.config["layer_sizes"]
        n = 2 * self.config["batch_size"]
        x = rng.integers(0, 256, (n, n_in), dtype=np.uint8)
        self._trainer(x, rng.integers(0, n_classes, n)).epoch()
        path = self.backend.epoch_path if self.config["fused"] else "ops"
        return {"device": self.backend.device, "path": path}

    def versions(self) -> dict[str, str]:
        """Libraries and their settings."""
        return self.backend.versions()

    def load(self) -> dict[str, float]:
        """Read the data and put it on the device."""
        self.data = load(self.config["data"])
        self.backend.synchronize()
        start = time.perf_counter()
        x = self.backend.asarray(self.data.x_train)
        self.backend.asarray(self.data.y_train)
        self.backend.synchronize()
        seconds = time.perf_counter() - start
        self.trainer = self._trainer(x, self.data.y_train)
        return {"transfer_seconds": seconds}

    def check(self, path: str) -> dict[str, Any]:
        """Write the parameters after `CHECK_STEPS` steps from the start to `path`."""
        n = CHECK_STEPS * self.config["batch_size"]
        trainer = self._trainer(self.data.x_train[:n], self.data.y_train[:n])
        trainer.epoch()
        save_params(Path(path), trainer.host_params())
        return {}

    def epoch(self) -> dict[str, float]:
        """Train for one epoch."""
        loss, accuracy, seconds = self.trainer.epoch()
        return {"loss": loss, "accuracy": accuracy, "seconds": seconds}

    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the test set."""
        data, activation = self.data, self.config["activation"]
        loss, accuracy = evaluate(self.backend, self.trainer.host_params(), data.x_test, data.y_test, activation)
        return {"test_loss": loss, "test_accuracy": accuracy}

    def _trainer(self, x: Any, y: Any) -> Trainer:
        config = self.config
        return Trainer(
            x,
            y,
            self.params,
            self.step,
            self.backend,
            batch_size=config["batch_size"],
            seed=config["seed"],
            fused=config["fused"],
        )


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent is gone: a stopped one would not notice that its input has ended."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    """Answer commands until standard input ends."""
    _die_with_parent()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not look like an answer
    engine: BackendEngine | None = None
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            if engine is None:
                engine = BackendEngine(*arguments)
                answer: dict[str, Any] = {"result": {}}
            else:
                answer = {"result": getattr(engine, command)(*arguments)}
        except BackendUnavailableError as error:
            answer = {"unavailable": f"{error.reason}. To mend it: {error.mend}"}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
