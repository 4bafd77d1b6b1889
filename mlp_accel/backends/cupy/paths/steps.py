"""The paths ``graph`` and ``steps``: an epoch of a few launches a step, for any number of layers. See ``cuda/steps.cu``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_accel.backends.base import Array
from mlp_accel.backends.cupy.device import Device
from mlp_accel.backends.cupy.paths import steps_shape as steps
from mlp_accel.backends.cupy.paths.base import FusedPath
from mlp_accel.backends.cupy.paths.runs import Data, FusedRun
from mlp_accel.backends.cupy.paths.steps_shape import Launch, StepShape
from mlp_accel.backends.cupy.source import ceil_div
from mlp_accel.backends.paths import State, Task

if TYPE_CHECKING:
    from mlp_accel.backends.cupy.backend import CupyBackend

LARGE_STEP = 1e9
"""Multiplications and additions in a step above which cuBLAS is taken to beat the step kernels: an estimate, not measured."""

MAX_GRAPH_LAUNCHES = 20_000
"""An epoch of more launches is not captured in a graph."""

logger = logging.getLogger("mlp_accel")


class StepPath(FusedPath):
    """Launch by launch.

    Parameters
    ----------
    backend : CupyBackend
    any_size : bool
        Train networks, too, that cuBLAS is taken to be faster with: the path was asked for.
    """

    name = "steps"
    compute_capability = steps.COMPUTE_CAPABILITY

    def __init__(self, backend: CupyBackend, any_size: bool = False) -> None:
        super().__init__(backend)
        self.any_size = any_size

    def _does_not_fit(self, task: Task) -> str | None:
        shape, limit = self._shape(task), self.gpu.shared_limit
        if not shape.fits(limit):
            return f"{task.layer_sizes[-1]} classes need {shape.shared_bytes:,} bytes of shared memory, there are {limit:,}"
        work = 6.0 * task.batch_size * sum(m * n for m, n in pairwise(task.layer_sizes))
        if work > LARGE_STEP and not self.any_size:
            return f"a step of {work / 1e9:.1f} GFLOP is left to cuBLAS"
        return None

    def _shape(self, task: Task) -> StepShape:
        functions = (task.activation, task.rule)
        return StepShape(task.layer_sizes, task.batch_size, *functions, task.data == "uint8", task.gradient, self.gpu.tf32)

    def _start(self, task: Task, states: Sequence[State], data: Data, n: int) -> FusedRun:
        return StepRun(self.gpu, task, states, data, self._shape(task), n)


class GraphPath(StepPath):
    """All launches of an epoch in a CUDA graph, which the GPU works through without the host."""

    name = "graph"

    def _start(self, task: Task, states: Sequence[State], data: Data, n: int) -> FusedRun:
        return GraphRun(self.gpu, task, states, data, self._shape(task), n)


class StepRun(FusedRun):
    """Networks one after another, each in the same memory: what is captured in a graph has its addresses."""

    def __init__(self, gpu: Device, task: Task, states: Sequence[State], data: Data, shape: StepShape, n: int) -> None:
        super().__init__(gpu, task, states)
        self.data, self.shape, self.n, self.batches = data, shape, n, ceil_div(n, shape.batch)
        module = gpu.module(shape.source(), shape.options())
        self.launches = list(shape.launches())
        self._kernels = {launch.kernel: module.get_function(launch.kernel) for launch in (*self.launches, shape.sums(1))}
        for kernel in self._kernels.values():
            kernel.max_dynamic_shared_size_bytes = shape.shared_bytes
        cp = gpu.cp
        self._network = cp.empty(self.networks.shape[1:], np.float32)
        self._outputs, self._deltas = cp.empty(shape.n_outputs, np.float32), cp.empty(shape.n_deltas, np.float32)
        self._order = cp.empty(n, np.int32)
        self._table = cp.empty((self.batches, task.rule.n_scalars), np.float32)
        self._sample_losses, self._sample_hits = cp.empty(n, np.float32), cp.empty(n, np.uint8)
        self._losses, self._hits = (cp.empty(self.batches, np.float64) for _ in range(2))

    def _train(self, orders: Array, scalars: Array, losses: Array, hits: Array) -> None:
        for network in range(len(orders)):
            self._order[...], self._table[...] = orders[network], scalars[network]
            self._network[...] = self.networks[network]
            self._train_one()
            self.networks[network] = self._network
            losses[network], hits[network] = self._losses, self._hits

    def _train_one(self) -> None:
        for batch in range(self.batches):
            for launch in self.launches:
                self._launch(launch, batch)
        self._launch(self.shape.sums(self.batches), 0)

    def _launch(self, launch: Launch, batch: int) -> None:
        data = (self.data.images, self._table, self.data.labels, self._order)
        results = (self._sample_losses, self._sample_hits, self._losses, self._hits)
        arguments = (self._network, self._outputs, self._deltas, *data, *results, np.int32(self.n), np.int32(batch))
        self._kernels[launch.kernel]((launch.blocks,), (steps.THREADS,), arguments, shared_mem=self.shape.shared_bytes)


class GraphRun(StepRun):
    """The launches of an epoch are captured once, for all epochs and all networks."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._graph: Any = None
        count = len(self.launches) * self.batches + 1
        self._fits = count <= MAX_GRAPH_LAUNCHES
        if not self._fits:
            logger.warning("an epoch of %d launches is too long for a CUDA graph: they are made one by one", count)

    def _train_one(self) -> None:
        if not self._fits:
            super()._train_one()
            return
        stream = self.gpu.cp.cuda.get_current_stream()
        if self._graph is None:
            stream.begin_capture()
            try:
                super()._train_one()
            finally:
                graph = stream.end_capture()
            self._graph = graph
        self._graph.launch(stream)
