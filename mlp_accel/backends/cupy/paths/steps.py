"""The paths ``graph`` and ``steps``: an epoch of a few launches a step, for any number of layers.

What the kernels (``steps.cu``) are compiled for, and the list of their launches, is a `StepShape`; neither CuPy nor a GPU is needed
for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mlp_accel.activations import Activation
from mlp_accel.backends.arrays import Array
from mlp_accel.backends.base import Backend
from mlp_accel.backends.cupy.device import Device
from mlp_accel.backends.cupy.elementwise import activation_source, real_source, rule_source
from mlp_accel.backends.cupy.paths.base import FusedPath
from mlp_accel.backends.cupy.paths.runs import DeviceSamples, FusedRun
from mlp_accel.backends.cupy.source import (
    BASICS,
    DEVICE,
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
from mlp_accel.optimizers import Rule

FILES = (BASICS, "common.cuh", "steps.cu")
COMPUTE_CAPABILITY = (7, 5)
"""The oldest GPUs that current CUDA compilers know."""

TENSOR_CORES = (8, 0)
"""Compute capability of the first ones whose tensor cores know TF32. Older GPUs multiply in float32."""

WARPS, COLUMNS = 8, 32
"""Warps of a block, and columns of the tile of a product that it computes; passed to the compiler by `StepShape.options`."""

THREADS = WARP * WARPS

LARGE_STEP = 1e9
"""Multiplications and additions in a step above which the loop, with its products by cuBLAS, is taken to be faster than the step
kernels: an estimate, not measured."""

MAX_GRAPH_LAUNCHES = 20_000
"""An epoch of more launches than this is not captured in a CUDA graph."""

logger = logging.getLogger("mlp_accel")


@dataclass(frozen=True)
class Launch:
    """A kernel and its number of blocks."""

    kernel: str
    blocks: int


@dataclass(frozen=True)
class StepShape:
    """What the kernels are compiled for.

    Attributes
    ----------
    layer_sizes : tuple of int
        Inputs, hidden layers, classes.
    batch : int
        Samples in a minibatch.
    activation : Activation
        Activation of the hidden layers.
    rule : Rule
        What the optimiser does with a parameter.
    bytes : bool
        Samples are uint8; otherwise float32.
    gradient : {"exact", "notebook"}
        See `mlp_accel.network.backward`.
    tf32 : bool
        Plain TF32 products; otherwise split ones of float32 grade.
    tensor_cores : bool
        Products in TF32 on tensor cores; otherwise in float32.
    """

    layer_sizes: tuple[int, ...]
    batch: int
    activation: Activation
    rule: Rule
    bytes: bool = True
    gradient: str = "exact"
    tf32: bool = False
    tensor_cores: bool = True

    @property
    def layers(self) -> int:
        """Number of layers that have weights."""
        return len(self.layer_sizes) - 1

    @property
    def n_parameters(self) -> int:
        """Parameters in one buffer: weights and bias of each layer in turn. Each of their slots follows, laid out alike."""
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.layer_sizes))

    @property
    def n_deltas(self) -> int:
        """Numbers in the buffer for the deltas (the errors) of all layers."""
        return self.batch * sum(self.layer_sizes[1:])

    @property
    def n_outputs(self) -> int:
        """Numbers in the buffer for what the layers put out and, where the slope needs them, the sums before the activation."""
        return (1 + self.activation.of_input) * self.n_deltas

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: the size of ``struct StepMemory``, with which a static_assert compares it."""
        return 4 * TILE * (WARPS * COLUMNS + round_up(self.layer_sizes[-1], COLUMNS))

    def launches(self) -> Iterator[Launch]:
        """The kernels of a step, in order."""
        sizes, row_tiles = self.layer_sizes, ceil_div(self.batch, TILE)
        for layer in range(self.layers - 1):
            yield Launch(f"forward_{layer}", row_tiles * ceil_div(sizes[layer + 1], COLUMNS))
        yield Launch("output_layer", row_tiles)
        for layer in range(self.layers - 1, 0, -1):
            yield Launch(f"backward_{layer}", row_tiles * ceil_div(sizes[layer], COLUMNS))
        yield Launch("update_layers", sum(ceil_div(m + 1, TILE) * ceil_div(n, COLUMNS) for m, n in pairwise(sizes)))

    def sums(self, steps: int) -> Launch:
        """The kernel that ends an epoch."""
        return Launch("sum_losses", ceil_div(steps, WARPS))

    def kernels(self) -> str:
        """The lines of CUDA C++ that define the kernels: one for each layer, where layers differ."""
        lines = [f"FORWARD_KERNEL(forward_{layer}, forward<{layer}>)" for layer in range(self.layers - 1)]
        lines += [f"STEP_KERNEL(backward_{layer}, backward<{layer}>)" for layer in range(1, self.layers)]
        lines += ["STEP_KERNEL(output_layer, output)", "STEP_KERNEL(update_layers, update_all)"]
        return "\n".join([*lines, "STEP_KERNEL(sum_losses, sum_minibatches)", ""])

    def options(self) -> tuple[str, ...]:
        """Options for the compiler."""
        stride = padded_pixels(self.layer_sizes[0]) if self.bytes else self.layer_sizes[0]
        sizes: dict[str, int | str] = {
            "SIZES": ",".join(map(str, self.layer_sizes)),
            "LAYERS": self.layers,
            "CLASSES": self.layer_sizes[-1],
        }
        samples = {"BATCH": self.batch, "BYTES": int(self.bytes), "SAMPLE_STRIDE": stride}
        memory = {"N_PARAMETERS": self.n_parameters, "N_DELTAS": self.n_deltas, "SHARED_BYTES": self.shared_bytes}
        launch = {"WARPS": WARPS, "COLUMNS": COLUMNS}
        return defines({**sizes, **samples, **memory, **launch, **product_constants(self.gradient, self.tf32, self.tensor_cores)})

    def source(self) -> str:
        """CUDA C++ for NVRTC."""
        functions = real_source() + activation_source(self.activation) + rule_source(self.rule)
        return source(DEVICE) + functions + source(*FILES) + self.kernels()

    def fits(self, shared_limit: int) -> bool:
        """Whether a block has room for the scores of its samples."""
        return self.shared_bytes <= shared_limit


