"""The path ``cluster``: an epoch in one launch, for one network with one hidden layer, or for many of them at once.

Of the kernels and sizes of clusters in `cluster_shapes` it takes the one that `mlp_accel.backends.cupy.model` predicts to
be the fastest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from mlp_accel.backends.arrays import Array
from mlp_accel.backends.base import Backend
from mlp_accel.backends.cupy.device import Device
from mlp_accel.backends.cupy.model import BUDGETS, Gpu, cluster_epoch
from mlp_accel.backends.cupy.paths.base import FusedPath
from mlp_accel.backends.cupy.paths.cluster_shapes import POSSIBLE_SIZES, ClusterShape, HalfShape, Tf32Shape
from mlp_accel.backends.cupy.paths.runs import DeviceSamples, FusedRun
from mlp_accel.backends.paths import PathRun, State, Task
from mlp_accel.errors import PathError, SettingError

COMPUTE_CAPABILITY = (9, 0)
"""The first one with thread-block clusters."""

PORTABLE = 8
"""Largest cluster that every such GPU has; 16 must be asked for, and not every part of a GPU has room for it."""

NON_PORTABLE_CLUSTER = 14
"""``CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`` of the CUDA driver API."""

TF32_SIZES = (8, 16)
"""Sizes that `Tf32Shape` is used with, in the order in which they are tried."""

NO_ROOM = ("INVALID_CLUSTER_SIZE", "OUT_OF_RESOURCES", "INVALID_VALUE")
"""Parts of the CUDA errors by which a GPU refuses the size of a cluster. Any other fault is the path's."""

logger = logging.getLogger("mlp_accel")


def widest(shapes: Sequence[ClusterShape], shared_limit: int) -> int:
    """The widest hidden layer with which one of the shapes fits; 0 if none does."""
    low, high = 0, 1 << 16
    while high - low > 1:
        middle = (low + high) // 2
        if any(replace(shape, hidden=middle).fits(shared_limit) for shape in shapes):
            low = middle
        else:
            high = middle
    return low


class ClusterPath(FusedPath):
    """One cluster of thread blocks for each network."""

    name = "cluster"
    compute_capability = COMPUTE_CAPABILITY
    only_size: ClassVar[int | None] = None
    """The one size of a cluster that may be used; by default the fastest that has room for a network."""

    def __init__(self, backend: Backend, gpu: Device) -> None:
        super().__init__(backend, gpu)
        self._failed: dict[ClusterShape, str] = {}

    def _does_not_fit(self, task: Task) -> str | None:
        if len(task.layer_sizes) != 3:
            return f"it holds one hidden layer, the network has {len(task.layer_sizes) - 2}"
        limit, shapes = self.gpu.shared_limit, list(self._shapes(task))
        fitting = [shape for shape in shapes if shape.fits(limit)]
        if fitting:
            return None if self._shape(task) else self._failed[fitting[-1]]
        largest, hidden = max(shapes, key=lambda shape: shape.cluster), widest(shapes, limit)
        advice = f"the widest hidden layer that fits has {hidden} units" if hidden else "no hidden layer fits at this batch size"
        needs = f"{largest.shared_bytes:,} bytes of shared memory in each block of a cluster of {largest.cluster}"
        return f"{task} needs {needs}, there are {limit:,}; {advice}"

    def _shapes(self, task: Task) -> Iterator[ClusterShape]:
        """All that could train `task` if there were room enough, the fastest first."""
        inputs, hidden, classes = task.layer_sizes
        network = (inputs, hidden, classes, task.batch_size, task.activation, task.rule, task.gradient)

        gpu, only, pixels = Gpu(multiprocessors=self.gpu.multiprocessors), self.only_size, task.data == "uint8"
        fastest_first = sorted(BUDGETS, key=lambda size: cluster_epoch(size, task.networks, gpu))
        if pixels:
            for size in (only,) if only else fastest_first:
                yield HalfShape(*network, cluster=size).roomy
        for size in (only,) if only else TF32_SIZES:
            yield Tf32Shape(*network, cluster=size, tf32=self.gpu.tf32, bytes=pixels)

    def _shape(self, task: Task) -> ClusterShape | None:
        limit = self.gpu.shared_limit
        left = (shape for shape in self._shapes(task) if shape not in self._failed and str(shape) not in self.passed_over)
        return next((shape for shape in left if shape.fits(limit)), None)

    def _failed_kernels(self, task: Task) -> list[str]:
        return [str(shape) for shape in self._shapes(task) if shape in self._failed]

    def start(self, task: Task, states: Sequence[State], x: Array, y: Array) -> PathRun:
        """As of every path. A kernel or size of a cluster that this GPU has no room for is passed over."""
        while True:
            shape = self._shape(task)
            try:
                return super().start(task, states, x, y)
            except PathError as error:
                if shape is None or not any(refusal in str(error) for refusal in NO_ROOM):
                    raise
                self._failed[shape] = str(error)
                instead = self._shape(task)
                if instead is None:
                    raise
                logger.warning("the %s is not taken: %s; next the %s", shape, error, instead)

    def _start(self, task: Task, states: Sequence[State], samples: DeviceSamples, n: int) -> FusedRun:
        shape = self._shape(task)
        assert shape is not None, "why_not was not asked"
        return ClusterRun(self.gpu, task, states, samples, shape, n)


def cluster_of(size: str) -> type[ClusterPath]:
    """The path for clusters of this size alone: ``cluster:4``.

    Raises
    ------
    SettingError
        If there are no such clusters.
    """
    if size not in map(str, POSSIBLE_SIZES):
        raise SettingError(f"a cluster has {', '.join(map(str, POSSIBLE_SIZES))} thread blocks; got {size!r}")

    class ClusterOf(ClusterPath):
        name = f"{ClusterPath.name}:{size}"
        only_size = int(size)

    return ClusterOf


class ClusterRun(FusedRun):
    """All networks in one launch."""

    def __init__(
        self, gpu: Device, task: Task, states: Sequence[State], samples: DeviceSamples, shape: ClusterShape, n: int
    ) -> None:
        super().__init__(gpu, task, states, samples)
        self.shape = shape
        self._samples = shape.layout(gpu.cp, samples.x)
        self._kernel = gpu.module(shape.source(), shape.options()).get_function("train_epoch")
        self._kernel.max_dynamic_shared_size_bytes = shape.shared_bytes
        if shape.cluster > PORTABLE:
            gpu.cp.cuda.driver.funcSetAttribute(self._kernel.kernel.ptr, NON_PORTABLE_CLUSTER, 1)
        cp, count = gpu.cp, len(states)
        self._sample_losses, self._sample_hits = cp.empty((count, n), np.float32), cp.empty((count, n), np.uint8)

    def _train(self, orders: Array, scalars: Array, losses: Array, hits: Array) -> None:
        shape = self.shape
        inputs = (self._samples, self.samples.labels, orders, scalars)
        arguments = (*inputs, self.networks, self._sample_losses, self._sample_hits, losses, hits, np.int32(orders.shape[1]))
        self._kernel((len(orders) * shape.cluster,), (shape.threads,), arguments, shared_mem=shape.shared_bytes)
