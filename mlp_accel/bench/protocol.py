"""How a time is measured: one process per engine, turn by turn, and only right results count.

While an engine is timed all the others are stopped. Cold start, transfer and steady epochs are reported apart. Every engine must
agree with the loop of the NumPy backend, which therefore always runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlp_accel.backends.paths import AUTO, LOOP
from mlp_accel.bench.checks import losses_differ, more_cores, parameters_differ, peer_losses_differ, work_off_the_clock
from mlp_accel.bench.engines.engine import CALL_TIMEOUT, EngineError
from mlp_accel.bench.environment import environment
from mlp_accel.bench.result_files import SCHEMA, label
from mlp_accel.bench.runs import WARM_UP_EPOCHS, Listener, Run, attempt, runs_of, start, train_epoch
from mlp_accel.training.parameters import load_params

REFERENCE = "numpy"
"""The backend whose loop all others are held to."""

REFERENCE_LABEL = label({"name": REFERENCE, "path": LOOP})
MIN_EPOCHS = 5
"""Fewer steady epochs make a result short: good for a look, not for keeping."""

UNSTABLE = (
    "the training is unstable at learning rate {:g}: a change in the last bit of the initial weights grows as large, "
    "so no two backends can agree; try a smaller learning rate"
)


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
        ``layer_sizes``, ``activation``, ``gradient``, ``dtype``, ``batch_size``, ``optimizer``, ``learning_rate``, ``momentum``,
        ``weight_decay``, ``seed``, ``threads``, ``data``, ``n_train`` (the number of training samples) and ``path``: the one that
        all backends are restricted to, or None for the loop of each and its fastest one.
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
        ``no_faster_path``, for each backend that has none for this its ``name`` and the paths ``passed_over``; and ``interrupted``
        if Ctrl-C ended it early.
    """
    runs, reference = engines(names, config["path"])
    result: dict[str, Any] = {"schema": SCHEMA, "environment": environment(), "config": {**config, "epochs": epochs}}
    result["config"] |= {"warm_up_epochs": WARM_UP_EPOCHS, "short": epochs < MIN_EPOCHS}
    result["no_faster_path"] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for run in list(runs):
                if _cannot_run(run, runs):
                    runs.remove(run)
                    continue
                attempt(run, listen, lambda run: start(run, config, timeout, listen))
                if (run.asked, run.path) == (AUTO, LOOP):
                    result["no_faster_path"].append({"name": run.name, "passed_over": run.passed_over})
                    runs.remove(run)
                    run.close()
            for run in runs:
                attempt(run, listen, lambda run: _first_steps(run, Path(folder)))
            _check_first_steps(runs, reference, config, Path(folder))
        for epoch in range(WARM_UP_EPOCHS + epochs):
            for run in runs[epoch % len(runs) :] + runs[: epoch % len(runs)]:  # nobody is always first
                attempt(run, listen, train_epoch)
            times = ", ".join(f"{run.label} {run.seconds[-1]:.4f} s" for run in runs if run.running)
            title = f"epoch {epoch - WARM_UP_EPOCHS + 1}/{epochs}" if epoch >= WARM_UP_EPOCHS else "warm-up epoch"
            listen(f"{title}: {times}" if times else f"{title}: no engine left")
        for run in runs:
            attempt(run, listen, _finish)
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


def engines(names: Sequence[str], path: str | None) -> tuple[list[Run], Run]:
    """The engines of a benchmark, the reference among them, shown or not; and the reference."""
    runs = runs_of(names, path)
    reference = next((run for run in runs if (run.name, run.asked) == (REFERENCE, LOOP)), None)
    if reference is None:
        reference = Run.of(REFERENCE, LOOP, shown=False)
        runs.insert(0, reference)
    return runs, reference


def _cannot_run(run: Run, runs: Sequence[Run]) -> bool:
    """Whether the loop of its backend has found that the backend cannot run here: one row says so."""
    return run.asked == AUTO and any(other.name == run.name and other.status == "unavailable" for other in runs)


def _finish(run: Run) -> None:
    assert run.engine is not None
    run.test = run.engine.call("evaluate")


def _first_steps(run: Run, folder: Path) -> None:
    if run.engine is not None and run.kind == "backend":
        run.engine.call("check", str(_parameters(run, folder)))


def _parameters(run: Run, folder: Path) -> Path:
    return folder / f"{run.label}.npz"


def _check_first_steps(runs: Sequence[Run], reference: Run, config: dict[str, Any], folder: Path) -> None:
    """Compare the parameters of the backends after some steps, and say so if the training itself is the cause that they differ."""

    def differ(file: Path) -> str | None:
        return parameters_differ(load_params(file), load_params(_parameters(reference, folder)), config["dtype"])

    backends = [run for run in runs if run.kind == "backend"]
    _compare(backends, reference, lambda run: differ(_parameters(run, folder)))
    if reference.engine is not None and any(run.status == "mismatch" for run in backends):
        with suppress(EngineError):  # the reference will be found lost at its next epoch
            nudged = folder / "nudged.npz"
            reference.engine.call("check", str(nudged), True)
            unstable = f"; {UNSTABLE.format(config['learning_rate'])}" if differ(nudged) else ""
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
            problem = f"the reference ({reference.label}) has {reference.status}: {reference.reason}"
        if problem:
            run.status, run.reason = "mismatch", problem
            run.close()
