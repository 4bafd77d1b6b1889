"""The kernels of the path `cluster`, run on the CPU as CUDA would run them, against float64; and with faults, which must show."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel.backends.cupy.paths.cluster import widest
from mlp_accel.backends.cupy.paths.cluster_shapes import FILES, ClusterShape, HalfShape, Tf32Shape
from mlp_accel.backends.cupy.source import DEVICE, source
from mlp_accel.optimizers import Optimizer
from tests.backends.cupy.emulator import DEFAULT, Emulation
from tests.backends.cupy.faults import Faults, table
from tests.backends.cupy.kernels import cluster_task, emulate_cluster, program
from tests.backends.cupy.problem import Problem, assert_same_bits, distance, reference
from tests.backends.cupy.small import ACTIVATIONS, ratio, rule_of

PARAMETER_TOLERANCE = {False: 2e-6, True: 2e-4}
"""After three steps, in units of the largest parameter: about 20 eps of float32 (split TF32), and of TF32 divided by 8 (plain)."""

LOSS_TOLERANCE = {False: 1e-6, True: 1e-4}


def half(inputs: int, hidden: int, classes: int, batch: int, activation: str, rule: str, **others: Any) -> HalfShape:
    return HalfShape(inputs, hidden, classes, batch, ACTIVATIONS[activation], rule_of(rule), **others)


def tf32(inputs: int, hidden: int, classes: int, batch: int, activation: str, rule: str, **others: Any) -> Tf32Shape:
    return Tf32Shape(inputs, hidden, classes, batch, ACTIVATIONS[activation], rule_of(rule), **others)


MNIST = half(784, 32, 10, 128, "tanh", "sgd", cluster=8, warps=2)
ODD = half(101, 30, 10, 33, "relu", "momentum", gradient="notebook", cluster=4, warps=3)
SHAPES: dict[str, ClusterShape] = {
    "half: tanh, SGD": half(40, 12, 5, 20, "tanh", "sgd", cluster=2, warps=2),
    "half: relu, notebook's rule, momentum, odd sizes": ODD,
    "half: silu, AdamW, 16 classes, cluster of 16": half(64, 9, 16, 16, "silu", "adamw", cluster=16, warps=1),
    "half: sigmoid, notebook's rule, one block alone": half(
        *(30, 9, 3, 7, "sigmoid", "sgd"), gradient="notebook", cluster=1, warps=1
    ),
    "half: gelu, Adam, more blocks than inputs": half(17, 70, 2, 40, "gelu", "adam", cluster=8, warps=2),
    "half: one unit, one sample": half(5, 1, 2, 1, "elu", "sgd with decay", cluster=2, warps=2),
    "half: functions of a user's own": half(50, 20, 6, 17, "wavelet", "chase", cluster=2, warps=4),
    "half: MNIST": MNIST,
    "tf32: relu, notebook's rule, momentum, odd sizes": tf32(
        *(101, 30, 10, 33, "relu", "momentum"), gradient="notebook", cluster=4, warps=3
    ),
    "tf32: silu, AdamW, 40 classes, cluster of 16": tf32(64, 9, 40, 16, "silu", "adamw", cluster=16, warps=1),
    "tf32: functions of a user's own, one block alone": tf32(50, 20, 6, 17, "wavelet", "chase", cluster=1, warps=2),
    "tf32: floating samples, tanh, Adam": tf32(54, 33, 7, 40, "tanh", "adam", bytes=False, cluster=4, warps=3),
    "tf32: MNIST": tf32(784, 32, 10, 128, "tanh", "sgd", cluster=8, warps=2),
    "tf32: MNIST, plain": tf32(784, 32, 10, 128, "tanh", "sgd", tf32=True, cluster=8, warps=2),
}
PLAIN = {name: isinstance(shape, Tf32Shape) and shape.tf32 for name, shape in SHAPES.items()}


def problem_for(shape: ClusterShape) -> Problem:
    """Two whole minibatches and, unless they hold one sample, a short one."""
    return Problem.random(cluster_task(shape), 2 * shape.batch + (shape.batch + 1) // 2)


@pytest.mark.parametrize("truncate", [False, True], ids=["rounding", "truncating"])
@pytest.mark.parametrize("name", SHAPES)
def test_an_epoch_agrees_with_float64(name: str, truncate: bool) -> None:
    shape = SHAPES[name]
    problem = problem_for(shape)
    expected = reference(problem)
    results = [emulate_cluster(problem, shape, Emulation(seed, truncate)) for seed in (1, 2)]
    for result in results:
        assert distance(result, expected) < PARAMETER_TOLERANCE[PLAIN[name]]
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[PLAIN[name]])
        np.testing.assert_array_equal(result.hits, expected.hits)
    assert_same_bits(*results)


@pytest.mark.parametrize(
    "shapes",
    [
        [ODD, replace(ODD, cluster=1, warps=2), replace(ODD, cluster=16, warps=4)],
        [MNIST, replace(MNIST, cluster=16, warps=8), replace(MNIST, cluster=4, warps=4)],
    ],
    ids=["odd sizes", "MNIST"],
)
def test_the_size_of_the_cluster_and_the_number_of_warps_change_no_bit(shapes: list[HalfShape]) -> None:
    """Of the kernel with 16-bit operands."""
    problem = problem_for(shapes[0])
    first, *others = (emulate_cluster(problem, shape, Emulation(3, truncate=True)) for shape in shapes)
    for other in others:
        assert_same_bits(first, other)


@pytest.mark.parametrize(
    "name", ["half: relu, notebook's rule, momentum, odd sizes", "tf32: relu, notebook's rule, momentum, odd sizes"]
)
def test_several_networks_in_one_launch_are_the_same_bits_as_one_by_one(name: str) -> None:
    shape = SHAPES[name]
    problem = Problem.random(cluster_task(shape, networks=3), 80)
    together = emulate_cluster(problem, shape)
    for network in range(3):
        alone = emulate_cluster(problem.only(network), shape, Emulation(seed=5))
        one = slice(network, network + 1)
        assert_same_bits(
            replace(together, states=together.states[one], losses=together.losses[one], hits=together.hits[one]), alone
        )
    first, second = (together.states[network].params[0][0] for network in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", ["half: tanh, SGD", "tf32: silu, AdamW, 40 classes, cluster of 16"])
def test_a_network_that_diverges_ends_with_a_loss_that_is_not_finite(name: str) -> None:
    shape = SHAPES[name]
    problem = problem_for(shape)
    problem.states[0].params[0][0][3, 2] = np.nan
    assert not np.isfinite(emulate_cluster(problem, shape).losses).any()


@pytest.mark.parametrize(("layer", "value"), [(0, 1e5), (1, 1e4)], ids=["a weight", "a delta"])
def test_what_no_half_can_hold_ends_with_a_loss_that_is_not_finite(layer: int, value: float) -> None:
    shape = SHAPES["half: tanh, SGD"]
    problem = problem_for(shape)
    problem.states[0].params[layer][0][3, :] = value * np.array([1, -1] * 6)[: problem.states[0].params[layer][0].shape[1]]
    problem.x[:, 3] = 255
    assert not np.isfinite(emulate_cluster(problem, shape).losses[0, -1])


@pytest.mark.parametrize("kind", [HalfShape, Tf32Shape])
def test_what_is_no_parameter_does_not_meet_the_rule(kind: type[ClusterShape]) -> None:
    """Images, units and classes are padded with zeros, of which this rule makes NaN."""
    optimizer = Optimizer(ratio)
    shape = kind(40, 12, 5, 20, ACTIVATIONS["tanh"], Optimizer.record_for([optimizer]), cluster=2, warps=2)
    problem = Problem.random(cluster_task(shape), 50, optimizer)
    problem.x |= 1  # every parameter has a gradient
    result, expected = emulate_cluster(problem, shape), reference(problem)
    assert distance(result, expected) < 1e-5
    np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-5)


# Faults ---------------------------------------------------------------------------------------------------------------------------

FAULTY = [kind(40, 40, 5, 32, ACTIVATIONS["tanh"], rule_of("nesterov"), cluster=4, warps=4) for kind in (HalfShape, Tf32Shape)]


@pytest.mark.parametrize("shape", FAULTY, ids=["half", "tf32"])
def test_every_barrier_and_wait_of_the_source_is_removed_in_turn_and_each_fault_is_caught(shape: ClusterShape) -> None:
    """And each cluster barrier narrowed to the block."""
    problem = Problem.random(cluster_task(shape), 3 * shape.batch + 5)
    expected = reference(problem)

    def check(emulation: Emulation) -> None:
        result = emulate_cluster(problem, shape, emulation)
        np.testing.assert_array_less(distance(result, expected), PARAMETER_TOLERANCE[False])
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[False])

    check(DEFAULT)
    *others, kernel = shape.files
    faults = Faults.inject(check, program(shape).barrier_sites(), kernel, seeds=(1, 2, 3))
    sys.stdout.write(table(faults))
    calls = r"\b(warp_sync|block_sync|cluster_sync|copy_wait|arrival_wait)\("
    lines = source(kernel).splitlines()[1:]
    assert {line for line, text in enumerate(lines, start=1) if re.search(calls, text)} == set(faults.lines())
    assert not re.search(calls, source(*FILES, *others))
    assert faults.missed() == []


@pytest.mark.parametrize("kind", [HalfShape, Tf32Shape])
def test_only_the_primitives_speak_cuda(kind: type[ClusterShape]) -> None:
    text = source(*FILES, *kind.files)
    for word in ("asm", "__sync", "threadIdx", "blockIdx", "__shfl", "__shared__"):
        assert word not in text
        assert word in source(DEVICE)


# Fit ------------------------------------------------------------------------------------------------------------------------------

H200_SHARED = 232_448
"""Bytes of shared memory that a block may use on compute capability 9.0: CUDA C++ Programming Guide, table of technical limits."""


def test_the_largest_network_that_fits_is_the_largest() -> None:
    shapes = [tf32(784, 32, 10, 128, "tanh", "sgd", cluster=cluster) for cluster in (8, 16)]
    most = widest(shapes, H200_SHARED)
    docs = (Path(__file__).parents[3] / "docs" / "gpu.md").read_text()
    assert f"a cluster holds up to {most} hidden units" in docs
    for hidden in range(1, 400):
        assert any(replace(shape, hidden=hidden).fits(H200_SHARED) for shape in shapes) == (hidden <= most)
    assert widest([replace(shape, batch=100_000) for shape in shapes], H200_SHARED) == 0
