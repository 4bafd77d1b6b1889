"""One engine while it is measured: its worker, the commands that it is given, and the `Run` that comes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mlp_accel.backends import backend_class
from mlp_accel.backends.paths import AUTO, LOOP
from mlp_accel.bench.checks import BACKEND, OWN_ORDER, PEER, Tolerance, epochs_remembered
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.caches import own_caches
from mlp_accel.bench.engines.engine import Engine, EngineError
from mlp_accel.bench.engines.peers import PEERS, peer_class
from mlp_accel.bench.results import Run, Summary, engine_label

WARM_UP_EPOCHS = 1

STARTS = 4
"""How often each engine is started, so that cold start and transfer have a spread: once with empty caches, then from them."""

SURPRISES = 3
"""Epochs at most from a seed that no engine could have known beforehand."""

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
    caches : Path or None
        The folder of its own caches; None for those of the user.
    first_start : float or None
        Seconds of the start that found them empty.
    cold_starts, transfers : list of float
        Seconds of every other start, and of every transfer.
    path : str or None
        The path that the backend has taken.
    surprise_losses, surprise_seconds : list of float
        Of the epochs from a seed that it could not know.
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
    caches: Path | None = None
    first_start: float | None = None
    cold_starts: list[float] = field(default_factory=list)
    transfers: list[float] = field(default_factory=list)
    path: str | None = None
    passed_over: tuple[tuple[str, str], ...] = ()
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    unfinished_seconds: list[float] = field(default_factory=list)
    moved: bool = False
    train_accuracy: list[float | None] = field(default_factory=list)
    surprise_losses: list[float] = field(default_factory=list)
    surprise_seconds: list[float] = field(default_factory=list)
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
    def tolerance(self) -> Tolerance:
        """How closely its losses must agree with the reference's."""
        if self.kind == "backend":
            return BACKEND
        return PEER if peer_class(self.name).takes_order else OWN_ORDER

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
        starts: dict[str, Any] = {}
        if right and self.caches:
            starts["first_start_seconds"] = self.first_start
            starts["cold_starts"], starts["transfers"] = Summary.of(self.cold_starts), Summary.of(self.transfers)
        return Run(
            name=self.name,
            path=None if self.kind == "peer" or self.status == "unavailable" else self.path or self.requested_path,
            passed_over=self.passed_over,
            kind=self.kind,
            status=self.status,
            reason=self.reason,
            refused=self.refused,
            cold_start_seconds=_median(self.cold_starts) if right else None,
            transfer_seconds=_median(self.transfers) if right else None,
            epoch_seconds=Summary.of(steady) if right and steady else None,
            cores_used=self.cores_used if right else None,
            loss=tuple(finite(loss) for loss in self.losses),
            accuracy=tuple(self.train_accuracy),
            train_accuracy=self.train_accuracy[-1] if self.train_accuracy else None,
            test_loss=finite(self.test.get("test_loss")),
            test_accuracy=self.test.get("test_accuracy"),
            **self.details,
            **starts,
            absent=Run.OPTIONAL - self.details.keys() - starts.keys(),
        )


def finite(value: float | None) -> float | None:
    """`value`, or None if it is NaN or infinite, which JSON does not know."""
    return value if value is not None and math.isfinite(value) else None


def _median(samples: Sequence[float]) -> float | None:
    return float(np.median(samples)) if samples else None


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
    caches = measurement.caches
    begin = perf_counter()
    engine = measurement.engine = Engine(timeout=timeout, variables=own_caches(caches) if caches else None)
    engine.call("create", measurement.kind, measurement.name, config.to_dict(), measurement.requested_path)
    measurement.details = engine.call("warm_up")
    seconds = perf_counter() - begin
    measurement.details |= {"versions": engine.call("versions"), **engine.call("libraries")}
    measurement.details["thread_pools"] = tuple(measurement.details["thread_pools"])
    loaded = engine.call("load")
    what = "cold start"
    if caches and measurement.first_start is None:
        measurement.first_start, what = seconds, "first start, with empty caches,"
    else:
        measurement.cold_starts.append(seconds)
    measurement.transfers.append(loaded["transfer_seconds"])
    measurement.path = loaded.get("path")
    measurement.passed_over = tuple((path, reason) for path, reason in loaded.get("passed_over", ()))
    listen(f"{measurement.label} on {measurement.details['device']}: {what} {seconds:.2f} s")


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


def evaluate(measurement: Measurement) -> None:
    """Note what it says of the test set."""
    assert measurement.engine is not None
    measurement.test = measurement.engine.call("evaluate")
    measurement.moved |= bool(measurement.test["moved"])
    if "rests" in measurement.test:
        measurement.details["rests"] = int(measurement.test["rests"])


def surprise(measurement: Measurement, seed: int) -> None:
    """Train some epochs from a seed that the engine could not know: the timed ones may have been computed beforehand."""
    assert measurement.engine is not None
    measurement.engine.call("restart", seed)
    steady = measurement.seconds[WARM_UP_EPOCHS:]
    for _ in range(SURPRISES):
        answer = measurement.engine.call("epoch", False)
        measurement.surprise_losses.append(answer["loss"])
        measurement.surprise_seconds.append(answer["seconds"])
        if epochs_remembered(measurement.surprise_seconds, steady) is None:
            return
