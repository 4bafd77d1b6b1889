"""Time to a stated test accuracy, in the manner of MLPerf's closed rules.

Every engine trains the same network with the same settings, from the same five seeds, and the median counts. The clock runs from
the start of the training over whole epochs; cold start and transfer are before it, as in MLPerf. Unlike there, the test after each
epoch is not timed, because peers are tested by our code.

MLPerf Training, https://github.com/mlcommons/training_policies: closed division, time to a quality target.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import CALL_TIMEOUT
from mlp_accel.bench.results import Run, Summary, TimeToAccuracy, Until
from mlp_accel.bench.runs import Listener, Measurement, attempt, start, train_epoch

SEEDS = 5
MAX_EPOCHS = 50
"""An engine that has not reached the accuracy by then does not reach it."""


def time_to_accuracy(
    runs: Sequence[Run],
    config: Config,
    accuracy: float,
    listen: Listener = lambda _: None,
    timeout: float = CALL_TIMEOUT,
    max_epochs: int = MAX_EPOCHS,
) -> Until:
    """Train every engine from several seeds until it reaches `accuracy` on the test set.

    Parameters
    ----------
    runs : sequence of Run
        Results of `run_benchmark`: an engine whose training was not right there does not take part.
    config, listen, timeout
        As for `run_benchmark`.
    accuracy : float
        Fraction of the test set, between 0 and 1.

    Returns
    -------
    Until
    """
    seeds = tuple(config.seed + index for index in range(SEEDS))
    measurements = [Measurement.of(run.name, run.path) for run in runs]
    trials = {measurement: Trials(measurement) for measurement in measurements}
    for measurement, run in zip(measurements, runs, strict=True):
        measurement.path, measurement.status, measurement.reason = run.path, run.status, run.reason
    interrupted = False
    try:
        for measurement in measurements:
            attempt(measurement, listen, lambda measurement: start(measurement, config, timeout, listen))
            attempt(measurement, listen, train_epoch)  # to warm up
        for turn, seed in enumerate(seeds):
            first = turn % len(measurements)
            for measurement in measurements[first:] + measurements[:first]:
                train = partial(trials[measurement].train, seed=seed, accuracy=accuracy, max_epochs=max_epochs)
                attempt(measurement, listen, train)
            listen(f"seed {seed}: {', '.join(trials[measurement].latest() for measurement in measurements if measurement.running)}")
    except KeyboardInterrupt:
        interrupted = True
        for measurement in measurements:
            if measurement.status == "ok" and not trials[measurement].seconds:
                measurement.status, measurement.reason = "failed", "interrupted before the end of its first training"
    finally:
        for measurement in measurements:
            measurement.close()
    results = tuple(trials[measurement].result() for measurement in measurements)
    return Until(accuracy=accuracy, seeds=seeds, max_epochs=max_epochs, interrupted=interrupted, results=results)


class Trials:
    """The trainings of one engine, a seed each."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement
        self.seconds: list[float] = []
        self.epochs: list[int] = []

    def train(self, measurement: Measurement, seed: int, accuracy: float, max_epochs: int) -> None:
        """Train from `seed` until the accuracy is reached."""
        engine = measurement.engine
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
        measurement.status = "failed"
        measurement.reason = f"it reached {best:.2%} in {max_epochs} epochs with seed {seed}, not {accuracy:.2%}"
        measurement.close()

    def latest(self) -> str:
        """The last training in words."""
        if not self.seconds:
            return self.measurement.label
        return f"{self.measurement.label} {self.seconds[-1]:.3f} s ({self.epochs[-1]} epochs)"

    def result(self) -> TimeToAccuracy:
        """What was found; seconds only if every seed reached the accuracy."""
        found = self.measurement
        complete = found.status == "ok" and self.seconds
        return TimeToAccuracy(
            name=found.name,
            path=found.path,
            kind=found.kind,
            status=found.status,
            reason=found.reason,
            seconds=Summary.of(self.seconds) if complete else None,
            epochs=tuple(self.epochs),
        )
