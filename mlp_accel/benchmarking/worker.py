"""The worker process of one engine: ``python -m mlp_accel.benchmarking.worker``.

Reads one JSON command per line from standard input and answers each with one line on what was standard output; anything that a
library prints goes to standard error. The first command is ``create``, the others are methods of the engine; the clock is here,
the same for every engine.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any, Protocol

import numpy.typing as npt

from mlp_accel.benchmarking.backend_engine import BackendEngine
from mlp_accel.benchmarking.peers import peer_class
from mlp_accel.errors import BackendUnavailableError, MlpAccelError, PeerUnavailableError


class TrainingEngine(Protocol):
    """What every engine can do; one of our backends can also ``check`` its first steps."""

    def warm_up(self) -> dict[str, Any]:
        """Load and compile whatever training needs; ``device`` and ``path``, the way it goes."""

    def versions(self) -> dict[str, str]:
        """Of the libraries, with the settings that its speed depends on."""

    def load(self) -> dict[str, float]:
        """Read the data and put it where it is trained on; ``transfer_seconds``."""

    def epoch(self) -> tuple[float, float | None]:
        """Train on every sample once and wait until it is done; mean loss and accuracy."""

    def params(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Weights and biases as they are now, copied to the host."""

    def evaluate(self) -> dict[str, float]:
        """``test_loss`` and ``test_accuracy``."""


def create(kind: str, name: str, config: dict[str, Any]) -> TrainingEngine:
    """The engine `name`: one of our backends, or a peer."""
    return BackendEngine(name, config) if kind == "backend" else peer_class(name)(config)


def timed_epoch(engine: TrainingEngine) -> dict[str, float | None]:
    """Train for one epoch by the clock."""
    engine.params()  # whatever was asked of the device before is done
    start, cpu_start = time.perf_counter(), time.process_time()
    loss, accuracy = engine.epoch()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return {"loss": loss, "accuracy": accuracy, "seconds": seconds, "cpu_seconds": cpu_seconds}


def answer(engine: TrainingEngine, command: str, arguments: list[Any]) -> dict[str, Any]:
    """What `command` gives, or why it gave nothing."""
    try:
        if command == "epoch":
            return {"result": timed_epoch(engine)}
        return {"result": getattr(engine, command)(*arguments)}
    except Exception as error:
        return failure(error)


def failure(error: Exception) -> dict[str, Any]:
    """An exception as an answer: unavailable, refused (the user's to mend) or failed."""
    if isinstance(error, BackendUnavailableError):
        return {"unavailable": f"{error.reason}. To mend it: {error.mend}"}
    if isinstance(error, PeerUnavailableError):
        return {"unavailable": str(error)}
    if isinstance(error, MemoryError):
        return {"refused": f"out of memory: {error or 'no more could be had'}; try smaller layers or batches"}
    if isinstance(error, MlpAccelError):
        return {"refused": str(error)}
    return {"failed": f"{type(error).__name__}: {error}"}


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
    engine: TrainingEngine | None = None
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        if engine is None:
            try:
                engine = create(*arguments)
                reply: dict[str, Any] = {"result": {}}
            except Exception as error:
                reply = failure(error)
        else:
            reply = answer(engine, command, arguments)
        answers.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
