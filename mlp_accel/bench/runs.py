"""One engine while it is measured: its worker, the commands that it is given, and the `Run` that comes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from mlp_accel.backends import backend_class
from mlp_accel.backends.paths import AUTO, LOOP
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import Engine, EngineError
from mlp_accel.bench.engines.peers import PEERS
from mlp_accel.bench.results import Run, Summary, engine_label

WARM_UP_EPOCHS = 1

Listener = Callable[[str], object]
"""Gets a line for each thing done."""


@dataclass(eq=False)
class Measurement:
    """One engine while it is measured: its worker, and what it has found so far. In the end it gives a `Run`.

    Attributes
    ----------
    name : str
        Of the backend or the peer.
    requested_path : str or None
        The path that a backend is to take, or ``"auto"`` for its fastest; None for a peer.
    shown : bool
        Whether it stands among the results: the reference is measured even if nobody asked for it.
    path : str or None
        The path that the backend has taken.
    details : dict
        What its worker says of itself, by the names that `Run` has for it.
    """

    name: str
    kind: str
    requested_path: str | None
    shown: bool = True
    status: str = "ok"
    reason: str | None = None
    refused: bool = False
    cold_start_seconds: float | None = None
    transfer_seconds: float | None = None
    path: str | None = None
    passed_over: tuple[tuple[str, str], ...] = ()
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    unfinished_seconds: list[float] = field(default_factory=list)
    moved: bool = False
    train_accuracy: list[float | None] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)
    engine: Engine | None = field(default=None, repr=False)
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, path: str | None = LOOP, shown: bool = True) -> Measurement:
        """That of the backend `name` by `path`, or of the peer `name`."""
        return cls(name, "peer", None, shown) if name in PEERS else cls(name, "backend", path, shown)

    @property
    def label(self) -> str:
        """What people call the engine."""
        return engine_label(self.name, self.path or self.requested_path)

    @property
    def running(self) -> bool:
        """Neither failed nor closed."""
        return self.engine is not None

    @property
    def cores_used(self) -> float | None:
        """CPU seconds per second of a steady epoch: the median."""
        pairs = zip(self.cpu_seconds[WARM_UP_EPOCHS:], self.seconds[WARM_UP_EPOCHS:], strict=True)
        ratios = [cpu / seconds for cpu, seconds in pairs]
        return float(np.median(ratios)) if ratios else None

    def close(self) -> None:
        """End its worker."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    def run(self) -> Run:
        """What was found; without times if the training is not right."""
        right = self.status == "ok"
        steady = self.seconds[WARM_UP_EPOCHS:]
        return Run(
            name=self.name,
            path=None if self.kind == "peer" or self.status == "unavailable" else self.path or self.requested_path,
            passed_over=self.passed_over,
            kind=self.kind,
            status=self.status,
            reason=self.reason,
            refused=self.refused,
            cold_start_seconds=self.cold_start_seconds if right else None,
            transfer_seconds=self.transfer_seconds if right else None,
            epoch_seconds=Summary.of(steady) if right and steady else None,
            cores_used=self.cores_used if right else None,
            loss=tuple(finite(loss) for loss in self.losses),
            accuracy=tuple(self.train_accuracy),
            train_accuracy=self.train_accuracy[-1] if self.train_accuracy else None,
            test_loss=finite(self.test.get("test_loss")),
            test_accuracy=self.test.get("test_accuracy"),
            **self.details,
            absent=Run.OPTIONAL - self.details.keys(),
        )


def finite(value: float | None) -> float | None:
    """`value`, or None if it is NaN or infinite, which JSON does not know."""
    return value if value is not None and math.isfinite(value) else None


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median, minimum, quartiles and the samples themselves, as an object of the result file."""
    return Summary.of(samples).to_dict()


def attempt(measurement: Measurement, listen: Listener, action: Callable[[Measurement], None]) -> None:
    """Do something with an engine; if it is lost in that, its own measurement ends and the others go on."""
    if measurement.status != "ok":
        return
    try:
        action(measurement)
    except EngineError as error:
        measurement.status, measurement.reason, measurement.refused = error.status, error.reason, error.refused
        measurement.close()
        listen(f"{measurement.label} {error}")


def measurements_of(names: Sequence[str], path: str | None) -> list[Measurement]:
    """The engines of backends and peers: of each backend the loop and, where it may have one, its fastest path; or just `path`."""
    found = []
    for name in names:
        found.append(Measurement.of(name, path or LOOP))
        if path is None and name not in PEERS and backend_class(name).path_names:
            found.append(Measurement.of(name, AUTO))
    return found


def start(measurement: Measurement, config: Config, timeout: float, listen: Listener) -> None:
    """Start the worker, warm it up and give it the data; how long each takes is noted."""
    begin = perf_counter()
    engine = measurement.engine = Engine(timeout=timeout)
    engine.call("create", measurement.kind, measurement.name, config.to_dict(), measurement.requested_path)
    measurement.details = engine.call("warm_up")
    measurement.cold_start_seconds = perf_counter() - begin
    measurement.details |= {"versions": engine.call("versions"), **engine.call("libraries")}
    measurement.details["thread_pools"] = tuple(measurement.details["thread_pools"])
    loaded = engine.call("load")
    measurement.transfer_seconds, measurement.path = loaded["transfer_seconds"], loaded.get("path")
    measurement.passed_over = tuple((path, reason) for path, reason in loaded.get("passed_over", ()))
    listen(f"{measurement.label} on {measurement.details['device']}: cold start {measurement.cold_start_seconds:.2f} s")


def train_epoch(measurement: Measurement) -> None:
    """Train for one epoch and note what came of it."""
    assert measurement.engine is not None
    first = not measurement.seconds  # after this one the worker waits, to see whether anything goes on
    answer = measurement.engine.call("epoch", first)
    measurement.losses.append(answer["loss"])
    measurement.seconds.append(answer["seconds"])
    measurement.cpu_seconds.append(answer["cpu_seconds"])
    measurement.unfinished_seconds.append(answer["unfinished_seconds"])
    measurement.moved |= answer["moved"]
    measurement.train_accuracy.append(answer["accuracy"])
