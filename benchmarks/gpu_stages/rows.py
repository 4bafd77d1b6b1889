"""A row of a result file: measured in a process of its own, so that one that fails, hangs or breaks the GPU costs no other."""

from __future__ import annotations

import math
import multiprocessing
import queue
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.threads import default_threads
from mlp_accel.bench.runs import summary

BATCH = 128
LAYER_SIZES = (784, 32, 10)
LEARNING_RATE = 0.5


class UnavailableError(Exception):
    """What a row needs is not there; the message says what."""


@dataclass(frozen=True)
class Plan:
    """A row to be measured.

    Attributes
    ----------
    name : str
        Name of the backend or the peer.
    measure : callable
        Returns the row's fields; one of this package's functions, so that another process can import it.
    arguments : dict
        Arguments of `measure`.
    kind : {"backend", "peer"}
    path : str, optional
        The path of a backend, which with the name identifies a row.
    variant : str
        What else tells it from other rows of the stage.
    """

    name: str
    measure: Callable[..., dict[str, Any]]
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = "backend"
    path: str | None = None
    variant: str = ""

    @property
    def label(self) -> str:
        """What people call the row."""
        return " ".join(filter(None, (self.name, self.path, self.variant)))


def finished_row(plan: Plan, status: str, reason: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The row in the form that the result files of ``mlp-accel bench`` have; what was not measured is None."""
    row: dict[str, Any] = {"name": plan.name, "path": plan.path, "variant": plan.variant, "kind": plan.kind}
    row |= {"status": status, "reason": reason}
    row |= dict.fromkeys(("cold_start_seconds", "transfer_seconds", "epoch_seconds"))
    row |= {"loss": [], **dict.fromkeys(("train_accuracy", "test_loss", "test_accuracy"))}
    row |= _without_nan(fields)
    if status != "ok":
        row["epoch_seconds"] = None  # a time is published only if the run is right
    return row


def _without_nan(value: Any) -> Any:
    """The same with None for each number that is not finite, which JSON cannot express."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run(plan: Plan, timeout: float) -> dict[str, Any]:
    """Measure a row in a new process, for at most `timeout` seconds."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_measure, args=(plan, answers))
    process.start()
    end = time.monotonic() + timeout
    status: str = "failed"
    reason: str | None = f"stopped after {timeout:.0f} s: the time of the stage is up"
    fields: dict[str, Any] = {}
    try:
        while time.monotonic() < end:
            alive = process.is_alive()  # looked at before the queue: an answer may come just before the end
            try:
                status, reason, fields = answers.get(timeout=0.2)
                break
            except queue.Empty:
                if not alive:
                    reason = f"the process died with exit code {process.exitcode}"
                    break
    finally:
        process.join(timeout=2)
        if process.is_alive():
            process.kill()
            process.join()
    return finished_row(plan, status, reason, fields)


def _measure(plan: Plan, answers: Any) -> None:
    try:
        fields = plan.measure(**plan.arguments)
        mismatch = fields.pop("mismatch", None)
        if not all(map(math.isfinite, fields.get("loss", []))):
            mismatch = mismatch or "a loss is not finite"
        answers.put(("mismatch" if mismatch else "ok", mismatch, fields))
    except (UnavailableError, ModuleNotFoundError) as error:
        answers.put(("unavailable", str(error), {}))
    except Exception as error:
        traceback.print_exc()
        answers.put(("failed", f"{type(error).__name__}: {error}", {}))


class Engine(Protocol):
    """What `epoch_times` measures: one or several networks in training."""

    def launch(self, orders: npt.NDArray[np.int32]) -> None:
        """Start an epoch in this order; may return before it is done."""

    def read(self) -> tuple[list[float], float | None]:
        """Wait for it: the mean loss of each network, and seconds by the clock of the device where it has one."""


def epoch_times(make: Callable[[], Engine], epochs: int, n: int, networks: int = 1, seed: int = 0) -> dict[str, Any]:
    """Time epochs by the wall clock and, where there is one, the clock of the device.

    The orders of the next epoch are drawn by NumPy while the GPU works, for all engines alike. The first epoch is not counted: all
    until its end is the cold start.
    """
    start = time.perf_counter()
    rngs = [np.random.default_rng([seed + i, 1]) for i in range(networks)]

    pool = ThreadPoolExecutor(max(1, min(networks, default_threads())))

    def draw() -> npt.NDArray[np.int32]:
        return np.stack(list(pool.map(lambda rng: rng.permutation(n).astype(np.int32), rngs)))

    engine = make()
    losses: list[list[float]] = []
    wall: list[float] = []
    device: list[float] = []
    orders = draw()
    cold = 0.0
    for epoch in range(epochs + 1):
        begin = time.perf_counter()
        engine.launch(orders)
        orders = draw()
        loss, seconds = engine.read()
        losses.append(loss)
        if epoch == 0:
            cold = time.perf_counter() - start
            continue
        wall.append(time.perf_counter() - begin)
        if seconds is not None:
            device.append(seconds)
    fields: dict[str, Any] = {"cold_start_seconds": cold, "epoch_seconds": summary(wall), "networks": networks}
    fields["device_seconds"] = summary(device) if device else None
    finite = all(map(math.isfinite, (loss for of_each in losses for loss in of_each)))
    fields["loss"] = [of_each[0] if finite else math.nan for of_each in losses]
    fields["model_epochs_per_second"] = networks / fields["epoch_seconds"]["median"]
    return fields
