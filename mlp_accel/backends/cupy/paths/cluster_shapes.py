"""What the two kernels of the path ``cluster`` are compiled for, and whether a network fits them; neither CuPy nor a GPU is needed.

A thread-block cluster is a group of up to 16 thread blocks that run at the same time and can write to each other's shared memory;
together they hold one network there for the whole epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from mlp_accel.activations import Activation
from mlp_accel.backends.cupy.elementwise import activation_source, real_source, rule_source
from mlp_accel.backends.cupy.source import BASICS, DEVICE, PIECE, TILE, WARP, ceil_div, defines, product_constants, round_up, source
from mlp_accel.optimizers import Rule

POSSIBLE_SIZES = (1, 2, 4, 8, 16)
"""Sizes of a cluster that may be asked for by name: ``cluster:4``."""

FILES = (BASICS, "common.cuh", "cluster.cuh")
"""Sources that both kernels begin with."""


@dataclass(frozen=True)
class ClusterShape(ABC):
    """What a kernel is compiled for.

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
    cluster: int = 8
    warps: int = 16

    files: ClassVar[tuple[str, ...]]
    """Sources of the kernel, the one with its barriers last."""

    @property
    @abstractmethod
    def sample_type(self) -> Any:
        """Dtype of a value of a sample."""

    @property
    @abstractmethod
    def units(self) -> int:
        """Hidden units, with padding."""

    @property
    @abstractmethod
    def class_stride(self) -> int:
        """From the output weights of one unit to those of the next."""

    @property
    @abstractmethod
    def shared_bytes(self) -> int:
        """Shared memory of a block: the size of ``struct ClusterMemory``, with which a static_assert compares it."""

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * self.warps

    @property
    def stride(self) -> int:
        """Values from one sample to the next: whole tiles of a product."""
        return round_up(self.inputs, TILE)

    @property
    def slice(self) -> int:
        """Inputs whose weights a block holds."""
        return TILE * ceil_div(self.stride // TILE, self.cluster)

    @property
    def rows(self) -> int:
        """Samples of a minibatch, with padding."""
        return round_up(self.batch, TILE)

    @property
    def own_rows(self) -> int:
        """Samples of a minibatch that a block is responsible for."""
        return ceil_div(self.rows, self.cluster)

    @property
    def small(self) -> int:
        """All parameters but the first layer's weights, with padding."""
        return round_up(self.units * self.class_stride + self.class_stride + self.units, 4)

    @property
    def own_small(self) -> int:
        """Those of them that a block is responsible for."""
        return 4 * ceil_div(self.small // 4, self.cluster)

    def __str__(self) -> str:
        return f"kernel {self.files[-1]} in clusters of {self.cluster}"

    def layout(self, xp: Any, x: Any) -> Any:
        """Samples ``(n, inputs or more)`` as the kernel reads them, ``(n, stride)`` of `sample_type`: `x` itself if it is that."""
        if x.dtype == self.sample_type and x.shape[1] == self.stride:
            return x
        samples = xp.zeros((len(x), self.stride), self.sample_type)
        samples[:, : self.inputs] = x[:, : self.inputs]
        return samples

    def constants(self) -> dict[str, int | str]:
        """What the sources want to know."""
        sizes = {"INPUTS": self.inputs, "HIDDEN": self.hidden, "CLASSES": self.classes, "BATCH": self.batch}
        launch = {"CLUSTER": self.cluster, "WARPS": self.warps, "SHARED_BYTES": self.shared_bytes}
        layout = {"SAMPLE_BYTES": self.sample_type.itemsize, "UNITS": self.units, "CLASS_STRIDE": self.class_stride}
        return {**sizes, **launch, **layout}

    @abstractmethod
    def options(self) -> tuple[str, ...]:
        """Options for the compiler."""

    def source(self) -> str:
        """CUDA C++ for NVRTC; the kernel is ``train_epoch``."""
        functions = real_source() + activation_source(self.activation) + rule_source(self.rule)
        return source(DEVICE) + functions + source(*FILES, *self.files)

    def why_not(self) -> str | None:
        """Why the kernel has no form for this shape, whatever the GPU; None if it has."""
        return None

    def fits(self, shared_limit: int) -> bool:
        """Whether there is such a kernel, and a block of the GPU, with `shared_limit` bytes of shared memory, has room for it."""
        return self.why_not() is None and self.shared_bytes <= shared_limit


@dataclass(frozen=True)
class HalfShape(ClusterShape):
    """``cluster_half.cu``: products of 16-bit operands, uint8 samples, up to 16 classes.

    The size of the cluster and the number of warps change no bit of the results.
    """

    files: ClassVar[tuple[str, ...]] = ("half_products.cuh", "half_samples.cuh", "cluster_half.cu")
    max_classes: ClassVar[int] = 16

    @property
    def sample_type(self) -> Any:
        return np.dtype(np.float16)

    @property
    def units(self) -> int:
        return round_up(self.hidden, 32)

    @property
    def class_stride(self) -> int:
        return round_up(self.classes, 4)

    @property
    def shared_bytes(self) -> int:
        split = 2 * self.units + 8
        halves = 2 * self.rows * 8 * (self.slice // 8 | 1) + (self.slice + self.rows) * split  # images; weights, delta
        words = (
            8  # arrived
            + self.cluster * self.own_rows * self.units  # partial_sums
            + self.own_rows * (2 * self.units + 4 + 2 * self.class_stride)  # rows
            + (2 * self.cluster + self.rule.n_slots) * self.own_small  # small, own_small
        )
        return round_up(2 * halves + 4 * words, 16)

    @property
    def roomy(self) -> HalfShape:
        """The shape with as many warps as registers allow: with 16 a thread has 128, too few for the weights of a large slice."""
        return replace(self, warps=16 if self.slice * self.units <= 4096 and self.own_rows <= 16 else 8)

    def why_not(self) -> str | None:
        if self.classes > self.max_classes:
            return f"{self.classes} classes are more than {self.max_classes}"
        return None

    def options(self) -> tuple[str, ...]:
        products = product_constants(self.gradient, tf32=False)
        # Multiplications and additions are fused where the source says so: the same in every size of a cluster.
        return (*defines({**self.constants(), **products}), "-fmad=false")


@dataclass(frozen=True)
class Tf32Shape(ClusterShape):
    """``cluster_tf32.cu``: for what the other kernel does not take, which are wide networks, many classes and floating samples.

    The size of the cluster sets the order of the sums, so it must not depend on how many networks are trained at once.

    Attributes
    ----------
    tf32 : bool
        Plain TF32 products, 10 bits after the point; otherwise split ones of float32 grade.
    bytes : bool
        Samples are uint8; otherwise float32.
    """

    tf32: bool = False
    bytes: bool = True

    files: ClassVar[tuple[str, ...]] = ("cluster_tf32.cu",)

    @property
    def sample_type(self) -> Any:
        return np.dtype(np.uint8 if self.bytes else np.float32)

    @property
    def units(self) -> int:
        return round_up(self.hidden, 8)

    @property
    def class_stride(self) -> int:
        return self.classes | 1  # odd: a column is spread over all memory banks

    @property
    def shared_bytes(self) -> int:
        rows, units = self.rows, self.units
        delta_stride = units if units // 8 % 2 else units + 8
        images = 2 * rows * (PIECE * (self.slice // PIECE | 1) if self.bytes else 4 * (self.slice + 4))
        words = (
            ceil_div(self.stride, self.slice) * self.own_rows * units  # partial_sums
            + (1 + self.rule.n_slots) * self.slice * (units + 2 if self.bytes else delta_stride)  # weights
            + rows * delta_stride  # delta
            + (2 + self.activation.of_input) * self.own_rows * units  # hidden, own_delta
            + self.own_rows * self.class_stride  # output_delta
            + self.small
            + (self.cluster + self.rule.n_slots) * self.own_small
            + 2 * self.own_rows  # labels
        )
        return round_up(images + 4 * words, 16)

    def options(self) -> tuple[str, ...]:
        return defines({**self.constants(), **product_constants(self.gradient, self.tf32)})
