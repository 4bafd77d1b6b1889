"""The path ``cluster``: an epoch in one launch, for one network with one hidden layer, or for many of them at once.

What its kernel (``cluster.cu``) is compiled for is a `ClusterShape`, which also tells whether a network fits: for that neither CuPy
nor a GPU is needed. A thread-block cluster is a group of up to 16 thread blocks that run at the same time and can write to each
other's shared memory; together they hold one network there for the whole epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mlp_accel.activations import Activation
from mlp_accel.backends.arrays import Array
from mlp_accel.backends.cupy.device import Device
from mlp_accel.backends.cupy.elementwise import activation_source, real_source, rule_source
from mlp_accel.backends.cupy.paths.base import FusedPath
from mlp_accel.backends.cupy.paths.runs import DeviceSamples, FusedRun
from mlp_accel.backends.cupy.source import (
    BASICS,
    DEVICE,
    PIECE,
    TILE,
    WARP,
    ceil_div,
    defines,
    padded_pixels,
    product_constants,
    round_up,
    source,
)
from mlp_accel.backends.paths import State, Task
from mlp_accel.errors import SettingError
from mlp_accel.optimizers import Rule

FILES = (BASICS, "common.cuh", "cluster.cu")
COMPUTE_CAPABILITY = (9, 0)
"""The first one with thread-block clusters."""

PORTABLE = 8
"""Largest cluster that every such GPU has; 16 must be asked for, and not every part of a GPU has room for it."""

SIZES = (8, 16)
"""Sizes of clusters in the order in which they are tried. Smaller ones hold less, and are only used if they are asked for by name:
the size sets the order of the sums, so it must not depend on how many networks are trained at once."""

WARPS = 16
"""Warps of a block. They are 512 threads, which may use 128 registers each."""

POSSIBLE_SIZES = (1, 2, 4, 8, 16)
"""Sizes of a cluster that may be asked for by name: ``cluster:4``."""

NON_PORTABLE_CLUSTER = 14
"""``CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`` of the CUDA driver API."""


@dataclass(frozen=True)
class ClusterShape:
    """What the kernel is compiled for.

    Attributes
    ----------
    inputs, hidden, classes : int
        Sizes of the layers.
    batch : int
        Samples in a minibatch.
    activation : Activation
        Activation of the hidden layer.
    rule : Rule
        What the optimiser does with a parameter.
    gradient : {"exact", "notebook"}
        See `mlp_accel.network.backward`.
    tf32 : bool
        Plain TF32 products, 10 bits after the point; otherwise split ones of float32 grade.
    cluster, warps : int
        Thread blocks in a cluster, and warps in a block.
    """

    inputs: int
    hidden: int
    classes: int
    batch: int
    activation: Activation
    rule: Rule
    gradient: str = "exact"
    tf32: bool = False
    cluster: int = PORTABLE
    warps: int = WARPS

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * self.warps

    @property
    def slice(self) -> int:
        """Inputs whose weights a block holds."""
        return PIECE * ceil_div(padded_pixels(self.inputs) // PIECE, self.cluster)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: the size of ``struct ClusterMemory``, with which a static_assert compares it."""
        pixels, rows, units = padded_pixels(self.inputs), round_up(self.batch, TILE), round_up(self.hidden, 8)
        own_rows = ceil_div(rows, self.cluster)
        class_stride = self.classes | 1
        small = self.hidden * class_stride + self.classes + self.hidden
        images = 2 * rows * PIECE * (self.slice // PIECE | 1)
        words = (
            ceil_div(pixels, self.slice) * own_rows * units  # partial_sums
            + (1 + self.rule.n_slots) * self.slice * (units + 2)  # weights
            + rows * (units if units // 8 % 2 else units + 8)  # delta
            + (2 + self.activation.of_input) * own_rows * units  # hidden, own_delta
            + own_rows * class_stride  # output_delta
            + small
            + (self.cluster + self.rule.n_slots) * ceil_div(small, self.cluster)  # own_small
            + 2 * own_rows  # labels
        )
        return round_up(images + 4 * words, 16)

    def options(self) -> tuple[str, ...]:
        """Options for the compiler."""
        sizes = {"INPUTS": self.inputs, "HIDDEN": self.hidden, "CLASSES": self.classes, "BATCH": self.batch}
        launch = {"CLUSTER": self.cluster, "WARPS": self.warps, "SHARED_BYTES": self.shared_bytes}
        return defines({**sizes, **launch, **product_constants(self.gradient, self.tf32)})

    def source(self) -> str:
        """CUDA C++ for NVRTC; the kernel is ``train_epoch``."""
        functions = real_source() + activation_source(self.activation) + rule_source(self.rule)
        return source(DEVICE) + functions + source(*FILES)

    def fits(self, shared_limit: int) -> bool:
        """Whether a block of the GPU, with `shared_limit` bytes of shared memory, has room for it."""
        return self.shared_bytes <= shared_limit


def fit(shape: ClusterShape, shared_limit: int, sizes: Sequence[int] = SIZES) -> ClusterShape | None:
    """`shape` with the first of the cluster sizes that has room for it."""
    candidates = (replace(shape, cluster=size) for size in sizes)
    return next((candidate for candidate in candidates if candidate.fits(shared_limit)), None)


def largest_hidden(shape: ClusterShape, shared_limit: int, sizes: Sequence[int] = SIZES) -> int:
    """The widest hidden layer that fits some cluster, all else as in `shape`; 0 if none does."""
    low, high = 0, 1 << 16
    while high - low > 1:
        middle = (low + high) // 2
        if fit(replace(shape, hidden=middle), shared_limit, sizes) is None:
            high = middle
        else:
            low = middle
    return low


class ClusterPath(FusedPath):
    """One cluster of thread blocks for each network, of the first size that has room for it."""

    name = "cluster"
    compute_capability = COMPUTE_CAPABILITY
    sizes: ClassVar[tuple[int, ...]] = SIZES

    def _does_not_fit(self, task: Task) -> str | None:
        if len(task.layer_sizes) != 3:
            return f"it holds one hidden layer, the network has {len(task.layer_sizes) - 2}"
        if task.data != "uint8":
            return f"it streams uint8 images, these samples are {task.data}"
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
        sizes = (int(size),)

    return ClusterOf


class ClusterRun(FusedRun):
    """All networks in one launch."""

    def __init__(
        self, gpu: Device, task: Task, states: Sequence[State], samples: DeviceSamples, shape: ClusterShape, n: int
    ) -> None:
        super().__init__(gpu, task, states, samples)
        self.shape, self.n = shape, n
        self._kernel = gpu.module(shape.source(), shape.options()).get_function("train_epoch")
        self._kernel.max_dynamic_shared_size_bytes = shape.shared_bytes
        if shape.cluster > PORTABLE:
            gpu.cp.cuda.driver.funcSetAttribute(self._kernel.kernel.ptr, NON_PORTABLE_CLUSTER, 1)
        cp, count = gpu.cp, len(states)
        self._sample_losses, self._sample_hits = cp.empty((count, n), np.float32), cp.empty((count, n), np.uint8)

    def _train(self, orders: Array, scalars: Array, losses: Array, hits: Array) -> None:
        shape = self.shape
        inputs = (self.samples.x, self.samples.labels, orders, scalars)
        arguments = (*inputs, self.networks, self._sample_losses, self._sample_hits, losses, hits, np.int32(self.n))
        self._kernel((len(orders) * shape.cluster,), (shape.threads,), arguments, shared_mem=shape.shared_bytes)
