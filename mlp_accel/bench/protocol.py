"""How a time is measured: one process per engine, turn by turn, and only right results count.

While an engine is timed all the others are stopped. The order in which they start and that of their turns are drawn anew each time:
nobody always comes after the same one. Cold start, transfer and steady epochs are reported apart. Every engine must agree with the
loop of the NumPy backend, which therefore always runs.
"""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlp_accel.backends.paths import AUTO, LOOP
from mlp_accel.bench.checks import (
    epochs_remembered,
    evaluation_differs,
    losses_differ,
    more_cores,
    parameters_differ,
    work_off_the_clock,
)
from mlp_accel.bench.config import MIN_EPOCHS, Config
from mlp_accel.bench.engines.engine import CALL_TIMEOUT, EngineError
from mlp_accel.bench.results import REFERENCE, PassedOver, Result
from mlp_accel.bench.runs import (
    WARM_UP_EPOCHS,
    Listener,
    Measurement,
    attempt,
    evaluate,
    measurements_of,
    start,
    surprise,
    train_epoch,
)
from mlp_accel.environment import environment
from mlp_accel.training.parameters import load_params

UNSTABLE = (
    "the training is unstable at learning rate {:g}: a change in the last bit of the initial weights grows as large, "
    "so no two backends can agree; try a smaller learning rate"
)


def run_benchmark(
    names: Sequence[str], config: Config, listen: Listener = lambda _: None, timeout: float = CALL_TIMEOUT, starts: int = 1
) -> Result:
    """Measure epoch times of several engines; Ctrl-C leaves what was measured until then.

    Parameters
    ----------
    names : sequence of str
        Backends and peers to show; the reference is measured as well.
    config : Config
        What is trained, and for how many steady ``epochs``.
    listen : callable
        Gets a line for each thing done.
    timeout : float
        Seconds after which an engine that does not answer is given up.
    starts : int
        How often each engine is started. Once: with the caches of the user, whatever they hold. More often: with caches of its
        own, which the first start finds empty and every other one finds filled.

    Returns
    -------
    Result
    """
    config = replace(config, warm_up_epochs=WARM_UP_EPOCHS, short=config.epochs < MIN_EPOCHS)
    measured, reference = engines(names, config.path)
    nudged = Measurement.of(REFERENCE, LOOP, shown=False)
    before = environment()
    rng = random.Random(config.seed)
    no_faster_path: list[PassedOver] = []
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="mlp-accel-bench.") as temporary:
        folder = Path(temporary)
        try:
            for number, measurement in enumerate(measured):
                measurement.caches = folder / f"caches-{number}" if starts > 1 else None
            for _ in range(starts):
                for measurement in rng.sample(measured, len(measured)):
                    measurement.close()
                    attempt(measurement, listen, partial(start, config=config, timeout=timeout, listen=listen))
                no_faster_path += _leave_out(measured)
            for measurement in measured:
                attempt(measurement, listen, partial(_first_steps, folder=folder))
            _check_first_steps(measured, reference, config, folder)
            for epoch in range(WARM_UP_EPOCHS + config.epochs):
                for measurement in rng.sample(measured, len(measured)):
                    attempt(measurement, listen, train_epoch)
                listen(_epoch_line(epoch, config.epochs, measured))
            for measurement in measured:
                attempt(measurement, listen, evaluate)
            seed = secrets.randbelow(2**31)
            for measurement in measured:
                attempt(measurement, listen, partial(surprise, seed=seed))
            if any(m.status == "ok" and _wrong(m, reference, nudged, config.threads) for m in measured):
                _nudge(nudged, reference, config)
        except KeyboardInterrupt:
            interrupted = True
            for measurement in measured:
                if measurement.status == "ok" and len(measurement.seconds) <= WARM_UP_EPOCHS:
                    measurement.status, measurement.reason = "failed", "interrupted before its first steady epoch"
        finally:
            for measurement in measured:
                measurement.close()
    _compare(measured, reference, lambda measurement: _wrong(measurement, reference, nudged, config.threads))
    return Result(
        environment=before,
        config=config,
        no_faster_path=tuple(no_faster_path),
        interrupted=interrupted,
        results=tuple(measurement.run() for measurement in measured if measurement.shown),
        reference=None if reference.shown else reference.run(),
    )


def engines(names: Sequence[str], path: str | None) -> tuple[list[Measurement], Measurement]:
    """The engines of a benchmark, the reference among them, shown or not; and the reference."""
    measured = measurements_of(names, path)
    reference = next((engine for engine in measured if (engine.name, engine.requested_path) == (REFERENCE, LOOP)), None)
    if reference is None:
        reference = Measurement.of(REFERENCE, LOOP, shown=False)
        measured.insert(0, reference)
    return measured, reference


