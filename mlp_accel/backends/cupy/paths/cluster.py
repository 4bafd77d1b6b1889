"""The path ``cluster``: an epoch in one launch, for one network or many. See ``cuda/cluster.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from mlp_accel.backends.base import Array
from mlp_accel.backends.cupy.device import Device
from mlp_accel.backends.cupy.paths import cluster_shape as cluster
from mlp_accel.backends.cupy.paths.base import FusedPath
from mlp_accel.backends.cupy.paths.cluster_shape import ClusterShape, fit, largest_hidden
from mlp_accel.backends.cupy.paths.runs import Data, FusedRun
from mlp_accel.backends.paths import State, Task
from mlp_accel.errors import SettingError

POSSIBLE_SIZES = (1, 2, 4, 8, 16)
"""Of a cluster that is asked for."""

NON_PORTABLE_CLUSTER = 14
"""``CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`` of the CUDA driver API."""


class ClusterPath(FusedPath):
    """One cluster of thread blocks for each network, of the first size that has room for it."""

    name = "cluster"
    compute_capability = cluster.COMPUTE_CAPABILITY
    sizes: ClassVar[tuple[int, ...]] = cluster.SIZES

    def _does_not_fit(self, task: Task) -> str | None:
        if len(task.layer_sizes) != 3:
            return f"it holds one hidden layer, the network has {len(task.layer_sizes) - 2}"
        if task.data != "uint8":
            return f"it streams uint8 images, these are {task.data}"
        limit = self.gpu.shared_limit
        if self._shape(task) is not None:
            return None
        largest = replace(self._wanted(task), cluster=max(self.sizes))
        widest = largest_hidden(largest, limit, self.sizes)
        advice = f"the widest hidden layer that fits has {widest} units" if widest else "no hidden layer fits at this batch size"
        needs = f"{largest.shared_bytes:,} bytes of shared memory in each block of a cluster of {largest.cluster}"
        return f"{task} needs {needs}, there are {limit:,}; {advice}"

    def _wanted(self, task: Task) -> ClusterShape:
        inputs, hidden, classes = task.layer_sizes
        sizes = (inputs, hidden, classes, task.batch_size)
        return ClusterShape(*sizes, task.activation, task.rule, task.gradient, self.gpu.tf32)

    def _shape(self, task: Task) -> ClusterShape | None:
        return fit(self._wanted(task), self.gpu.shared_limit, self.sizes)

    def _start(self, task: Task, states: Sequence[State], data: Data, n: int) -> FusedRun:
        shape = self._shape(task)
        assert shape is not None, "why_not was not asked"
        return ClusterRun(self.gpu, task, states, data, shape, n)


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
        sizes = (int(size),)

    return ClusterOf


class ClusterRun(FusedRun):
    """All networks in one launch."""

    def __init__(self, gpu: Device, task: Task, states: Sequence[State], data: Data, shape: ClusterShape, n: int) -> None:
        super().__init__(gpu, task, states)
        self.data, self.shape, self.n = data, shape, n
        self._kernel = gpu.module(shape.source(), shape.options()).get_function("train_epoch")
        self._kernel.max_dynamic_shared_size_bytes = shape.shared_bytes
        if shape.cluster > cluster.PORTABLE:
            gpu.cp.cuda.driver.funcSetAttribute(self._kernel.kernel.ptr, NON_PORTABLE_CLUSTER, 1)
        cp, count = gpu.cp, len(states)
        self._sample_losses, self._sample_hits = cp.empty((count, n), np.float32), cp.empty((count, n), np.uint8)

    def _train(self, orders: Array, scalars: Array, losses: Array, hits: Array) -> None:
        shape = self.shape
        data = (self.data.images, self.data.labels, orders, scalars)
        arguments = (*data, self.networks, self._sample_losses, self._sample_hits, losses, hits, np.int32(self.n))
        self._kernel((len(orders) * shape.cluster,), (shape.threads,), arguments, shared_mem=shape.shared_bytes)
