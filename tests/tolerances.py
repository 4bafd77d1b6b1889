"""How far a result may be from the float64 reference, in one table: units of eps, relative to the largest element."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

EPS_UNITS = {
    "scale_pixels": 2,
    "minibatch": 2,
    "dense": 100,
    "softmax": 100,
    "cross_entropy": 100,
    "cross_entropy_from_logits": 100,
    "correct": 0,
    "output_delta": 100,
    "hidden_delta": 100,
    "dense_gradient": 100,
    "sgd_update": 4,
}


def assert_close(op: str, dtype: str, actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Compare with the tolerance of the table; `expected` is float64."""
    tolerance = EPS_UNITS[op] * float(np.finfo(dtype).eps)
    scale = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=f"{op} in {dtype}")