class StepPath(FusedPath):
    """The launches of an epoch, made one by one by the host.

    Parameters
    ----------
    backend : Backend
    gpu : Device
        As for `FusedPath`.
    any_size : bool
        Train large networks too, which the loop is taken to train faster: the path was asked for by name.
    """

    name = "steps"
    compute_capability = COMPUTE_CAPABILITY

    def __init__(self, backend: Backend, gpu: Device, any_size: bool = False) -> None:
        super().__init__(backend, gpu)
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
        network = (task.layer_sizes, task.batch_size, task.activation, task.rule, task.data == "uint8", task.gradient)
        return StepShape(*network, tf32=self.gpu.tf32, tensor_cores=self.gpu.capability >= TENSOR_CORES)

    def _start(self, task: Task, states: Sequence[State], samples: DeviceSamples, n: int) -> FusedRun:
        return StepRun(self.gpu, task, states, samples, self._shape(task), n)


class GraphPath(StepPath):
    """All launches of an epoch in a CUDA graph, which the GPU works through without the host."""

    name = "graph"

    def _start(self, task: Task, states: Sequence[State], samples: DeviceSamples, n: int) -> FusedRun:
        return GraphRun(self.gpu, task, states, samples, self._shape(task), n)


class StepRun(FusedRun):
    """Networks one after another, each copied to the same memory, since a captured graph works at fixed addresses."""

    def __init__(self, gpu: Device, task: Task, states: Sequence[State], samples: DeviceSamples, shape: StepShape, n: int) -> None:
        super().__init__(gpu, task, states, samples)
        self.shape, self.n, self.batches = shape, n, ceil_div(n, shape.batch)
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
        self.n, self.batches = orders.shape[1], scalars.shape[1]
        batches = slice(self.batches)
        for network in range(len(orders)):
            self._order[: self.n], self._table[batches] = orders[network], scalars[network]
            self._network[...] = self.networks[network]
            self._train_one()
            self.networks[network] = self._network
            losses[network], hits[network] = self._losses[batches], self._hits[batches]

    def _train_one(self) -> None:
        for batch in range(self.batches):
            for launch in self.launches:
                self._launch(launch, batch)
        self._launch(self.shape.sums(self.batches), 0)

    def _launch(self, launch: Launch, batch: int) -> None:
        inputs = (self.samples.x, self._table, self.samples.labels, self._order)
        results = (self._sample_losses, self._sample_hits, self._losses, self._hits)
        arguments = (self._network, self._outputs, self._deltas, *inputs, *results, np.int32(self.n), np.int32(batch))
        self._kernels[launch.kernel]((launch.blocks,), (THREADS,), arguments, shared_mem=self.shape.shared_bytes)


class GraphRun(StepRun):
    """The launches of an epoch are recorded in a CUDA graph once, and played for every epoch of every network."""

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
