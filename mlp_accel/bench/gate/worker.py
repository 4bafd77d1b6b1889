"""The worker of `mlp-accel ab`: ``python -P worker.py BUILD`` trains with the package in the folder BUILD.

It is run as a file and must work with any version of the package, so it touches little of it: `mlp_accel.harness`, or in a build
that is older than that `get_backend`, `SGDStep` and `Trainer`. Data and initial parameters come from a file, so that both builds
get the same. It speaks as `engines.worker` does: one JSON command per line, one line back. The lines of `main` are like those there
and not shared with them: to import them, this file would have to import a package before it knows which build's.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

HARNESS_VERSION = 1
"""Of `mlp_accel.harness`; a build that has another one cannot be measured by this worker."""

LAYOUTS = 20
"""Trainings of one worker. Where their arrays happen to lie makes epochs of identical code differ by several per cent, so each has
another place, and they take turns (T. Mytkowicz and others, "Producing wrong data without doing anything obviously wrong!",
ASPLOS 2009)."""


class Training(Protocol):
    """What is timed: `mlp_accel.harness.MeasuredTraining`, or what stands for it in an older build."""

    @property
    def device(self) -> str:
        """Where it computes."""

    @property
    def path(self) -> str:
        """How it trains."""

    def epoch(self) -> float:
        """Train on every sample once, and return when the device is done: the mean loss."""


class BuildWorker:
    """Trains with one build of the package; each method answers one command.

    Parameters
    ----------
    build : str
        The folder that holds the package.
    config : dict
        ``backend``, ``dtype``, ``threads``, ``activation``, ``gradient``, ``optimizer``, ``learning_rate``, ``momentum``,
        ``weight_decay``, ``batch_size``, ``seed``, ``path`` (``"auto"`` for the fastest), ``cores`` (to run on, or None), and
        ``inputs``: a ``.npz`` with ``x``, ``y`` and the parameters ``w0``, ``b0``, ``w1``, … on the host.
    """

    def __init__(self, build: str, config: dict[str, Any]) -> None:
        if config["cores"]:
            os.sched_setaffinity(0, config["cores"])  # before NumPy and Numba count them
        sys.path.insert(0, build)
        import numpy as np

        import mlp_accel

        if not Path(mlp_accel.__file__).resolve().is_relative_to(Path(build).resolve()):
            raise RuntimeError(f"mlp_accel was imported from {mlp_accel.__file__}, not from the build in {build}")
        with np.load(config["inputs"]) as inputs:
            x, y = inputs["x"], inputs["y"]
            params = [(inputs[f"w{i}"], inputs[f"b{i}"]) for i in range((len(inputs) - 2) // 2)]
        has_harness = importlib.util.find_spec("mlp_accel.harness") is not None
        start = _with_harness(config) if has_harness else _without_harness(config)
        rng = random.Random()  # another one in every process: that is the point
        self._padding, self.trainings = [], []
        for _ in range(LAYOUTS):
            self._padding.append(np.empty(rng.randrange(1, 2**14), np.uint8))
            self.trainings.append(start(x, y, params))
        self._turns = itertools.cycle(self.trainings)

    def warm_up(self) -> dict[str, Any]:
        """An epoch of each training, untimed: compiles what there is to compile. The loss shows what is computed."""
        losses = [training.epoch() for training in self.trainings]
        gc.collect()
        gc.freeze()
        return {"loss": losses[0], "device": self.trainings[0].device, "path": self.trainings[0].path}

    def epoch(self) -> dict[str, float]:
        """Train for one epoch, by this module's clock."""
        training = next(self._turns)
        start = time.perf_counter()
        loss = training.epoch()
        return {"seconds": time.perf_counter() - start, "loss": loss}


def _with_harness(config: dict[str, Any]) -> Callable[..., Training]:
    from mlp_accel import harness

    if harness.VERSION != HARNESS_VERSION:
        raise RuntimeError(f"its mlp_accel.harness has the version {harness.VERSION}; this worker knows {HARNESS_VERSION}")
    names = ("backend", "dtype", "threads", "batch_size", "learning_rate", "activation", "gradient", "optimizer", "seed", "path")
    given = {name: config[name] for name in names}
    settings = {name: config[name] for name in ("momentum", "weight_decay")}
    return lambda x, y, params: harness.MeasuredTraining(x, y, params, settings=settings, **given)


def _without_harness(config: dict[str, Any]) -> Callable[..., Training]:
    """Before there was a harness: plain SGD, by the path that the build takes by itself."""
    from mlp_accel import backends, training  # as they were then

    step = vars(training)["SGDStep"](config["learning_rate"], config["activation"], config["gradient"])
    trainer_class = vars(training)["Trainer"]
    backend = backends.get_backend(config["backend"], config["dtype"])
    return lambda x, y, params: OlderTraining(trainer_class, step, backend, x, y, params, config)


class OlderTraining:
    """A training with a build that has no harness: what `mlp_accel.training.train` held then."""

    def __init__(self, trainer_class: Any, step: Any, backend: Any, x: Any, y: Any, params: Any, config: dict[str, Any]) -> None:
        import numpy as np

        self._context = ExitStack()
        self._context.enter_context(np.errstate(over="ignore", invalid="ignore"))
        self._context.enter_context(backend.limit_threads(config["threads"]))
        self._backend = backend
        self._trainer = trainer_class(x, y, params, step, backend, batch_size=config["batch_size"], seed=config["seed"])
        self.device: str = backend.device

    @property
    def path(self) -> str:
        """How it trains; known after the first epoch."""
        return str(getattr(self._backend, "epoch_path", "its own"))

    def epoch(self) -> float:
        """Train on every sample once, and return when the device is done: the mean loss."""
        loss = float(self._trainer.epoch()[0])
        self._backend.synchronize()
        return loss


def main() -> None:
    """Answer commands until standard input ends."""
    if sys.platform == "linux":  # a stopped process would not notice that its parent is gone
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not look like an answer
    worker: BuildWorker | None = None
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            if worker is None:
                worker = BuildWorker(sys.argv[1], *arguments)
                answer: dict[str, Any] = {"result": {}}
            else:
                answer = {"result": getattr(worker, command)(*arguments)}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
