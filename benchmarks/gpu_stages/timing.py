"""Epochs by the clock: after a warm-up in which the clocks of the GPU come up, for some seconds, beside what the clocks were."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from gpu_stages.rows import Effort
from mlp_accel.bench.runs import summary

QUERY = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "max_sm_mhz": "clocks.max.sm",
    "watts": "power.draw",
    "celsius": "temperature.gpu",
}
"""What is asked of ``nvidia-smi``."""

ROUNDS = 6
"""Rounds of warm-up after which it ends even if the clock still rises."""

KEPT_SAMPLES = 100
"""Of the times of single epochs, so many are kept, evenly spread over the run; median and quartiles are those of all."""

KEPT_LOSSES = 5

LEAST_EPOCHS = 3


class Epochs(Protocol):
    """What is timed: networks in training."""

    def epoch(self) -> tuple[Sequence[float], float, float | None]:
        """Train for an epoch: the mean loss of each network, seconds by the wall clock, and by that of the device if it has one."""


def clocks() -> dict[str, float] | None:
    """Clocks, power and temperature now, of the GPU that runs fastest; None where nobody says."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY.values())}", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
        gpus = [dict(zip(QUERY, map(_number, line.split(",")), strict=True)) for line in lines if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return max(gpus, key=lambda gpu: gpu["sm_mhz"], default=None)


def _number(text: str) -> float:
    """NaN for what a GPU does not say: ``[N/A]``."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def warm_up(work: Callable[[], object], seconds: float, read: Callable[[], dict[str, float] | None] = clocks) -> float:
    """Work for at least `seconds`, until the clock of the GPU no longer rises; returns how long that took."""
    start, before = time.perf_counter(), 0.0
    for _ in range(ROUNDS):
        end = time.perf_counter() + seconds / 2
        while True:
            work()
            if time.perf_counter() >= end:
                break
        now = (read() or {}).get("sm_mhz", 0.0)
        if before and not now > 1.01 * before:
            break
        before = now or before or 1.0  # where nobody knows the clock, two rounds
    return time.perf_counter() - start


def epoch_times(make: Callable[[], Epochs], effort: Effort, networks: int = 1) -> dict[str, Any]:
    """Time epochs: the first one, with all that comes before it, is the cold start; then a warm-up; then what counts."""
    start = time.perf_counter()
    engine = make()
    losses: list[Sequence[float]] = [engine.epoch()[0]]
    cold = time.perf_counter() - start

    def train() -> None:
        loss, *seconds = engine.epoch()
        losses.append(loss)
        times.append(seconds)

    times: list[list[float | None]] = []
    warm = warm_up(train, effort.seconds / 2)
    before = clocks()
    times.clear()
    end = time.perf_counter() + effort.seconds
    while time.perf_counter() < end or len(times) < LEAST_EPOCHS:
        train()
    fields: dict[str, Any] = {"cold_start_seconds": cold, "warm_up_seconds": warm, "clocks": {"before": before, "after": clocks()}}
    wall, device = ([seconds[clock] for seconds in times] for clock in (0, 1))
    fields |= {"epochs": len(times), "networks": networks, "epoch_seconds": _summary(wall), "device_seconds": _summary(device)}
    fields["model_epochs_per_second"] = networks / float(np.median([seconds for seconds in wall if seconds is not None]))
    finite = all(map(math.isfinite, (loss for of_each in losses for loss in of_each)))
    fields["loss"] = [float(of_each[0]) if finite else math.nan for of_each in losses[:KEPT_LOSSES]]
    fields["first_epoch_losses"] = [float(loss) for loss in losses[0]]
    return fields


def _summary(samples: Sequence[float | None]) -> dict[str, Any] | None:
    known = [sample for sample in samples if sample is not None]
    if not known:
        return None
    kept = known[:: -(-len(known) // KEPT_SAMPLES)]
    return {**summary(known), "samples": kept, "of_samples": len(known)}
