"""The cluster kernel (``cluster.cu``): one network with one hidden layer in the shared memory of one thread-block cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlp_accel.activations import Activation
from mlp_accel.backends.cupy.elementwise import activation_source, real_source, rule_source
from mlp_accel.backends.cupy.source import DEVICE, TILE, ceil_div, defines, product_constants, round_up, source
from mlp_accel.optimizers import Rule

FILES = ("common.cuh", "cluster.cu")
COMPUTE_CAPABILITY = (9, 0)
"""Thread-block clusters came with it."""

PORTABLE = 8
"""Largest cluster that every such GPU has; 16 must be asked for, and not every part of a GPU has room for it."""

SIZES = (8, 16)
"""Clusters in the order in which they are tried. Smaller ones hold less, and are only used if asked for: the size sets the order of
the sums, so it must not depend on how many networks are trained at once."""

WARPS = 16
"""Of a block: 512 threads may use 128 registers each."""


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
        Of the hidden layer.
    rule : Rule
        Of the optimiser.
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
        """Of a block."""
        return 32 * self.warps

    @property
    def slice(self) -> int:
        """Inputs of a block."""
        return 16 * ceil_div(ceil_div(self.inputs, 16), self.cluster)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: the size of ``struct Memory``, which checks it when it is compiled."""
        pixels, rows, units = round_up(self.inputs, 16), round_up(self.batch, TILE), round_up(self.hidden, 8)
        own_rows = ceil_div(rows, self.cluster)
        class_stride = self.classes | 1
        small = self.hidden * class_stride + self.classes + self.hidden
        images = 2 * rows * 16 * (self.slice // 16 | 1)
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
        """For the compiler."""
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
