"""How a time is measured: one process per engine, turn by turn, and only right results count.

While an engine is timed all the others are stopped. Cold start, transfer and steady epochs are reported apart. Every engine must
agree with the NumPy backend, which therefore always runs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mlp_accel.benchmarking.checks import losses_differ, more_cores, parameters_differ, peer_losses_differ, work_off_the_clock
from mlp_accel.benchmarking.engine import CALL_TIMEOUT, Engine, EngineError
from mlp_accel.benchmarking.environment import environment
from mlp_accel.benchmarking.peers import PEERS
from mlp_accel.parameters import load_params

REFERENCE = "numpy"
MIN_EPOCHS = 5
"""Fewer steady epochs make a result short: good for a look, not for keeping."""

WARM_UP_EPOCHS = 1

UNSTABLE = (
    "the training is unstable at learning rate {:g}: a change in the last bit of the initial weights grows as large, "
    "so no two backends can agree; try a smaller learning rate"
)

Listener = Callable[[str], object]


@dataclass
class Run:
    """One engine's part of the benchmark."""

    name: str
    kind: str
    shown: bool = True
    status: str = "ok"
    reason: str | None = None
    refused: bool = False
    cold_start_seconds: float | None = None
    transfer_seconds: float | None = None
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    unfinished_seconds: list[float] = field(default_factory=list)
    moved: bool = False
    train_accuracy: list[float | None] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)
    engine: Engine | None = field(default=None, repr=False)
    details: dict[str, Any] = field(default_factory=dict)

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
            "kind": self.kind,
            "status": self.status,
            "reason": self.reason,
            "refused": self.refused,
            "cold_start_seconds": self.cold_start_seconds if right else None,
            "transfer_seconds": self.transfer_seconds if right else None,
            "epoch_seconds": summary(steady) if right and steady else None,
            "cores_used": self.cores_used if right else None,
            "loss": [loss if math.isfinite(loss) else None for loss in self.losses],
            "accuracy": self.train_accuracy,
            "train_accuracy": self.train_accuracy[-1] if self.train_accuracy else None,
            "test_loss": self.test.get("test_loss"),
            "test_accuracy": self.test.get("test_accuracy"),
            **self.details,
        }


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median, minimum, quartiles and the samples themselves."""
    q1, median, q3 = np.percentile(samples, [25, 50, 75])
    return {"median": float(median), "min": min(samples), "q1": float(q1), "q3": float(q3), "samples": list(samples)}


def run_benchmark(
    names: Sequence[str],
    config: dict[str, Any],
    epochs: int,
    listen: Listener = lambda _: None,
    timeout: float = CALL_TIMEOUT,
) -> dict[str, Any]:
    """Measure epoch times of several engines.

    Parameters
    ----------
    names : sequence of str
        Backends and peers to show; the reference runs as well.
    config : dict
        ``layer_sizes``, ``activation``, ``gradient``, ``dtype``, ``batch_size``, ``learning_rate``, ``seed``, ``threads``,
        ``fused``, ``data`` and ``n_train``, the number of training samples.
    epochs : int
        Steady epochs of each engine.
    listen : callable
        Gets a line for each thing done.
    timeout : float
        Seconds after which an engine that does not answer is given up.

    Returns
    -------
    dict
        As the result file: ``schema``, ``environment``, ``config``, ``results``; ``reference``, its row, if it is not one of them;
        and ``interrupted`` if Ctrl-C ended it early.
    """
    runs = [Run(name, "peer" if name in PEERS else "backend") for name in names]
    reference = next((run for run in runs if run.name == REFERENCE), None)
    if reference is None:
        reference = Run(REFERENCE, "backend", shown=False)
        runs.insert(0, reference)
    result: dict[str, Any] = {"schema": 1, "environment": environment(), "config": {**config, "epochs": epochs}}
    result["config"] |= {"warm_up_epochs": WARM_UP_EPOCHS, "short": epochs < MIN_EPOCHS}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for run in runs:
                _attempt(run, listen, lambda run: _start(run, config, timeout, Path(folder), listen))
            _check_first_steps(runs, reference, config, Path(folder))
        for epoch in range(WARM_UP_EPOCHS + epochs):
            for run in runs[epoch % len(runs) :] + runs[: epoch % len(runs)]:  # nobody is always first
                _attempt(run, listen, _epoch)
            times = ", ".join(f"{run.name} {run.seconds[-1]:.4f} s" for run in runs if run.running)
            title = f"epoch {epoch - WARM_UP_EPOCHS + 1}/{epochs}" if epoch >= WARM_UP_EPOCHS else "warm-up epoch"
            listen(f"{title}: {times}" if times else f"{title}: no engine left")
        for run in runs:
            _attempt(run, listen, _finish)
    except KeyboardInterrupt:
        result["interrupted"] = True
        for run in runs:
            if run.status == "ok" and len(run.seconds) <= WARM_UP_EPOCHS:
                run.status, run.reason = "failed", "interrupted before its first steady epoch"
    finally:
        for run in runs:
            run.close()
    _compare(runs, reference, lambda run: _wrong(run, reference, config["threads"]))
    result["results"] = [run.to_dict() for run in runs if run.shown]
    if not reference.shown:
        result["reference"] = reference.to_dict()
    return result


def _attempt(run: Run, listen: Listener, action: Callable[[Run], None]) -> None:
    """Do something with an engine that may cost its own row and no other."""
    if run.status != "ok":
        return
    try:
        action(run)
    except EngineError as error:
        run.status, run.reason, run.refused = error.status, error.reason, error.refused
        run.close()
        listen(f"{run.name} {error}")


def _start(run: Run, config: dict[str, Any], timeout: float, folder: Path, listen: Listener) -> None:
    start = perf_counter()
    run.engine = Engine(timeout=timeout)
    run.engine.call("create", run.kind, run.name, config)
    run.details = run.engine.call("warm_up")
    run.cold_start_seconds = perf_counter() - start
    run.details |= {"versions": run.engine.call("versions"), **run.engine.call("libraries")}
    run.transfer_seconds = run.engine.call("load")["transfer_seconds"]
    if run.kind == "backend":
        run.details |= run.engine.call("check", str(folder / f"{run.name}.npz"))
    listen(f"{run.name} on {run.details['device']}: cold start {run.cold_start_seconds:.2f} s")


def _epoch(run: Run) -> None:
    assert run.engine is not None
    answer = run.engine.call("epoch", not run.seconds)  # the first time it waits, to see whether anything goes on
    run.losses.append(answer["loss"])
    run.seconds.append(answer["seconds"])
    run.cpu_seconds.append(answer["cpu_seconds"])
    run.unfinished_seconds.append(answer["unfinished_seconds"])
    run.moved |= answer["moved"]
    run.train_accuracy.append(answer["accuracy"])


def _finish(run: Run) -> None:
    assert run.engine is not None
    run.test = run.engine.call("evaluate")


def _check_first_steps(runs: Sequence[Run], reference: Run, config: dict[str, Any], folder: Path) -> None:
    """Compare the parameters of the backends after some steps, and say so if the training itself is the cause that they differ."""

    def differ(name: str) -> str | None:
        both = load_params(folder / f"{name}.npz"), load_params(folder / f"{reference.name}.npz")
        return parameters_differ(*both, config["dtype"])

    backends = [run for run in runs if run.kind == "backend"]
    _compare(backends, reference, lambda run: differ(run.name))
    if reference.engine is not None and any(run.status == "mismatch" for run in backends):
        with suppress(EngineError):  # the reference will be found lost at its next epoch
            reference.engine.call("check", str(folder / "nudged.npz"), True)
            unstable = f"; {UNSTABLE.format(config['learning_rate'])}" if differ("nudged") else ""
            for run in backends:
                if run.status == "mismatch":
                    run.reason = f"{run.reason}{unstable}"


def _wrong(run: Run, reference: Run, threads: int) -> str | None:
    """What is wrong with what a run computed or with how, or None."""
    differ = peer_losses_differ if run.kind == "peer" else losses_differ
    return (
        differ(run.losses, reference.losses)
        or work_off_the_clock(run.moved, run.unfinished_seconds, run.seconds)
        or more_cores(run.cores_used, threads)
    )


def _compare(runs: Sequence[Run], reference: Run, differ: Callable[[Run], str | None]) -> None:
    """Mark the runs that are not right; without the reference nothing can be said to be right."""
    for run in runs:
        if run.status != "ok":
            continue
        if reference.status == "ok":
            problem = differ(run)
        else:
            problem = f"the reference ({reference.name}) has {reference.status}: {reference.reason}"
        if problem:
            run.status, run.reason = "mismatch", problem
            run.close()
