"""Time to a stated test accuracy, in the manner of MLPerf's closed rules.

Everybody trains the same network with the same settings, from the same five seeds, and the median counts. The clock runs from the
start of the training over whole epochs; cold start and transfer are before it, as in MLPerf. Unlike there, the test after each
epoch is off the clock: for peers it is our code.

MLPerf Training, https://github.com/mlcommons/training_policies: closed division, time to a quality target.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from mlp_accel.bench.engines.engine import CALL_TIMEOUT
from mlp_accel.bench.runs import Listener, Run, attempt, start, summary, train_epoch

SEEDS = 5
MAX_EPOCHS = 50
"""An engine that has not reached the accuracy by then does not reach it."""


def time_to_accuracy(
    rows: Sequence[dict[str, Any]],
    config: dict[str, Any],
    accuracy: float,
    listen: Listener = lambda _: None,
    timeout: float = CALL_TIMEOUT,
    max_epochs: int = MAX_EPOCHS,
) -> dict[str, Any]:
    """Train every engine from several seeds until it reaches `accuracy` on the test set.

    Parameters
    ----------
    rows : sequence of dict
        Results of `run_benchmark`: an engine whose training was not right there does not take part.
    config, listen, timeout
        As for `run_benchmark`.
    accuracy : float
        Fraction of the test set, between 0 and 1.

    Returns
    -------
    dict
        ``accuracy``, ``seeds``, ``max_epochs`` and ``results``, each with ``name``, ``path``, ``kind``, ``status``, ``reason``,
        ``seconds`` (median, minimum, quartiles and samples) and ``epochs`` for each seed; ``interrupted`` if Ctrl-C ended it early.
    """
    seeds = [config["seed"] + index for index in range(SEEDS)]
    found: dict[str, Any] = {"accuracy": accuracy, "seeds": seeds, "max_epochs": max_epochs}
    runs = [Run.of(row["name"], row["path"]) for row in rows]
    trials = {run: Trials(run) for run in runs}
    for run, row in zip(runs, rows, strict=True):
        run.path, run.status, run.reason = row["path"], row["status"], row["reason"]
    try:
        for run in runs:
            attempt(run, listen, lambda run: start(run, config, timeout, listen))
            attempt(run, listen, train_epoch)  # to warm up
        for turn, seed in enumerate(seeds):
            for run in runs[turn % len(runs) :] + runs[: turn % len(runs)]:
                attempt(run, listen, partial(trials[run].train, seed=seed, accuracy=accuracy, max_epochs=max_epochs))
            listen(f"seed {seed}: {', '.join(trials[run].latest() for run in runs if run.running)}")
    except KeyboardInterrupt:
        found["interrupted"] = True
    finally:
        for run in runs:
            run.close()
    return {**found, "results": [trials[run].to_dict() for run in runs]}


class Trials:
    """The trainings of one engine, a seed each."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seconds: list[float] = []
        self.epochs: list[int] = []

    def train(self, run: Run, seed: int, accuracy: float, max_epochs: int) -> None:
        """Train from `seed` until the accuracy is reached."""
        engine = run.engine
        assert engine is not None
        engine.call("restart", seed)
        seconds = best = 0.0
        for epoch in range(1, max_epochs + 1):
            seconds += engine.call("epoch", False)["seconds"]
            best = max(best, engine.call("evaluate")["test_accuracy"])
            if best >= accuracy:
                self.seconds.append(seconds)
                self.epochs.append(epoch)
                return
        run.status = "failed"
        run.reason = f"it reached {best:.2%} in {max_epochs} epochs with seed {seed}, not {accuracy:.2%}"
        run.close()

    def latest(self) -> str:
        """The last training in words."""
        if not self.seconds:
            return self.run.label
        return f"{self.run.label} {self.seconds[-1]:.3f} s ({self.epochs[-1]} epochs)"

    def to_dict(self) -> dict[str, Any]:
        """As in the result file."""
        complete = self.run.status == "ok" and self.seconds
        return {
            "name": self.run.name,
            "path": self.run.path,
            "kind": self.run.kind,
            "status": self.run.status,
            "reason": self.run.reason,
            "seconds": summary(self.seconds) if complete else None,
            "epochs": self.epochs,
        }
