"""The cluster kernel and the step kernels on the CPU, launched as the host plans it, in memory that starts as NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.cupy.paths.cluster_shapes import ClusterShape, Tf32Shape
from mlp_accel.backends.cupy.paths.runs import packed, unpacked
from mlp_accel.backends.cupy.paths.steps import THREADS, Launch, StepShape
from mlp_accel.backends.cupy.source import ceil_div, round_up
from mlp_accel.backends.paths import Task
from tests.backends.cupy.emulator import DEFAULT, Emulation, Program
from tests.backends.cupy.problem import Problem, Result


def cluster_task(shape: ClusterShape, networks: int = 1) -> Task:
    sizes = (shape.inputs, shape.hidden, shape.classes)
    data = "float32" if isinstance(shape, Tf32Shape) and not shape.bytes else "uint8"
    return Task(sizes, shape.batch, "float32", data, 0.3, shape.activation, shape.gradient, shape.rule, networks)


def step_task(shape: StepShape) -> Task:
    data = "uint8" if shape.bytes else "float32"
    return Task(shape.layer_sizes, shape.batch, "float32", data, 0.3, shape.activation, shape.gradient, shape.rule)


def program(shape: ClusterShape | StepShape) -> Program:
    return Program(shape.source(), shape.options())


def emulate_cluster(problem: Problem, shape: ClusterShape, emulation: Emulation = DEFAULT) -> Result:
    """An epoch; an outcome other than "done" is an AssertionError."""
    networks, n = problem.orders.shape
    images = aligned(n, shape.stride, shape.sample_type)
    images[:, : shape.inputs] = problem.x
    states = np.stack([packed(state, shape.rule.n_slots) for state in problem.states])
    samples, hits = np.full((networks, n), np.nan, np.float32), np.zeros((networks, n), np.uint8)
    sums = [np.full((networks, ceil_div(n, shape.batch)), np.nan) for _ in range(2)]
    data: list[Any] = [images, problem.y, problem.orders, problem.scalars.astype(np.float32), states]
    arguments = [*data, samples, hits, *sums, np.int32(n)]
    program(shape).launch("train_epoch", networks * shape.cluster, shape.threads, shape.shared_bytes, arguments, emulation)
    return Result([unpacked(state, problem.task.layer_sizes) for state in states], *sums)


def emulate_steps(problem: Problem, shape: StepShape, emulation: Emulation = DEFAULT) -> Result:
    """An epoch of one network, launch by launch."""
    n, images = len(problem.x), problem.x
    if shape.bytes:
        images = np.full((n, round_up(shape.layer_sizes[0], 16)), 255, np.uint8)
        images[:, : shape.layer_sizes[0]] = problem.x
    state = packed(problem.states[0], shape.rule.n_slots)
    assert state.shape[1] == shape.n_parameters
    outputs, deltas = np.full(shape.n_outputs, np.nan, np.float32), np.full(shape.n_deltas, np.nan, np.float32)
    steps = ceil_div(n, shape.batch)
    samples, hits, sums = np.full(n, np.nan, np.float32), np.zeros(n, np.uint8), np.full((2, steps), np.nan)
    scalars = problem.scalars[0].astype(np.float32)
    arrays = (state, outputs, deltas, images, scalars, problem.y, problem.orders[0], samples, hits, sums[0], sums[1])
    kernels = program(shape)

    def launch(what: Launch, step: int) -> None:
        arguments = (*arrays, np.int32(n), np.int32(step))
        kernels.launch(what.kernel, what.blocks, THREADS, shape.shared_bytes, arguments, emulation)

    for step in range(steps):
        for what in shape.launches():
            launch(what, step)
    launch(shape.sums(steps), 0)
    return Result([unpacked(state, shape.layer_sizes)], sums[0][None], sums[1][None])


def aligned(rows: int, width: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros that begin at a multiple of 16 bytes, as memory of a GPU does."""
    count, size = rows * width, np.dtype(dtype).itemsize
    memory = np.zeros(count * size + 16, np.uint8)
    start = -memory.ctypes.data % 16
    return memory[start : start + count * size].view(dtype).reshape(rows, width)