def _leave_out(measured: list[Measurement]) -> list[PassedOver]:
    """Remove the second row of each backend that has nothing to show there; those that have no faster path are returned.

    A backend that cannot run here says so in the row of its loop alone.
    """
    no_faster_path = []
    for measurement in [measurement for measurement in measured if measurement.requested_path == AUTO]:
        if measurement.path == LOOP:
            no_faster_path.append(PassedOver(name=measurement.name, passed_over=measurement.passed_over))
        if measurement.path == LOOP or measurement.status == "unavailable":
            measured.remove(measurement)
            measurement.close()
    return no_faster_path


def _epoch_line(epoch: int, epochs: int, measured: Sequence[Measurement]) -> str:
    times = ", ".join(f"{engine.label} {engine.seconds[-1]:.4f} s" for engine in measured if engine.running)
    title = f"epoch {epoch - WARM_UP_EPOCHS + 1}/{epochs}" if epoch >= WARM_UP_EPOCHS else "warm-up epoch"
    return f"{title}: {times}" if times else f"{title}: no engine left"


def _first_steps(measurement: Measurement, folder: Path) -> None:
    if measurement.engine is not None and measurement.kind == "backend":
        measurement.engine.call("check", str(_parameters(measurement, folder)))


def _parameters(measurement: Measurement, folder: Path) -> Path:
    return folder / f"{measurement.label}.npz"


def _check_first_steps(measured: Sequence[Measurement], reference: Measurement, config: Config, folder: Path) -> None:
    """Compare the parameters of the backends after some steps, and say so if the training itself is the cause that they differ."""

    def differ(file: Path) -> str | None:
        return parameters_differ(load_params(file), load_params(_parameters(reference, folder)), config.dtype)

    backends = [measurement for measurement in measured if measurement.kind == "backend"]
    _compare(backends, reference, lambda measurement: differ(_parameters(measurement, folder)))
    if reference.engine is not None and any(measurement.status == "mismatch" for measurement in backends):
        with suppress(EngineError):  # the reference will be found lost at its next epoch
            nudged = folder / "nudged.npz"
            reference.engine.call("check", str(nudged), True)
            unstable = f"; {UNSTABLE.format(config.learning_rate)}" if differ(nudged) else ""
            for measurement in backends:
                if measurement.status == "mismatch":
                    measurement.reason = f"{measurement.reason}{unstable}"


def _nudge(nudged: Measurement, reference: Measurement, config: Config) -> None:
    """Train the reference once more, with first weights that differ in the last bit, to see how far that is carried."""
    if reference.engine is None:
        return
    with suppress(EngineError):  # then nothing is known of it
        nudged.engine = reference.engine
        nudged.engine.call("restart", config.seed, True)
        for _ in reference.losses:
            train_epoch(nudged)
        evaluate(nudged)


def _wrong(measurement: Measurement, reference: Measurement, nudged: Measurement, threads: int) -> str | None:
    """What is wrong with what an engine computed or with how, or None."""
    tolerance, steady = measurement.tolerance, measurement.seconds[WARM_UP_EPOCHS:]
    return (
        losses_differ(measurement.losses, reference.losses, tolerance, nudged.losses)
        or work_off_the_clock(measurement.moved, measurement.unfinished_seconds, measurement.seconds)
        or _test_set_differs(measurement, reference, nudged)
        or _surprise_differs(measurement, reference, nudged)
        or epochs_remembered(measurement.surprise_seconds, steady)
        or more_cores(measurement.cores_used, threads)
    )


def _test_set_differs(measurement: Measurement, reference: Measurement, nudged: Measurement) -> str | None:
    if not measurement.test or not reference.test:  # Ctrl-C came before
        return None
    return evaluation_differs(measurement.test, reference.test, measurement.tolerance, nudged.test or None)


def _surprise_differs(measurement: Measurement, reference: Measurement, nudged: Measurement) -> str | None:
    problem = losses_differ(measurement.surprise_losses, reference.surprise_losses, measurement.tolerance, nudged.losses)
    return f"from a seed drawn after the timed epochs {problem}" if problem else None


def _compare(measured: Sequence[Measurement], reference: Measurement, differ: Callable[[Measurement], str | None]) -> None:
    """Mark those that are not right; without the reference nothing can be said to be right."""
    for measurement in measured:
        if measurement.status != "ok":
            continue
        if reference.status == "ok":
            problem = differ(measurement)
        else:
            problem = f"the reference ({reference.label}) has {reference.status}: {reference.reason}"
        if problem:
            measurement.status, measurement.reason = "mismatch", problem
            measurement.close()
