"""The worker of `mlp-accel ab`: ``python -P gate_worker.py BUILD`` trains with the package in the folder BUILD.

It is run as a file and must work with any version of the package, so it imports little of it: `get_backend`, `SGDStep` and
`Trainer`. Data and initial parameters come from a file, so that both builds get the same. It speaks as `worker` does: one JSON
command per line, one line back.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

LAYOUTS = 20
"""Trainers of one worker. Where their arrays happen to lie makes epochs of identical code differ by several per cent, so each has
another place, and they take turns (T. Mytkowicz and others, "Producing wrong data without doing anything obviously wrong!",
ASPLOS 2009)."""


class BuildEngine:
    """Trains with one build of the package; each method answers one command.

    Parameters
    ----------
    build : str
        The folder that holds the package.
    config : dict
        ``backend``, ``dtype``, ``threads``, ``activation``, ``gradient``, ``learning_rate``, ``batch_size``, ``seed``, ``cores``
        (to run on, or None), and ``inputs``: a ``.npz`` with ``x``, ``y`` and the parameters ``w0``, ``b0``, ``w1``, … on the host.
    """

    def __init__(self, build: str, config: dict[str, Any]) -> None:
        if config["cores"]:
            os.sched_setaffinity(0, config["cores"])  # before NumPy and Numba count them
        sys.path.insert(0, build)
        import numpy as np

        import mlp_accel
        from mlp_accel.backends import get_backend
        from mlp_accel.training import SGDStep, Trainer

        if not Path(mlp_accel.__file__).resolve().is_relative_to(Path(build).resolve()):
            raise RuntimeError(f"mlp_accel was imported from {mlp_accel.__file__}, not from the build in {build}")
        self.backend = get_backend(config["backend"], config["dtype"])
        self._context = ExitStack()
        self._context.enter_context(np.errstate(over="ignore", invalid="ignore"))  # a bad loss is reported as such
        self._context.enter_context(self.backend.limit_threads(config["threads"]))
        with np.load(config["inputs"]) as inputs:
            x, y = inputs["x"], inputs["y"]
            params = [(inputs[f"w{i}"], inputs[f"b{i}"]) for i in range((len(inputs) - 2) // 2)]
        step = SGDStep(config["learning_rate"], config["activation"], config["gradient"])
        rng = random.Random()  # another one in every process: that is the point
        self._padding, self.trainers = [], []
        for _ in range(LAYOUTS):
            self._padding.append(np.empty(rng.randrange(1, 2**14), np.uint8))
            trainer = Trainer(x, y, params, step, self.backend, batch_size=config["batch_size"], seed=config["seed"])
            self.trainers.append(trainer)
        self._turns = itertools.cycle(self.trainers)

    def warm_up(self) -> dict[str, Any]:
        """An epoch of each trainer, untimed: compiles what there is to compile. The loss shows what is computed."""
        losses = [float(trainer.epoch()[0]) for trainer in self.trainers]
        gc.collect()
        gc.freeze()
        return {"loss": losses[0], "device": self.backend.device}

    def epoch(self) -> dict[str, float]:
        """Train for one epoch, by this module's clock."""
        trainer = next(self._turns)
        self.backend.synchronize()
        start = time.perf_counter()
        loss = float(trainer.epoch()[0])
        self.backend.synchronize()
        return {"seconds": time.perf_counter() - start, "loss": loss}


def main() -> None:
    """Answer commands until standard input ends."""
    if sys.platform == "linux":  # a stopped process would not notice that its parent is gone
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not look like an answer
    engine: BuildEngine | None = None
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            if engine is None:
                engine = BuildEngine(sys.argv[1], *arguments)
                answer: dict[str, Any] = {"result": {}}
            else:
                answer = {"result": getattr(engine, command)(*arguments)}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
