"""Is one build slower than another? Launches of three workers that take turns: the base, the head, and the base again as a control.

Times of identical code differ from process to process and drift from minute to minute, so the launch is the unit: each starts
fresh workers, and gives one number, the median of its rounds. What the numbers mean is decided in `paired`.
"""

from __future__ import annotations

import math
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlp_accel.bench.checks import PEER, losses_differ
from mlp_accel.bench.engines.caches import own_caches
from mlp_accel.bench.engines.engine import Engine, EngineError
from mlp_accel.bench.gate.measures import EPOCH, FIRST_START, ROUNDS, in_one_process
from mlp_accel.bench.gate.paired import (
    INCONCLUSIVE,
    LOOKS,
    NO_SLOWDOWN,
    Verdict,
    clear,
    combine,
    judge,
    log_ratios,
    median_interval,
)
from mlp_accel.datasets import load
from mlp_accel.network import init_params

BASE, HEAD, CONTROL = "base", "head", "control"
LAUNCHES = 10

SAMPLES = 5120
"""How many samples of the training set a worker trains on. These 40 minibatches of 128 take 3 to 20 ms, so that the builds take
turns quickly and a gate takes a minute or two. The price: what an epoch costs once weighs more than in a whole one, and the data
fits the caches."""

RESULT_TOLERANCE = 0.001
"""How far numbers in the result of a user's own function may differ, as a share of them."""

EPOCH_TIMEOUT = 300.0
"""Seconds after which a worker counts as hung; the first launch also compiles."""

Listener = Callable[[str], object]


class LaunchError(Exception):
    """A launch gave no times; the message says which worker failed, and why."""


@dataclass(frozen=True)
class GateSettings:
    """How carefully to look.

    Attributes
    ----------
    threshold : float
        Slowdowns up to this one do not matter: 0.03 is 3 %.
    launches, rounds : int
        How often to start the workers at most, and epochs of each worker in a launch.
    """

    threshold: float
    launches: int = LAUNCHES
    rounds: int = ROUNDS[EPOCH]


@dataclass(frozen=True)
class Launch:
    """What a launch found.

    Attributes
    ----------
    seconds : dict
        Seconds per epoch of each worker, in the order of the rounds.
    paths : dict
        How each worker trained, in the words of its build.
    device_seconds : dict
        As `seconds`, by the clock of a GPU, around the launches; empty unless every worker has one.
    """

    seconds: dict[str, list[float]]
    paths: dict[str, str]
    device_seconds: dict[str, list[float]] = field(default_factory=dict)


def write_inputs(path: Path, config: dict[str, Any]) -> str:
    """Write what the workers train on: `SAMPLES` of ``config["data"]``, and parameters for ``config["hidden"]``.

    Returns
    -------
    str
        Name of the data set.
    """
    data = load(config["data"])
    params = init_params([data.n_in, *config["hidden"], data.n_classes], config["seed"])
    arrays: dict[str, Any] = {"x": data.x_train[:SAMPLES], "y": data.y_train[:SAMPLES]}
    for i, (weights, bias) in enumerate(params):
        arrays |= {f"w{i}": weights, f"b{i}": bias}
    np.savez(path, **arrays)
    return data.name


def run_gate(
    base: Path,
    head: Path,
    config: dict[str, Any],
    settings: GateSettings,
    listen: Listener = lambda _: None,
) -> dict[str, Any]:
    """Decide whether the package in `head` trains slower than the one in `base`.

    Parameters
    ----------
    base, head : Path
        Folders that hold an installed package.
    config : dict
        As `BuildWorker` takes it.
    settings : GateSettings
    listen : callable
        Gets a line for each launch.

    Returns
    -------
    dict
        ``backend``, ``verdict``, ``reason``, ``paths`` (of the builds) and ``runs``: a list of one series of launches, or of two if
        the first was suspicious, each as `Verdict.to_dict` with its ``launches`` and, on a GPU whose clock the builds give, the
        ``device_change`` and its ``device_interval``. The verdict is by the wall clock.
    """
    builds = {BASE: base, HEAD: head, CONTROL: base}
    rng = random.Random(config["seed"])
    result: dict[str, Any] = {"backend": config["backend"], "paths": {}, "runs": []}

    def series() -> Verdict:
        summaries: list[dict[str, Any]] = []
        on_device: list[float] = []
        for number in range(1, settings.launches + 1):
            launch = run_launch(builds, config, settings.rounds, rng)
            result["paths"] = {name: launch.paths[name] for name in (BASE, HEAD)}
            summaries.append(summary := summarize(launch.seconds))
            if launch.device_seconds:
                on_device.append(summarize(launch.device_seconds)[HEAD]["log_ratio"])
            moved = {name: f"{math.expm1(summary[name]['log_ratio']):+.1%}" for name in (HEAD, CONTROL)}
            listen(f"{config['backend']} launch {number}/{settings.launches}: {moved[HEAD]}, control {moved[CONTROL]}")
            change, control = (np.array([launch[name]["log_ratio"] for launch in summaries]) for name in (HEAD, CONTROL))
            if number in LOOKS and clear(change, control, settings.threshold):
                break
        verdict = judge(change, control, settings.threshold, settings.launches)
        run = {**verdict.to_dict(), "launches": summaries}
        if on_device:
            interval = [math.expm1(end) for end in median_interval(on_device)]
            run |= {"device_change": math.expm1(float(np.median(on_device))), "device_interval": interval}
        result["runs"].append(run)
        return verdict

    try:
        first = series()
        verdict, reason = first.verdict, first.reason
        if verdict != NO_SLOWDOWN:
            listen(f"{config['backend']}: {reason}; once more, to be sure")
            second = series()
            verdict, reason = combine(first.verdict, second.verdict), f"{first.reason}; once more: {second.reason}"
    except LaunchError as error:
        verdict, reason = INCONCLUSIVE, f"a run failed: {error}"
    return {**result, "verdict": verdict, "reason": reason}


