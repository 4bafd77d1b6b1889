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
    """What is wrong with the losses per epoch, or None; a shorter list is compared as far as it goes."""
    for epoch, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            return f"the loss is {loss} in epoch {epoch}"
    n = min(len(losses), len(reference))
    for index, tolerance in ((0, FIRST_EPOCH_TOLERANCE), (n - 1, LAST_EPOCH_TOLERANCE)):
        if n and not abs(losses[index] - reference[index]) <= tolerance * abs(reference[index]):
            both = f"{losses[index]:.6g}, the reference's {reference[index]:.6g} (tolerance {tolerance:.0%})"
            return f"the loss of epoch {index + 1} is {both}"
    return None
