"""The step kernels, run on the CPU as CUDA would run them, against float64; and faults put into them, which must show."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlp_accel.backends.cupy.paths.steps import StepShape
from mlp_accel.backends.cupy.source import source
from tests.backends.cupy.emulator import DEFAULT, Emulation
from tests.backends.cupy.faults import Faults, table
from tests.backends.cupy.kernels import emulate_steps, program, step_task
from tests.backends.cupy.problem import Problem, assert_same_bits, distance, reference
from tests.backends.cupy.small import ACTIVATIONS, rule_of

PARAMETER_TOLERANCE = {False: 2e-6, True: 5e-4}
LOSS_TOLERANCE = {False: 1e-6, True: 2e-4}


def shape(sizes: tuple[int, ...], batch: int, activation: str, rule: str, **others: Any) -> StepShape:
    return StepShape(sizes, batch, ACTIVATIONS[activation], rule_of(rule), **others)


SHAPES = {
    "one hidden layer, tanh, SGD": shape((40, 12, 5), 20, "tanh", "sgd"),
    "three hidden layers, relu, notebook's rule": shape((50, 33, 17, 40, 7), 19, "relu", "momentum", gradient="notebook"),
    "floating images, sigmoid, Adam, 70 classes": shape((37, 40, 70), 33, "sigmoid", "adam", bytes=False),
    "no hidden layer, floating images": shape((20, 3), 8, "tanh", "sgd with decay", bytes=False),
    "one unit, one sample": shape((5, 1, 2), 1, "elu", "sgd"),
    "two hidden layers, silu, AdamW": shape((30, 20, 34, 5), 20, "silu", "adamw"),
    "functions of a user's own": shape((50, 20, 8, 6), 17, "wavelet", "chase"),
    "without tensor cores": shape((50, 33, 17, 7), 19, "tanh", "momentum", tensor_cores=False),
    "plain TF32": shape((200, 40, 30, 10), 48, "tanh", "sgd", tf32=True),
}


@pytest.mark.parametrize("truncate", [False, True], ids=["rounding", "truncating"])
@pytest.mark.parametrize("name", SHAPES)
def test_an_epoch_agrees_with_float64(name: str, truncate: bool) -> None:
    shape = SHAPES[name]
    problem = Problem.random(step_task(shape), 2 * shape.batch + (shape.batch + 1) // 2)
    expected = reference(problem)
    results = [emulate_steps(problem, shape, Emulation(seed, truncate)) for seed in (1, 2)]
    for result in results:
        assert distance(result, expected) < PARAMETER_TOLERANCE[shape.tf32]
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[shape.tf32])
        np.testing.assert_array_equal(result.hits, expected.hits)
    assert_same_bits(*results)


def test_every_barrier_of_the_source_is_removed_in_turn_and_each_fault_is_caught() -> None:
    shape = replace(SHAPES["floating images, sigmoid, Adam, 70 classes"], batch=20)
    problem = Problem.random(step_task(shape), 45)
    expected = reference(problem)

    def check(emulation: Emulation) -> None:
        result = emulate_steps(problem, shape, emulation)
        np.testing.assert_array_less(distance(result, expected), PARAMETER_TOLERANCE[False])
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[False])

    check(DEFAULT)
    faults = Faults.inject(check, program(shape).barrier_sites(), "steps.cu", seeds=(1, 2, 3))
    sys.stdout.write(table(faults))
    lines = source("steps.cu").splitlines()[1:]
    calls = {line for line, text in enumerate(lines, start=1) if re.search(r"\b(\w+_sync|copy_wait)\(\)", text)}
    assert calls == set(faults.lines())
    assert faults.missed() == []
