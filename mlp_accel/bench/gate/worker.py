"""The worker of `mlp-accel ab`: ``python -P worker.py BUILD`` trains with the package in the folder BUILD.

It is run as a file and must work with any version of the package, so it touches little of it: `mlp_accel.harness`, or in a build
that is older than that `get_backend`, `SGDStep` and `Trainer`. Data and initial parameters come from a file, so that both builds
get the same. It speaks as `engines.worker` does: one JSON command per line, one line back. The lines of `main` are like those there
and not shared with them: to import them, this file would have to import a package before it knows which build's.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import itertools
import json
import os
import random
import signal
import sys
import time
import zlib
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


SHORTEST_SAMPLE = 0.005
"""Seconds that a sample of calls lasts at least."""

MOST_VALUES = 10_000
"""As many numbers of a result are compared; of a longer one every so-manieth."""


class Worker(Protocol):
    """What a build is measured by; each method answers one command."""

    def warm_up(self) -> dict[str, Any]:
        """Everything once, untimed; ``loss`` or ``values`` show what is computed, ``device`` where, ``path`` how."""

    def epoch(self) -> dict[str, float]:
        """``seconds`` of a round, or bytes; ``loss``."""


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
        _prepare(build, config)
        import numpy as np

        _import_from(build, "mlp_accel")
        x, y, params = _inputs(config)
        start = _trainings(config)
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
        """Train for one epoch, by this module's clock, and as ``device_seconds`` by that of a GPU where the build gives it."""
        training = next(self._turns)
        start = time.perf_counter()
        loss = training.epoch()
        answer = {"seconds": time.perf_counter() - start, "loss": loss}
        device_seconds = getattr(training, "device_seconds", lambda: None)()
        return answer if device_seconds is None else {**answer, "device_seconds": device_seconds}


class StartWorker:
    """What can be measured once in a process: ``config["measure"]``, as `measures` names it."""

    def __init__(self, build: str, config: dict[str, Any]) -> None:
        _prepare(build, config)
        self._found: dict[str, float] = {}
        start = time.perf_counter()
        _import_from(build, "mlp_accel")
        backends = importlib.import_module("mlp_accel.backends")
        backends.get_backend(config["backend"], config["dtype"])
        imported = time.perf_counter()
        self._found["import"] = imported - start
        self._answer: dict[str, Any] = {"loss": 0.0, "device": "", "path": "only imported"}
        self._measure = config["measure"]
        if self._measure == "import":
            return
        inputs = _inputs(config)
        loaded = time.perf_counter()
        training = _trainings(config)(*inputs)
        ready = time.perf_counter()
        loss = training.epoch()
        self._found["transfer"] = ready - loaded
        self._found["start"] = self._found["first-start"] = imported - start + time.perf_counter() - loaded
        self._found["memory"] = _most_memory()
        self._answer = {"loss": loss, "device": training.device, "path": training.path}

    def warm_up(self) -> dict[str, Any]:
        """What it has computed."""
        return self._answer

    def epoch(self) -> dict[str, float]:
        """What it has found."""
        return {"seconds": self._found[self._measure], "loss": self._answer["loss"]}


class CallWorker:
    """Calls a function of any repository: ``config["call"]``, as ``module:function``. It takes no arguments."""

    def __init__(self, build: str, config: dict[str, Any]) -> None:
        _prepare(build, config)
        if (Path(build) / "src").is_dir():
            sys.path.insert(0, str(Path(build) / "src"))
        os.chdir(build)  # its files may be named as they lie in the repository
        module, _, function = config["call"].partition(":")
        self._function = getattr(_import_from(build, module), function)
        self._calls = 1

    def warm_up(self) -> dict[str, Any]:
        """Call it, and find how many calls a sample needs; ``values`` are the numbers of its result."""
        result = self._function()
        _wait_for(result)
        while (seconds := self._sample()) < SHORTEST_SAMPLE:
            self._calls = max(2 * self._calls, int(self._calls * SHORTEST_SAMPLE / max(seconds, 1e-9)))
        gc.collect()
        gc.freeze()
        return {"values": _values(result), "device": "", "path": f"{self._calls} calls a sample"}

    def epoch(self) -> dict[str, float]:
        """Seconds of a call, the mean over a sample."""
        return {"seconds": self._sample() / self._calls, "loss": 0.0}

    def _sample(self) -> float:
        start = time.perf_counter()
        for _ in range(self._calls):
            result = self._function()
        _wait_for(result)
        return time.perf_counter() - start


def _wait_for(result: Any) -> None:
    """Wait for the devices of the libraries that are loaded."""
    torch, cupy, jax = (sys.modules.get(name) for name in ("torch", "cupy", "jax"))
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
    if cupy is not None and cupy.cuda.is_available():
        cupy.cuda.Device().synchronize()
    if jax is not None:
        jax.block_until_ready(result)


def _values(result: Any) -> list[float]:
    """The numbers of a result: a number, an array, or lists, tuples and dicts of them; of anything else a hash of its text."""
    import numpy as np

    def flat(part: Any) -> list[Any]:
        if isinstance(part, dict):
            part = list(part.items())
        if isinstance(part, list | tuple):
            return [array for item in part for array in flat(item)]
        try:
            host = part.get() if hasattr(part, "get") else part.detach().cpu() if hasattr(part, "detach") else part
            array = np.asarray(host, np.float64).ravel()
        except (TypeError, ValueError):
            array = np.array([zlib.crc32(repr(part).encode())], np.float64)
        return [array]

    values = np.concatenate([np.zeros(0), *flat(result)])
    found: list[float] = np.append(values[:: max(1, -(-len(values) // MOST_VALUES))], [values.sum(), len(values)]).tolist()
    return found


def _prepare(build: str, config: dict[str, Any]) -> None:
    """The cores to run on, before NumPy and Numba count them; and where to import from."""
    if config["cores"]:
        os.sched_setaffinity(0, config["cores"])
    sys.path.insert(0, build)


def _import_from(build: str, name: str) -> Any:
    module = importlib.import_module(name)
    if not Path(str(module.__file__)).resolve().is_relative_to(Path(build).resolve()):
        raise RuntimeError(f"{name} was imported from {module.__file__}, not from the build in {build}")
    return module


def _inputs(config: dict[str, Any]) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """Samples, labels and initial parameters."""
    import numpy as np

    with np.load(config["inputs"]) as inputs:
        params = [(inputs[f"w{i}"], inputs[f"b{i}"]) for i in range((len(inputs) - 2) // 2)]
        return inputs["x"], inputs["y"], params


def _most_memory() -> float:
    """Bytes: the largest resident set that the process has had."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def _trainings(config: dict[str, Any]) -> Callable[..., Training]:
    """What starts a training with samples, labels and parameters."""
    has_harness = importlib.util.find_spec("mlp_accel.harness") is not None
    return _with_harness(config) if has_harness else _without_harness(config)


def create(build: str, config: dict[str, Any]) -> Worker:
    """The worker for what ``config["measure"]`` names."""
    workers: dict[str, Callable[..., Worker]] = {"epoch": BuildWorker, "call": CallWorker}
    return workers.get(config.get("measure", "epoch"), StartWorker)(build, config)


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
    worker: Worker | None = None
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            if worker is None:
                worker = create(sys.argv[1], *arguments)
                answer: dict[str, Any] = {"result": {}}
            else:
                answer = {"result": getattr(worker, command)(*arguments)}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
