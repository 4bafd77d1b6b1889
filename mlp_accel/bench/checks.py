"""Is an engine's training right? A time is published only if it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

CHECK_STEPS = 20

PARAMETER_TOLERANCE = {"float32": 2e-5, "float64": 2e-14}
"""Largest difference to the reference after `CHECK_STEPS` steps, in units of the largest parameter of its array: about 100 eps."""

FIRST_EPOCH_TOLERANCE = 0.01
LAST_EPOCH_TOLERANCE = 0.05
"""Relative difference of the loss. Sums in another order drift apart with the number of steps."""

PEER_TOLERANCE = 0.05
"""The same in the first epoch of a peer, which draws its own order of the samples."""

CORES_TOLERANCE = 1.15
"""Cores that may be busy for each thread. It is more than 1 because CPU time and wall time are read one after the other."""

UNFINISHED_SHARE = 0.05
UNFINISHED_SECONDS = 0.0005
"""How long an engine may take for its results after the clock has stopped: this share of an epoch or so many seconds, whichever is
longer."""

ENOUGH_EPOCHS = 5
PREEMPTED_SECONDS = 0.03
"""With fewer than `ENOUGH_EPOCHS` epochs, how long it may take, in seconds: the system may put a process aside for so long, and
where there are few epochs it may do so in each."""

ParameterArrays = Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]


def parameters_differ(params: ParameterArrays, reference: ParameterArrays, dtype: str) -> str | None:
    """What is wrong with parameters after `CHECK_STEPS` steps, or None."""
    tolerance = PARAMETER_TOLERANCE[dtype]
    for layer, (ours, theirs) in enumerate(zip(params, reference, strict=True), start=1):
        for name, a, b in zip(("weights", "bias"), ours, theirs, strict=True):
            scale = float(np.abs(b).max()) or 1.0
            difference = float(np.abs(a - b).max()) / scale
            if not difference <= tolerance:  # NaN too
                size = f"by {difference:.1e} of the largest (tolerance {tolerance:.0e})"
                return f"after {CHECK_STEPS} steps the {name} of layer {layer} differ from the reference {size}"
    return None


def losses_differ(losses: Sequence[float], reference: Sequence[float]) -> str | None:
    """What is wrong with a backend's losses per epoch, or None; a shorter list is compared as far as it goes."""
    last = min(len(losses), len(reference))
    return _not_finite(losses) or (
        _differs(1, losses, reference, FIRST_EPOCH_TOLERANCE) or _differs(last, losses, reference, LAST_EPOCH_TOLERANCE)
        if last
        else None
    )


def peer_losses_differ(losses: Sequence[float], reference: Sequence[float]) -> str | None:
    """What is wrong with a peer's losses per epoch, or None; the order of its samples is its own."""
    return _not_finite(losses) or (_differs(1, losses, reference, PEER_TOLERANCE) if losses and reference else None)


def more_cores(cores_used: float | None, threads: int) -> str | None:
    """Say so if an engine kept more cores busy than it has threads."""
    if cores_used is None or cores_used <= threads * CORES_TOLERANCE:
        return None
    return f"it kept {cores_used:.2f} cores busy with {threads} thread{'s' if threads > 1 else ''}"


def work_off_the_clock(moved: bool, unfinished: Sequence[float], seconds: Sequence[float]) -> str | None:
    """Say so if an engine went on when its clock had stopped.

    Parameters
    ----------
    moved : bool
        Its parameters changed while no clock was running.
    unfinished, seconds : sequence of float
        For each epoch how long its results were waited for after the clock had stopped, and what the clock said. Only if all
        epochs were late is it the engine: anything may delay a process once, or twice.
    """
    if moved:
        return "its parameters changed after the clock had stopped: the epoch was not done"
    late = min(unfinished, default=0.0)
    shortest = UNFINISHED_SECONDS if len(unfinished) >= ENOUGH_EPOCHS else PREEMPTED_SECONDS
    if late > max(UNFINISHED_SHARE * float(np.median(seconds)) if seconds else 0.0, shortest):
        return f"it was not done when the clock stopped: its results took {late:.2g} s more, each time"
    return None


def _not_finite(losses: Sequence[float]) -> str | None:
    bad = next(((epoch, loss) for epoch, loss in enumerate(losses, start=1) if not math.isfinite(loss)), None)
    return f"the loss is {bad[1]} in epoch {bad[0]}" if bad else None


def _differs(epoch: int, losses: Sequence[float], reference: Sequence[float], tolerance: float) -> str | None:
    ours, theirs = losses[epoch - 1], reference[epoch - 1]
    if abs(ours - theirs) <= tolerance * abs(theirs):
        return None
    return f"the loss of epoch {epoch} is {ours:.6g}, the reference's {theirs:.6g} (tolerance {tolerance:.0%})"
