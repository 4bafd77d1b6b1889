"""One engine's part of a benchmark: its worker, and what it has measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from mlp_accel.backends import backend_class
from mlp_accel.backends.paths import AUTO, LOOP
from mlp_accel.bench.engines.engine import Engine, EngineError
from mlp_accel.bench.engines.peers import PEERS
from mlp_accel.bench.result_files import label

WARM_UP_EPOCHS = 1

Listener = Callable[[str], object]
"""Gets a line for each thing done."""


@dataclass(eq=False)
class Run:
    """One engine's part of the benchmark.

    Attributes
    ----------
    name : str
        Of the backend or the peer.
    asked : str or None
        The path that a backend is asked for; None for a peer.
    path : str or None
        The one that it took.
    """

    name: str
    kind: str
    asked: str | None
    shown: bool = True
    status: str = "ok"
    reason: str | None = None
    refused: bool = False
    cold_start_seconds: float | None = None
    transfer_seconds: float | None = None
    path: str | None = None
    passed_over: list[tuple[str, str]] = field(default_factory=list)
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
    def of(cls, name: str, path: str | None = LOOP, shown: bool = True) -> Run:
        """The part of the backend `name` by `path`, or of the peer `name`."""
        return cls(name, "peer", None, shown) if name in PEERS else cls(name, "backend", path, shown)

    @property
    def label(self) -> str:
        """What people call it."""
        return label({"name": self.name, "path": self.path or self.asked})

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

    def to_dict(self) -> dict[str, Any]:
        """A row of the result file; without times if the result is not right."""
        right = self.status == "ok"
        steady = self.seconds[WARM_UP_EPOCHS:]
        return {
            "name": self.name,
            "path": None if self.kind == "peer" or self.status == "unavailable" else self.path or self.asked,
            "passed_over": self.passed_over,
            "kind": self.kind,
            "status": self.status,
            "reason": self.reason,
            "refused": self.refused,
            "cold_start_seconds": self.cold_start_seconds if right else None,
            "transfer_seconds": self.transfer_seconds if right else None,
            "epoch_seconds": summary(steady) if right and steady else None,
            "cores_used": self.cores_used if right else None,
            "loss": [finite(loss) for loss in self.losses],
            "accuracy": self.train_accuracy,
            "train_accuracy": self.train_accuracy[-1] if self.train_accuracy else None,
            "test_loss": finite(self.test.get("test_loss")),
            "test_accuracy": self.test.get("test_accuracy"),
            **self.details,
        }


def finite(value: float | None) -> float | None:
    """`value`, or None if it is NaN or infinite, which JSON does not know."""
    return value if value is not None and math.isfinite(value) else None


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median, minimum, quartiles and the samples themselves."""
    q1, median, q3 = np.percentile(samples, [25, 50, 75])
    return {"median": float(median), "min": min(samples), "q1": float(q1), "q3": float(q3), "samples": list(samples)}


def attempt(run: Run, listen: Listener, action: Callable[[Run], None]) -> None:
    """Do something with an engine that may cost its own row and no other."""
    if run.status != "ok":
        return
    try:
        action(run)
    except EngineError as error:
        run.status, run.reason, run.refused = error.status, error.reason, error.refused
        run.close()
        listen(f"{run.label} {error}")


def runs_of(names: Sequence[str], path: str | None) -> list[Run]:
    """The engines of backends and peers: of each backend the loop and, where it may have one, its fastest path; or just `path`."""
    runs = []
    for name in names:
        runs.append(Run.of(name, path or LOOP))
        if path is None and name not in PEERS and backend_class(name).path_names:
            runs.append(Run.of(name, AUTO))
    return runs


def start(run: Run, config: dict[str, Any], timeout: float, listen: Listener) -> None:
    """Start its worker, warm it up and give it the data; how long each takes is noted."""
    begin = perf_counter()
    run.engine = Engine(timeout=timeout)
    run.engine.call("create", run.kind, run.name, {**config, "path": run.asked})
    run.details = run.engine.call("warm_up")
    run.cold_start_seconds = perf_counter() - begin
    run.details |= {"versions": run.engine.call("versions"), **run.engine.call("libraries")}
    loaded = run.engine.call("load")
    run.transfer_seconds, run.path = loaded["transfer_seconds"], loaded.get("path")
    run.passed_over = loaded.get("passed_over", [])
    listen(f"{run.label} on {run.details['device']}: cold start {run.cold_start_seconds:.2f} s")


def train_epoch(run: Run) -> None:
    """Train for one epoch and note what came of it."""
    assert run.engine is not None
    answer = run.engine.call("epoch", not run.seconds)  # the first time it waits, to see whether anything goes on
    run.losses.append(answer["loss"])
    run.seconds.append(answer["seconds"])
    run.cpu_seconds.append(answer["cpu_seconds"])
    run.unfinished_seconds.append(answer["unfinished_seconds"])
    run.moved |= answer["moved"]
    run.train_accuracy.append(answer["accuracy"])
