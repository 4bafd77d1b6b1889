"""The cluster kernel, run on the CPU as CUDA would run it, against float64; and faults put into it, which must show."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel.backends.cupy.paths.cluster import FILES, ClusterShape, fit, largest_hidden
from mlp_accel.backends.cupy.source import DEVICE, source
from mlp_accel.optimizers import Optimizer
from tests.backends.cupy.emulator import DEFAULT, Emulation
from tests.backends.cupy.faults import Faults, table
from tests.backends.cupy.kernels import cluster_task, emulate_cluster, program
from tests.backends.cupy.problem import Problem, assert_same_bits, distance, reference
from tests.backends.cupy.small import ACTIVATIONS, SGD, TANH, ratio, rule_of

PARAMETER_TOLERANCE = {False: 2e-6, True: 2e-4}
"""After three steps, in units of the largest parameter: about 20 eps of float32 (split TF32), and of TF32 divided by 8 (plain)."""

LOSS_TOLERANCE = {False: 1e-6, True: 1e-4}


def shape(inputs: int, hidden: int, classes: int, batch: int, activation: str, rule: str, **others: Any) -> ClusterShape:
    return ClusterShape(inputs, hidden, classes, batch, ACTIVATIONS[activation], rule_of(rule), **others)


SHAPES = {
    "tanh, SGD": shape(40, 12, 5, 20, "tanh", "sgd", cluster=2, warps=2),
    "relu, notebook's rule, momentum, odd sizes": shape(
        101, 30, 10, 33, "relu", "momentum", gradient="notebook", cluster=4, warps=3
    ),
    "silu, AdamW, 40 classes, cluster of 16": shape(64, 9, 40, 16, "silu", "adamw", cluster=16, warps=1),
    "sigmoid, notebook's rule, one block alone": shape(30, 9, 3, 7, "sigmoid", "sgd", gradient="notebook", cluster=1, warps=1),
    "gelu, Adam, more blocks than inputs": shape(17, 70, 2, 40, "gelu", "adam", cluster=8, warps=2),
    "one unit, one sample": shape(5, 1, 2, 1, "elu", "sgd with decay", cluster=2, warps=2),
    "functions of a user's own": shape(50, 20, 6, 17, "wavelet", "chase", cluster=2, warps=2),
    "MNIST": shape(784, 32, 10, 128, "tanh", "sgd", cluster=8, warps=2),
    "MNIST, plain TF32": shape(784, 32, 10, 128, "tanh", "sgd", tf32=True, cluster=8, warps=2),
}


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
        assert distance(result, expected) < PARAMETER_TOLERANCE[shape.tf32]
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[shape.tf32])
        np.testing.assert_array_equal(result.hits, expected.hits)
    assert_same_bits(*results)


def test_several_networks_in_one_launch_are_the_same_bits_as_one_by_one() -> None:
    shape = SHAPES["relu, notebook's rule, momentum, odd sizes"]
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


def test_a_network_that_diverges_ends_with_a_loss_that_is_not_finite() -> None:
    shape = SHAPES["tanh, SGD"]
    problem = problem_for(shape)
    problem.states[0].params[0][0][3, 2] = np.nan
    assert not np.isfinite(emulate_cluster(problem, shape).losses).any()


def test_what_is_no_parameter_does_not_meet_the_rule() -> None:
    """Images and units are padded with zeros, of which this rule makes NaN."""
    optimizer = Optimizer(ratio)
    shape = replace(SHAPES["tanh, SGD"], rule=Optimizer.record_for([optimizer]))
    problem = Problem.random(cluster_task(shape), 50, optimizer)
    problem.x |= 1  # every parameter has a gradient
    result, expected = emulate_cluster(problem, shape), reference(problem)
    assert distance(result, expected) < 1e-5
    np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-5)


# Faults ---------------------------------------------------------------------------------------------------------------------------

FAULTY = replace(SHAPES["tanh, SGD"], rule=rule_of("nesterov"), hidden=40, batch=32, cluster=4, warps=2)


@pytest.fixture(scope="module")
def faults() -> Faults:
    """What becomes of the kernel with each barrier and wait removed, and each cluster barrier narrowed to the block."""
    problem = Problem.random(cluster_task(FAULTY), 3 * FAULTY.batch + 5)
    expected = reference(problem)

    def check(emulation: Emulation) -> None:
        result = emulate_cluster(problem, FAULTY, emulation)
        np.testing.assert_array_less(distance(result, expected), PARAMETER_TOLERANCE[False])
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[False])

    check(DEFAULT)
    return Faults.inject(check, program(FAULTY).barrier_sites(), "cluster.cu", seeds=(1, 2, 3))


def test_every_barrier_and_wait_of_the_source_is_run_and_removed_in_turn(faults: Faults) -> None:
    lines = source("cluster.cu").splitlines()[1:]
    calls = r"\b(warp_sync|block_sync|cluster_sync|copy_wait)\(\)"
    assert {line for line, text in enumerate(lines, start=1) if re.search(calls, text)} == set(faults.lines())
    assert not re.search(calls, source("basics.cuh", "common.cuh"))


def test_every_fault_is_caught(faults: Faults) -> None:
    sys.stdout.write(table(faults))
    assert faults.missed() == []


def test_only_the_primitives_speak_cuda() -> None:
    text = source(*FILES)
    for word in ("asm", "__sync", "threadIdx", "blockIdx", "__shfl", "__shared__"):
        assert word not in text
        assert word in source(DEVICE)


# Fit ------------------------------------------------------------------------------------------------------------------------------

H200_SHARED = 232_448
"""Bytes of shared memory that a block may use on compute capability 9.0: CUDA C++ Programming Guide, table of technical limits."""


def test_the_largest_network_that_fits_is_the_largest() -> None:
    shape = ClusterShape(784, 32, 10, 128, TANH, SGD)
    widest = largest_hidden(shape, H200_SHARED)
    docs = (Path(__file__).parents[3] / "docs" / "gpu.md").read_text()
    assert f"a cluster holds up to {widest} hidden units" in docs
    for hidden in range(1, 400):
        assert (fit(replace(shape, hidden=hidden), H200_SHARED) is not None) == (hidden <= widest)


def test_a_larger_cluster_is_taken_only_where_a_portable_one_is_too_small() -> None:
    small, large = (fit(ClusterShape(784, hidden, 10, 256, TANH, SGD), H200_SHARED) for hidden in (32, 72))
    assert small is not None
    assert small.cluster == 8
    assert large is not None
    assert large.cluster == 16
    assert fit(ClusterShape(784, 4096, 10, 128, TANH, SGD), H200_SHARED) is None
    assert largest_hidden(ClusterShape(784, 1, 10, 100_000, TANH, SGD), H200_SHARED) == 0
