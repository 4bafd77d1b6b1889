"""Is an engine's training right? A time is published only if it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CHECK_STEPS = 20

PARAMETER_TOLERANCE = {"float32": 2e-5, "float64": 2e-14}
"""Largest difference to the reference after `CHECK_STEPS` steps, in units of the largest parameter of its array: about 100 eps."""


@dataclass(frozen=True)
class Tolerance:
    """How far a loss may lie from the reference's, as a share of it.

    Attributes
    ----------
    first, later : float
        In the first epoch and in every other one.
    unstable : float
        As far as it may grow where the training itself carries rounding errors away.
    """

    first: float
    later: float
    unstable: float


BACKEND = Tolerance(0.0001, 0.001, 0.05)
"""Of a backend, which sums in another order: on MNIST that is 1e-7 in the first epoch, and 1e-5 after twenty."""

PEER = Tolerance(0.01, 0.01, 0.05)
"""Of a peer that takes the order of the samples and the initial parameters which it is given."""

OWN_ORDER = Tolerance(0.05, 0.10, 0.10)
"""Of a peer that draws its own order of the samples."""

NUDGE_FACTOR = 10
"""How many times as far as a training whose first weights differ in the last bit an engine may drift: that one is rounded otherwise
once, an engine in every step."""

TIES = 2
"""Test samples that another rounding may decide otherwise, whatever the loss."""

REMEMBERED = 2.0
"""How many times as long as the others an epoch may take that no engine could have seen before."""

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


def losses_differ(
    losses: Sequence[float], reference: Sequence[float], tolerance: Tolerance = BACKEND, nudged: Sequence[float] = ()
) -> str | None:
    """What is wrong with an engine's losses, or None; every epoch is compared, of a shorter list as far as it goes.

    Parameters
    ----------
    losses, reference : sequence of float
        Mean loss of each epoch.
    tolerance : Tolerance
    nudged : sequence of float
        Losses of the reference after a change in the last bit of its first weights. Where they drift, others may too.
    """
    bad = next(((epoch, loss) for epoch, loss in enumerate(losses, start=1) if not math.isfinite(loss)), None)
    if bad:
        return f"the loss is {bad[1]} in epoch {bad[0]}"
    drift = 0.0
    for index, (ours, theirs) in enumerate(zip(losses, reference, strict=False)):
        if index < len(nudged):
            drift = max(drift, abs(nudged[index] - theirs) / abs(theirs))
        allowed = tolerance.later if index else tolerance.first
        allowed = max(allowed, min(NUDGE_FACTOR * drift, tolerance.unstable))
        if not abs(ours - theirs) <= allowed * abs(theirs):
            return f"the loss of epoch {index + 1} is {ours:.6g}, the reference's {theirs:.6g} (tolerance {allowed:.3%})"
    return None


def evaluation_differs(
    test: Mapping[str, float], reference: Mapping[str, float], tolerance: Tolerance, nudged: Mapping[str, float] | None = None
) -> str | None:
    """What is wrong with an engine's loss and accuracy on the test set, or None.

    Parameters
    ----------
    test, reference, nudged : mapping
        ``test_loss``, ``test_accuracy`` and ``n_test``, how many samples that set has; `nudged` as in `losses_differ`.
    tolerance : Tolerance
        Of the last epoch. The accuracy may differ by as much as that, and by `TIES`.
    """
    loss, of_reference = test["test_loss"], reference["test_loss"]
    drift = abs(nudged["test_loss"] - of_reference) / abs(of_reference) if nudged else 0.0
    allowed = max(tolerance.later, min(NUDGE_FACTOR * drift, tolerance.unstable))
    if not abs(loss - of_reference) <= allowed * abs(of_reference):
        return f"the loss on the test set is {loss:.6g}, the reference's {of_reference:.6g} (tolerance {allowed:.3%})"
    accuracy, expected = test["test_accuracy"], reference["test_accuracy"]
    if not abs(accuracy - expected) <= allowed + TIES / reference["n_test"]:
        return f"{accuracy:.2%} of the test set are right, of the reference {expected:.2%}"
    return None


def epochs_remembered(surprise: Sequence[float], seconds: Sequence[float]) -> str | None:
    """Say so if epochs that an engine could not have seen before took far longer than those that were timed.

    Parameters
    ----------
    surprise, seconds : sequence of float
        Seconds of epochs from a seed drawn after the timed ones, and of those. Only the fastest surprise counts: anything may
        delay an epoch.
    """
    if not surprise or not seconds:
        return None
    usual, fastest = float(np.median(seconds)), min(surprise)
    if fastest <= REMEMBERED * usual + PREEMPTED_SECONDS:
        return None
    return f"an epoch that it could not know beforehand took {fastest:.2g} s, those that were timed {usual:.2g} s"


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
