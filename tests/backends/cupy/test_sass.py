"""What a step costs in machine instructions: bounds for one version of the compiler, `backends.cupy.model`, that only fall."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping

import pytest

from mlp_accel.backends.cupy.model import BUDGETS, NVRTC, SCHEDULERS, cluster_epoch
from mlp_accel.backends.cupy.paths.cluster_shapes import HalfShape
from mlp_accel.backends.cupy.source import TILE, WARP, ceil_div
from tests.backends.cupy.nvrtc import compile_for, version
from tests.backends.cupy.sass import counted, disassembled, lines_of
from tests.backends.cupy.small import SGD, TANH

PHASES = {
    "before": r"for \(int step",  # what does not change from step to step
    "forward": "send_partial_sums",
    "fetch": "fetcher",
    "samples": r"train_samples|labels\.|has_samples|SAMPLE_ROUNDS|SMALL_PARAMETERS|PARTIAL_SUMS",
    "small gradients": "send_small_gradients",
    "losses": "judge_samples",
    "update": r"weights\.update",
    "small parameters": r"update_small|has_small|SMALL_GRADIENTS",
}
"""Phases of a step of ``cluster_half.cu``, by what stands in the line that calls them; all else is "other"."""


def mnist(cluster: int) -> HalfShape:
    return HalfShape(784, 32, 10, 128, TANH, SGD, cluster=cluster).roomy


def products(shape: HalfShape) -> dict[str, int]:
    """Products of a step in the block that has the most, of tiles of 16 x 16 with 16 x 8; two for each, since one side is split."""
    chunks, row_tiles, column_tiles = shape.slice // TILE, shape.rows // TILE, shape.units // 8
    return dict.fromkeys(("forward", "update"), 2 * chunks * row_tiles * column_tiles)


def warps(shape: HalfShape) -> dict[str, int]:
    """Warps that have a part in a phase, where these are not all."""
    chunks = shape.slice // TILE
    lanes_of_sample = 16 if shape.own_rows <= 8 and shape.warps >= 4 else 8
    threads = {
        "samples": shape.own_rows * lanes_of_sample,
        "small gradients": shape.small // 4,
        "losses": shape.own_rows,
        "small parameters": shape.own_small,
    }
    width = 1 if chunks * shape.units // 8 <= shape.warps else 2
    needed = {
        "forward": shape.rows // TILE * (shape.units // 16),
        "update": chunks * (shape.units // (8 * width)),
        **{phase: ceil_div(count, WARP) for phase, count in threads.items()},
    }
    return {phase: min(count, shape.warps) for phase, count in needed.items()}


def slots(shape: HalfShape, counts: Mapping[str, Counter[str]]) -> dict[str, int]:
    """Issue slots of a scheduler in each phase of a step.

    Where a loop is left in a phase with products, what stands there runs as often as its products say.
    """
    needed, result = products(shape), {}
    for phase, count in counts.items():
        times = 1.0
        of_warps = warps(shape).get(phase, shape.warps)
        if phase in needed:
            times = max(1.0, needed[phase] / (count["HMMA"] * of_warps))
        result[phase] = ceil_div(round(count.total() * times * of_warps), SCHEDULERS)
    return {phase: count for phase, count in result.items() if phase != "before"}


@pytest.mark.parametrize("cluster", BUDGETS)
def test_a_step_of_the_cluster_kernel_keeps_to_its_budget(cluster: int) -> None:
    if version() != NVRTC:
        pytest.skip(f"the budgets hold for NVRTC {NVRTC}, this is {version()}")
    shape, budget = mnist(cluster), BUDGETS[cluster]
    instructions = disassembled("sm_90", shape.source(), shape.options(), shape.files[-1])
    counts = counted(instructions, lines_of(shape.files[-1], PHASES, "    for (int step = 0; step < steps", "    }"))
    found = slots(shape, counts)
    sys.stdout.write(f"\nclusters of {cluster}: {sum(found.values())} slots: {found}\n")
    loop = sum(counts.values(), Counter())
    assert loop["MEMBAR"] == 0
    assert loop["HMMA"] > 0
    assert loop["LDL"] + loop["STL"] == 0
    assert sum(found.values()) <= budget.slots
    assert compile_for("sm_90", shape.source(), shape.options())["train_epoch"].registers <= budget.registers


def test_the_size_of_a_cluster_follows_from_the_number_of_networks() -> None:
    fastest = {networks: min(BUDGETS, key=lambda size: cluster_epoch(size, networks)) for networks in (1, 8, 16, 32, 1000)}
    assert fastest == {1: 16, 8: 16, 16: 8, 32: 4, 1000: 4}