def summarize(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """One launch: of each worker its ``seconds``, and of all but the base the median ``log_ratio`` to it with its ``interval``."""
    summary: dict[str, dict[str, Any]] = {BASE: {"seconds": seconds[BASE]}}
    for name in seconds:
        if name != BASE:
            ratios = log_ratios(seconds[name], seconds[BASE])
            summary[name] = {
                "seconds": seconds[name],
                "log_ratio": float(np.median(ratios)),
                "interval": median_interval(ratios),
            }
    return summary


def run_launch(builds: Mapping[str, Path], config: dict[str, Any], rounds: int, rng: random.Random) -> Launch:
    """Start one worker for each build, and time `rounds` epochs of each, in a new random order every round.

    While one of them works the others are stopped. What is not an epoch or a call has a new process for each round.

    Parameters
    ----------
    builds : dict
        Name of the worker, and the folder that its package is in.
    config : dict
        As the worker takes it, but for ``cores``; ``measure`` says what is measured, by default epochs.
    rounds : int
        Epochs of each worker.
    rng : random.Random
        For the order.

    Returns
    -------
    Launch

    Raises
    ------
    LaunchError
        If a worker fails, or two of them do not compute the same.
    """
    config = {**config, "cores": _same_cores(config["threads"], rng)}
    in_turns = _rounds_of_processes if in_one_process(config.get("measure", EPOCH)) else _processes_of_rounds
    return in_turns(builds, config, rounds, rng)


def _rounds_of_processes(builds: Mapping[str, Path], config: dict[str, Any], rounds: int, rng: random.Random) -> Launch:
    """One process for each build, whose rounds follow each other."""
    names = list(builds)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    on_device: dict[str, list[float]] = {name: [] for name in names}
    started: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        engines = {}
        for name in rng.sample(names, len(names)):
            engines[name] = _started(name, builds[name], config, _caches(config), stack)
            started[name] = _call(engines[name], name, "warm_up")
        _check_the_same(names, started)
        for _ in range(rounds):
            for name in rng.sample(names, len(names)):
                answer = _call(engines[name], name, "epoch")
                if not math.isfinite(answer["loss"]):
                    raise LaunchError(f"{name}: the loss became {answer['loss']}")
                seconds[name].append(answer["seconds"])
                if "device_seconds" in answer:
                    on_device[name].append(answer["device_seconds"])
    if not all(on_device.values()):  # an older build has no such clock
        on_device = {}
    return Launch(seconds, {name: started[name]["path"] for name in names}, on_device)


def _processes_of_rounds(builds: Mapping[str, Path], config: dict[str, Any], rounds: int, rng: random.Random) -> Launch:
    """A new process for each build in each round; before the first round of all one more, which fills the caches."""
    names = list(builds)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    started: dict[str, dict[str, Any]] = {}
    always_empty = config["measure"] == FIRST_START
    fill = not always_empty and not _caches(config).exists()
    for number in range(-1 if fill else 0, rounds):
        for name in rng.sample(names, len(names)):
            with ExitStack() as stack:
                caches = _caches(config)
                if always_empty:
                    caches = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=caches.parent)))
                engine = _started(name, builds[name], config, caches, stack)
                started[name] = _call(engine, name, "warm_up")
                if number >= 0:
                    seconds[name].append(_call(engine, name, "epoch")["seconds"])
        _check_the_same(names, started)
    return Launch(seconds, {name: started[name]["path"] for name in names})


def _check_the_same(names: Sequence[str], started: Mapping[str, dict[str, Any]]) -> None:
    """Raise `LaunchError` if the workers do not compute the same: then their times say nothing."""
    first = started[names[0]]
    for name in names[1:]:
        problem = None
        if "loss" in first:
            problem = losses_differ([started[name]["loss"]], [first["loss"]], PEER)
        elif len(first["values"]) != len(started[name]["values"]) or not np.allclose(
            started[name]["values"], first["values"], rtol=RESULT_TOLERANCE, atol=0, equal_nan=True
        ):
            problem = f"its results are others (tolerance {RESULT_TOLERANCE:.1%})"
        if problem:
            raise LaunchError(f"{name} does not compute what {names[0]} computes, so their times say nothing: {problem}")


def _caches(config: dict[str, Any]) -> Path:
    """Where builds keep what they compile: beside their inputs, with which it goes."""
    return Path(config["inputs"]).parent / "caches"


def _same_cores(threads: int, rng: random.Random) -> list[int] | None:
    """Cores that all workers of a launch are bound to.

    The workers never compute at the same time, so another program on these cores slows all of them alike.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    return rng.sample(sorted(os.sched_getaffinity(0)), threads)


def _started(name: str, build: Path, config: dict[str, Any], caches: Path, stack: ExitStack) -> Engine:
    worker = Path(__file__).with_name("worker.py")
    engine = Engine([sys.executable, "-P", str(worker), str(build)], EPOCH_TIMEOUT, own_caches(caches))
    stack.callback(engine.close)
    _call(engine, name, "create", config)
    return engine


def _call(engine: Engine, name: str, command: str, *arguments: Any) -> dict[str, Any]:
    try:
        return engine.call(command, *arguments)
    except EngineError as error:
        raise LaunchError(f"{name}: {error.reason}") from error
