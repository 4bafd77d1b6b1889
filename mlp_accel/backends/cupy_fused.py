"""The fused paths of the CuPy backend: whole epochs by own kernels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mlp_accel.backends.base import Array, Params, Step
from mlp_accel.backends.cuda import ceil_div, round_up, steps
from mlp_accel.backends.cuda.cluster import PORTABLE, ClusterShape, cluster_source
from mlp_accel.backends.cuda.steps import Launch, StepShape
from mlp_accel.backends.cupy_device import Device

NON_PORTABLE_CLUSTER = 14
"""``CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`` of the CUDA driver API."""

MAX_GRAPH_LAUNCHES = 20_000
"""An epoch of more launches is not captured in a graph."""

logger = logging.getLogger("mlp_accel")


@dataclass
class Data:
    """Images and labels as the kernels read them, at the same place in every epoch; the originals are kept to recognise them.

    Labels are int32. Rows of pixels begin at every 16 bytes, padded with zeros where they do not by themselves.
    """

    x: Array
    y: Array
    images: Array
    labels: Array

    @classmethod
    def prepare(cls, gpu: Device, x: Array, y: Array) -> Data:
        """Memory for `x` and `y`, filled."""
        cp = gpu.cp
        width = round_up(x.shape[1], 16) if x.dtype == np.uint8 else x.shape[1]
        as_it_is = x.flags.c_contiguous and x.shape[1] == width
        data = cls(x, y, x if as_it_is else cp.zeros((x.shape[0], width), x.dtype), cp.empty(y.shape, np.int32))
        data.refresh()
        return data

    def refresh(self) -> None:
        """Read the originals again: their owner may have changed them."""
        if self.images is not self.x:
            self.images[:, : self.x.shape[1]] = self.x
        self.labels[...] = self.y


class ClusterPath:
    """An epoch in one launch, for one network or many: see ``cuda/cluster.cu``."""

    def __init__(self, gpu: Device, shape: ClusterShape) -> None:
        self.gpu, self.shape = gpu, shape
        self.name = f"cluster of {shape.cluster}"
        self._rates: tuple[list[float], Array] = ([], None)
        self._kernel = gpu.module(cluster_source(), shape.options()).get_function("train_epoch")
        self._kernel.max_dynamic_shared_size_bytes = shape.shared_bytes
        if shape.cluster > PORTABLE:
            gpu.cp.cuda.driver.funcSetAttribute(self._kernel.kernel.ptr, NON_PORTABLE_CLUSTER, 1)

    def train(self, step: Step, params: Params, data: Data, order: Array) -> tuple[Params, Array, Array]:
        """As `Backend.train_epoch`."""
        stacked = [(weights[None], bias[None]) for weights, bias in params]
        stacked, losses, hits = self.train_each([step], stacked, data, order[None])
        return [(weights[0], bias[0]) for weights, bias in stacked], losses[0], hits[0]

    def train_each(self, steps: Sequence[Step], params: Params, data: Data, orders: Array) -> tuple[Params, Array, Array]:
        """As `Backend.train_epoch_of_each`: one cluster for each network."""
        cp, shape = self.gpu.cp, self.shape
        networks, n = orders.shape
        batches = ceil_div(n, shape.batch)
        trained = [(self._copy(weights), self._copy(bias)) for weights, bias in params]
        rates = [step.learning_rate for step in steps]
        if self._rates[0] != rates:  # the same in every epoch of a training run
            self._rates = rates, cp.asarray(np.array(rates, np.float32))
        losses, hits = cp.empty((networks, n), np.float32), cp.empty((networks, n), np.uint8)
        sums = [cp.empty((networks, batches), np.float64) for _ in range(2)]
        arrays = (data.images, data.labels, self.gpu.contiguous(orders.astype(np.int32, copy=False)), self._rates[1])
        arguments = (*arrays, *(a for pair in trained for a in pair), losses, hits, *sums, np.int32(n))
        self._kernel((networks * shape.cluster,), (shape.threads,), arguments, shared_mem=shape.shared_bytes)
        return trained, sums[0], sums[1]

    def _copy(self, array: Array) -> Array:
        return self.gpu.cp.array(array, order="C", copy=True)


class StepPath:
    """An epoch of a few launches a step: see ``cuda/steps.cu``.

    Parameters
    ----------
    gpu : Device
    shape : StepShape
        What the kernels are compiled for.
    graph : bool
        Put all launches of an epoch into a CUDA graph, which the GPU works through without the host.
    """

    def __init__(self, gpu: Device, shape: StepShape, graph: bool) -> None:
        self.gpu, self.shape, self.graph = gpu, shape, graph
        self.name = "graph of fused steps" if graph else "fused steps"
        module = gpu.module(shape.source(), shape.options())
        self._launches = list(shape.launches())
        self._kernels = {launch.kernel: module.get_function(launch.kernel) for launch in (*self._launches, shape.sums(1))}
        for kernel in self._kernels.values():
            kernel.max_dynamic_shared_size_bytes = shape.shared_bytes
        cp = gpu.cp
        self._parameters = cp.empty(shape.n_parameters, np.float32)
        self._outputs, self._deltas = cp.empty(shape.n_outputs, np.float32), cp.empty(shape.n_outputs, np.float32)
        self._order: Array = None
        self._losses: Array = None
        self._hits: Array = None
        self._sums: Array = None
        self._captured: tuple[Any, ...] = ()
        self._graph: Any = None
        self._told = False

    def train(self, step: Step, params: Params, data: Data, order: Array) -> tuple[Params, Array, Array]:
        """As `Backend.train_epoch`."""
        self._reserve(len(order))
        for ours, theirs in zip(self._layers(self._parameters), params, strict=True):
            ours[0][...], ours[1][...] = theirs
        self._order[...] = order
        if self.graph and self._fits_graph(len(order)):
            self._run_graph(step, data)
        else:
            self._run(step, data)
        return self._layers(self._parameters.copy()), self._sums[0].copy(), self._sums[1].copy()

    def _fits_graph(self, n: int) -> bool:
        launches = len(self._launches) * ceil_div(n, self.shape.batch) + 1
        if launches > MAX_GRAPH_LAUNCHES and not self._told:
            self._told = True
            logger.warning("an epoch of %d launches is too long for a CUDA graph: they are made one by one", launches)
        return launches <= MAX_GRAPH_LAUNCHES

    def _reserve(self, n: int) -> None:
        """Memory for an epoch of `n` samples, at the same place for every epoch: a graph has its addresses."""
        cp = self.gpu.cp
        if self._order is None or len(self._order) != n:
            self._order = cp.empty(n, np.int32)
            self._losses, self._hits = cp.empty(n, np.float32), cp.empty(n, np.uint8)
            self._sums = cp.empty((2, ceil_div(n, self.shape.batch)), np.float64)
            self._graph = None

    def _layers(self, parameters: Array) -> Params:
        """Views of a buffer of parameters."""
        layers, start = [], 0
        for n_in, n_out in pairwise(self.shape.layer_sizes):
            middle, end = start + n_in * n_out, start + (n_in + 1) * n_out
            layers.append((parameters[start:middle].reshape(n_in, n_out), parameters[middle:end]))
            start = end
        return layers

    def _run(self, step: Step, data: Data) -> None:
        n = len(self._order)
        batches = ceil_div(n, self.shape.batch)
        for batch in range(batches):
            for launch in self._launches:
                self._launch(launch, step, data, batch)
        self._launch(self.shape.sums(batches), step, data, 0)

    def _run_graph(self, step: Step, data: Data) -> None:
        stream = self.gpu.cp.cuda.get_current_stream()
        holds = (step.learning_rate, data)
        if self._graph is None or self._captured[0] != holds[0] or self._captured[1] is not data:
            stream.begin_capture()
            try:
                self._run(step, data)
            finally:
                graph = stream.end_capture()
            self._graph, self._captured = graph, holds
        self._graph.launch(stream)

    def _launch(self, launch: Launch, step: Step, data: Data, batch: int) -> None:
        arrays = (self._parameters, self._outputs, self._deltas, data.images, data.labels, self._order, self._losses, self._hits)
        numbers = (np.float32(step.learning_rate), np.int32(len(self._order)), np.int32(batch))
        arguments = (*arrays, self._sums[0], self._sums[1], *numbers)
        self._kernels[launch.kernel]((launch.blocks,), (steps.THREADS,), arguments, shared_mem=self.shape.shared_bytes)


FusedPath = ClusterPath | StepPath
