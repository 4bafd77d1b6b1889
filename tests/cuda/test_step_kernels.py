"""The step kernels, run on the CPU as CUDA would run them, against float64; and faults put into them, which must show."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel.backends.cuda import round_up, source
from mlp_accel.backends.cuda.steps import THREADS, Launch, StepShape
from mlp_accel.network import init_params
from mlp_accel.training import SGDStep, to_backend
from mlp_accel.workspace import NO_WORKSPACE
from tests.cuda.cluster import Result, distance
from tests.cuda.emulator import DEFAULT, Emulation, Program, stacked
from tests.cuda.faults import Faults, table
from tests.reference import ReferenceBackend

PARAMETER_TOLERANCE = {False: 2e-6, True: 5e-4}
LOSS_TOLERANCE = {False: 1e-6, True: 2e-4}
RATE = {"exact": np.float32(0.3), "notebook": np.float32(0.02)}

SHAPES = {
    "one hidden layer, tanh": StepShape((40, 12, 5), 20),
    "three hidden layers, relu, notebook's rule": StepShape((50, 33, 17, 40, 7), 19, True, "relu", "notebook"),
    "floating images, sigmoid, 70 classes": StepShape((37, 40, 70), 33, False, "sigmoid"),
    "no hidden layer": StepShape((20, 3), 8, False),
    "one unit, one sample": StepShape((5, 1, 2), 1),
    "plain TF32": StepShape((200, 40, 30, 10), 48, True, "tanh", "exact", True),
}


def data(shape: StepShape, n: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    rng = np.random.default_rng(3)
    images: npt.NDArray[Any] = rng.integers(0, 256, (n, shape.layer_sizes[0]), dtype=np.uint8)
    if not shape.bytes:
        images = rng.normal(size=images.shape).astype(np.float32)
    return images, rng.integers(0, shape.layer_sizes[-1], n).astype(np.int32), rng.permutation(n).astype(np.int32)


def emulate(shape: StepShape, n: int, emulation: Emulation = DEFAULT) -> Result:
    """An epoch, launch by launch as the host plans it, in memory that starts as NaN."""
    images, labels, order = data(shape, n)
    if shape.bytes:
        padded = np.full((n, round_up(shape.layer_sizes[0], 16)), 255, np.uint8)
        padded[:, : shape.layer_sizes[0]] = images
        images = padded
    parameters = np.concatenate([a.ravel() for a in stacked(init_params(shape.layer_sizes, random_bias=True))])
    assert parameters.size == shape.n_parameters
    outputs, deltas = (np.full(shape.n_outputs, np.nan, np.float32) for _ in range(2))
    steps = -(-n // shape.batch)
    losses, hits, sums = np.full(n, np.nan, np.float32), np.zeros(n, np.uint8), np.full((2, steps), np.nan)
    arrays = (parameters, outputs, deltas, images, labels, order, losses, hits, sums[0], sums[1], RATE[shape.gradient])
    program = Program(shape.source(), shape.options())

    def launch(what: Launch, step: int) -> None:
        arguments = (*arrays, np.int32(n), np.int32(step))
        program.launch(what.kernel, what.blocks, THREADS, shape.shared_bytes, arguments, emulation)

    for step in range(steps):
        for what in shape.launches():
            launch(what, step)
    launch(shape.sums(steps), 0)
    ends = np.cumsum([(m + 1) * k for m, k in pairwise(shape.layer_sizes)])[:-1]
    layers = zip(np.split(parameters, ends), pairwise(shape.layer_sizes), strict=True)
    params = [a for flat, (m, k) in layers for a in (flat[: m * k].reshape(m, k), flat[m * k :])]
    return Result(params, sums[0], sums[1])


def reference(shape: StepShape, n: int) -> Result:
    backend = ReferenceBackend("float64")
    host = stacked(init_params(shape.layer_sizes, random_bias=True))
    params = to_backend(backend, list(zip(host[::2], host[1::2], strict=True)))
    step = SGDStep(float(RATE[shape.gradient]), shape.activation, shape.gradient)
    images, labels, order = data(shape, n)
    images = images if shape.bytes else images.astype(np.float64)
    params, losses, hits = backend.train_epoch(step, params, images, labels, order, shape.batch, NO_WORKSPACE)
    return Result([a for pair in params for a in pair], losses, hits)


@pytest.mark.parametrize("truncate", [False, True], ids=["rounding", "truncating"])
@pytest.mark.parametrize("name", SHAPES)
def test_an_epoch_agrees_with_float64(name: str, truncate: bool) -> None:
    shape = SHAPES[name]
    n = 2 * shape.batch + (shape.batch + 1) // 2
    expected = reference(shape, n)
    results = [emulate(shape, n, Emulation(seed, truncate)) for seed in (1, 2)]
    for result in results:
        assert distance(result, expected) < PARAMETER_TOLERANCE[shape.tf32]
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[shape.tf32])
        np.testing.assert_array_equal(result.hits, expected.hits)
    for one, other in zip(results[0].params, results[1].params, strict=True):
        np.testing.assert_array_equal(one, other, err_msg="the order of the threads changes the result")
    np.testing.assert_array_equal(results[0].losses, results[1].losses)


def test_every_barrier_of_the_source_is_removed_in_turn_and_each_fault_is_caught() -> None:
    shape = replace(SHAPES["floating images, sigmoid, 70 classes"], batch=20)
    n = 45
    expected = reference(shape, n)

    def check(emulation: Emulation) -> None:
        result = emulate(shape, n, emulation)
        np.testing.assert_array_less(distance(result, expected), PARAMETER_TOLERANCE[False])
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[False])

    check(DEFAULT)
    faults = Faults.inject(check, Program(shape.source(), shape.options()).barrier_sites(), "steps.cu", seeds=(1, 2, 3))
    sys.stdout.write(table(faults))
    lines = source("steps.cu").splitlines()[1:]
    calls = {line for line, text in enumerate(lines, start=1) if re.search(r"\b(\w+_sync|copy_wait)\(\)", text)}
    assert calls == set(faults.lines())
    assert faults.missed() == []
