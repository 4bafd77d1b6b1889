"""How far a result may be from the float64 reference, in one table: units of eps, relative to the largest element."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

EPS_UNITS = {
    # A step
    "minibatch": 2,
    "dense": 100,
    "classify": 100,
    "hidden_delta": 100,
    "update": 100,
    # What only the public verbs need
    "scale_pixels": 2,
    "softmax": 100,
    "cross_entropy": 100,
    "correct": 0,
    "output_delta": 100,
    "dense_gradient": 100,
    "apply_rule": 4,
    # A whole step by a path, in its parameters, slots and losses
    "path": 1000,
}


def assert_close(op: str, dtype: str, actual: npt.NDArray[Any], expected: npt.NDArray[Any], natural: float = 0.0) -> None:
    """Compare with the tolerance of the table; `expected` is float64.

    `natural` is the size of what the result was made of, where that is larger than the result: the digits of a difference cancel.
    """
    tolerance = EPS_UNITS[op] * float(np.finfo(dtype).eps)
    scale = max(natural, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=f"{op} in {dtype}")
