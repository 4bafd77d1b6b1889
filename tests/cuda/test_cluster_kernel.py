"""The cluster kernel, run on the CPU as CUDA would run it, against float64; and faults put into it, which must show."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlp_accel.backends.cuda import DEVICE, source
from mlp_accel.backends.cuda.cluster import FILES, ClusterShape, fit, largest_hidden
from tests.cuda.cluster import Problem, distance, emulate, program, reference
from tests.cuda.emulator import DEFAULT, Emulation
from tests.cuda.faults import Faults, table

PARAMETER_TOLERANCE = {False: 2e-6, True: 2e-4}
"""After three steps, in units of the largest parameter: about 20 eps of float32 (split TF32), and of TF32 divided by 8 (plain)."""

LOSS_TOLERANCE = {False: 1e-6, True: 1e-4}

SHAPES = {
    "tanh": ClusterShape(40, 12, 5, 20, "tanh", "exact", cluster=2, warps=2),
    "relu, notebook's rule, odd sizes": ClusterShape(101, 30, 10, 33, "relu", "notebook", cluster=4, warps=3),
    "sigmoid, 40 classes, cluster of 16": ClusterShape(64, 9, 40, 16, "sigmoid", "exact", cluster=16, warps=1),
    "one block alone": ClusterShape(30, 9, 3, 7, "sigmoid", "notebook", cluster=1, warps=1),
    "more blocks than inputs": ClusterShape(17, 70, 2, 40, "relu", "exact", cluster=8, warps=2),
    "one unit, one sample": ClusterShape(5, 1, 2, 1, "tanh", "exact", cluster=2, warps=2),
    "MNIST": ClusterShape(784, 32, 10, 128, "tanh", "exact", cluster=8, warps=2),
    "MNIST, plain TF32": ClusterShape(784, 32, 10, 128, "tanh", "exact", tf32=True, cluster=8, warps=2),
}


def samples(shape: ClusterShape) -> int:
    """Two whole minibatches and, unless they hold one sample, a short one."""
    return 2 * shape.batch + (shape.batch + 1) // 2


@pytest.mark.parametrize("truncate", [False, True], ids=["rounding", "truncating"])
@pytest.mark.parametrize("name", SHAPES)
def test_an_epoch_agrees_with_float64(name: str, truncate: bool) -> None:
    shape = SHAPES[name]
    problem = Problem(shape, samples(shape))
    expected = reference(problem)
    results = [emulate(problem, Emulation(seed, truncate)) for seed in (1, 2)]
    for result in results:
        assert distance(result, expected) < PARAMETER_TOLERANCE[shape.tf32]
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[shape.tf32])
        np.testing.assert_array_equal(result.hits, expected.hits)
    for one, other in zip(results[0].params, results[1].params, strict=True):
        np.testing.assert_array_equal(one, other, err_msg="the order of the threads changes the result")
    np.testing.assert_array_equal(results[0].losses, results[1].losses)


def test_several_networks_in_one_launch_are_the_same_bits_as_one_by_one() -> None:
    problem = Problem(SHAPES["relu, notebook's rule, odd sizes"], 80, networks=3)
    together = emulate(problem)
    for network in range(3):
        alone = emulate(problem.only(network), Emulation(seed=5))
        for ours, theirs in zip(together.params, alone.params, strict=True):
            np.testing.assert_array_equal(ours[network], theirs[0])
        np.testing.assert_array_equal(together.losses[network], alone.losses[0])
    assert not np.array_equal(together.params[0][0], together.params[0][1])


def test_a_network_that_diverges_ends_with_a_loss_that_is_not_finite() -> None:
    problem = Problem(SHAPES["tanh"], 100)
    problem.params[0][0, 3, 2] = np.nan
    assert not np.isfinite(emulate(problem).losses).any()


# Faults ---------------------------------------------------------------------------------------------------------------------------

FAULTY = replace(SHAPES["tanh"], hidden=40, batch=32, cluster=4, warps=2)


@pytest.fixture(scope="module")
def faults() -> Faults:
    """What becomes of the kernel with each barrier and wait removed, and each cluster barrier narrowed to the block."""
    problem = Problem(FAULTY, 3 * FAULTY.batch + 5)
    expected = reference(problem)

    def check(emulation: Emulation) -> None:
        result = emulate(problem, emulation)
        np.testing.assert_array_less(distance(result, expected), PARAMETER_TOLERANCE[False])
        np.testing.assert_allclose(result.losses, expected.losses, rtol=LOSS_TOLERANCE[False])

    check(DEFAULT)
    return Faults.inject(check, program(FAULTY).barrier_sites(), "cluster.cu", seeds=(1, 2, 3))


def test_every_barrier_and_wait_of_the_source_is_run_and_removed_in_turn(faults: Faults) -> None:
    lines = source("cluster.cu").splitlines()[1:]
    calls = r"\b(warp_sync|block_sync|cluster_sync|copy_wait)\(\)"
    assert {line for line, text in enumerate(lines, start=1) if re.search(calls, text)} == set(faults.lines())
    assert not re.search(calls, source("common.cuh"))


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
    shape = ClusterShape(784, 32, 10, 128)
    widest = largest_hidden(shape, H200_SHARED)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"a cluster holds up to {widest} hidden units" in readme
    for hidden in range(1, 400):
        assert (fit(replace(shape, hidden=hidden), H200_SHARED) is not None) == (hidden <= widest)


def test_a_larger_cluster_is_taken_only_where_a_portable_one_is_too_small() -> None:
    small, large = (fit(ClusterShape(784, hidden, 10, 256), H200_SHARED) for hidden in (32, 72))
    assert small is not None
    assert small.cluster == 8
    assert large is not None
    assert large.cluster == 16
    assert fit(ClusterShape(784, 4096, 10, 128), H200_SHARED) is None
    assert largest_hidden(ClusterShape(784, 1, 10, 100_000), H200_SHARED) == 0
