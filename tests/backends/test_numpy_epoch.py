"""The NumPy backend's own loop against the shared one in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_accel import get_backend, init_params
from mlp_accel.training import SGDStep, Trainer


def train(dtype: str, fused: bool, x: Any, y: Any, sizes: list[int], batch_size: int, step: SGDStep) -> tuple[Any, list[float]]:
    backend = get_backend("numpy", dtype)
    trainer = Trainer(x, y, init_params(sizes, 1), step, backend, batch_size=batch_size, fused=fused)
    sums = [number for _ in range(2) for number in trainer.epoch()[:2]]
    assert not fused or backend.epoch_path == "fused loop"
    return trainer.host_params(), sums


@settings(max_examples=60, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 20), max_size=3),
    n_classes=st.integers(2, 12),
    n=st.integers(1, 40),
    batch_size=st.integers(1, 45),
    pixels=st.booleans(),
    activation=st.sampled_from(["tanh", "relu", "sigmoid"]),
    gradient=st.sampled_from(["exact", "notebook"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_fused_loop_is_the_shared_loop(
    hidden: list[int], n_classes: int, n: int, batch_size: int, pixels: bool, activation: str, gradient: str, dtype: str
) -> None:
    rng = np.random.default_rng(n)
    x: npt.NDArray[Any] = rng.integers(0, 256, (n, 9), dtype=np.uint8) if pixels else rng.normal(size=(n, 9))
    y, sizes, step = rng.integers(0, n_classes, n), [9, *hidden, n_classes], SGDStep(0.1, activation, gradient)
    expected, expected_sums = train("float64", False, x, y, sizes, batch_size, step)
    params, sums = train(dtype, True, x, y, sizes, batch_size, step)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for ours, theirs in zip(params, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))
    np.testing.assert_allclose(sums[0::2], expected_sums[0::2], rtol=tolerance, atol=tolerance)
    assert sums[1::2] == pytest.approx(expected_sums[1::2], abs=1.01 / n)  # a tie may be broken by the last bit


def test_the_parameters_given_are_not_changed() -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 3
    params = [(w.astype(np.float32), b.astype(np.float32)) for w, b in init_params([4, 5, 3])]
    before = [array.copy() for layer in params for array in layer]
    Trainer(x, y, params, SGDStep(0.5), get_backend("numpy"), batch_size=8).epoch()
    for array, copy in zip((array for layer in params for array in layer), before, strict=True):
        np.testing.assert_array_equal(array, copy)
