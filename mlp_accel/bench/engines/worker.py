"""The worker process of one engine: ``python -m mlp_accel.bench.engines.worker``.

It reads one JSON command per line from standard input and answers each with one line of JSON on standard output; anything that a
library prints goes to standard error instead. The first command is ``create``, the others are methods of what was created. The
clock is here, the same for every engine.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from mlp_accel.backends.paths import AUTO
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.backend import BackendWorker
from mlp_accel.bench.engines.libraries import loaded_libraries
from mlp_accel.bench.engines.peers import peer_class
from mlp_accel.bench.engines.peers.base import HostParams
from mlp_accel.datasets import Dataset
from mlp_accel.errors import BackendUnavailableError, MlpAccelError, PeerUnavailableError

LONGEST_WAIT = 1.0
"""Seconds that `Clock.epoch` waits at most to see whether the parameters still change."""


class TrainingWorker(Protocol):
    """What trains in a worker process, and answers its commands; that of a backend also has ``check`` and ``roofline``."""

    data: Dataset

    def warm_up(self) -> dict[str, Any]:
        """Load and compile whatever training needs; ``device``, and of a peer its ``form``: how it is used."""

    def versions(self) -> dict[str, str]:
        """Of the libraries, with the settings that its speed depends on."""

    def load(self) -> dict[str, Any]:
        """Read the data and put it where it is trained on; ``transfer_seconds``, of a backend also ``path`` and ``passed_over``."""

    def restart(self, seed: int) -> dict[str, Any]:
        """Begin the training anew from `seed`, with the data as they were read; ``preparation_seconds`` until it can train."""

    def epoch(self) -> tuple[float, float | None]:
        """Train on every sample once and wait until it is done; mean loss and accuracy."""

    def params(self) -> HostParams:
        """Weights and biases as they are now, copied to the host."""

    def evaluate(self) -> dict[str, float]:
        """``test_loss`` and ``test_accuracy``."""


def create(kind: str, name: str, config: dict[str, Any], path: str | None = None) -> TrainingWorker:
    """The object that trains for the engine `name`, a backend or a peer.

    Parameters
    ----------
    config : dict
        A `Config` as JSON has it.
    path : str, optional
        The path that a backend is to take; by default the fastest that can. Peers have no paths.
    """
    settings = Config.from_dict(config)
    return BackendWorker(name, settings, path or AUTO) if kind == "backend" else peer_class(name)(settings)


class Clock:
    """Times the epochs of a training, and finds out work that is done while the clock is stopped.

    Parameters
    ----------
    training : TrainingWorker
    """

    def __init__(self, training: TrainingWorker) -> None:
        self.training = training
        self._last_seen: str | None = None

    def epoch(self, wait: bool) -> dict[str, Any]:
        """Train for one epoch by the clock.

        Parameters
        ----------
        wait : bool
            Look at the parameters once more after as long as the epoch took: work that was put off may be done by then.

        Returns
        -------
        dict
            ``loss``, ``accuracy``, ``seconds``, ``cpu_seconds``; ``unfinished_seconds``, how much longer the parameters took to
            read when the clock had just stopped than a moment later; ``moved``, whether they changed while no clock was running.
        """
        before = self._look()
        moved = self._last_seen not in (None, before)
        start, cpu_start = time.perf_counter(), time.process_time()
        loss, accuracy = self.training.epoch()
        stop, cpu_stop = time.perf_counter(), time.process_time()
        first = self.training.params()  # a device that is still at work makes this wait
        late = time.perf_counter()
        self._last_seen = self._look()
        again = time.perf_counter()
        self.training.params()
        usual = time.perf_counter() - again
        moved |= digest(first) != self._last_seen
        if wait:
            time.sleep(min(stop - start, LONGEST_WAIT))
            moved |= self._look() != self._last_seen
        return {
            "loss": loss,
            "accuracy": accuracy,
            "seconds": stop - start,
            "cpu_seconds": cpu_stop - cpu_start,
            "unfinished_seconds": late - stop - usual,
            "moved": moved,
        }

    def restart(self, *arguments: Any) -> dict[str, Any]:
        """Begin the training anew, as the training does it."""
        self._last_seen = None
        restart: Callable[..., dict[str, Any]] = self.training.restart
        return restart(*arguments)

    def evaluate(self) -> dict[str, Any]:
        """What it says of the test set; ``n_test``, the samples there; ``moved``: the parameters changed since the last epoch."""
        moved = self._last_seen not in (None, self._look())
        answer = self.training.evaluate()
        return {**answer, "n_test": len(self.training.data.y_test), "moved": moved or self._last_seen not in (None, self._look())}

    def _look(self) -> str:
        return digest(self.training.params())


def digest(params: HostParams) -> str:
    """A hash of the parameters: equal only if every bit is."""
    found = hashlib.blake2b(digest_size=16)
    for weights, bias in params:
        found.update(weights.tobytes())
        found.update(bias.tobytes())
    return found.hexdigest()


def failure(error: Exception) -> dict[str, Any]:
    """An exception as an answer: unavailable, refused (the user's to fix) or failed."""
    if isinstance(error, BackendUnavailableError):
        return {"unavailable": f"{error.reason}. To fix it: {error.fix}"}
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
    commands: dict[str, Callable[..., Any]] = {}
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            if not commands:
                commands = commands_of(create(*arguments))
                answer: dict[str, Any] = {"result": {}}
            else:
                answer = {"result": commands[command](*arguments)}
        except Exception as error:
            answer = failure(error)
        answers.write(json.dumps(answer) + "\n")


def commands_of(training: TrainingWorker) -> dict[str, Callable[..., Any]]:
    """Its methods, with the clock around its epochs, and what the process can say of itself."""
    methods = {name: getattr(training, name) for name in dir(training) if not name.startswith("_")}
    clock = Clock(training)
    return {**methods, "epoch": clock.epoch, "restart": clock.restart, "evaluate": clock.evaluate, "libraries": loaded_libraries}


if __name__ == "__main__":
    main()
