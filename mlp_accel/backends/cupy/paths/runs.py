"""What the paths of the CuPy backend share: samples as the kernels read them, and networks that stay on the device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.arrays import Array, Params
from mlp_accel.backends.cupy.device import Device
from mlp_accel.backends.cupy.source import PIECE, padded_pixels
from mlp_accel.backends.paths import PathRun, State, Task, check_orders


@dataclass(frozen=True, eq=False)
class DeviceSamples:
    """All samples and labels as the kernels read them.

    Attributes
    ----------
    x : array (n, stride)
        uint8 samples are padded with zeros so that each begins at a multiple of `PIECE` bytes; floating ones are not padded.
    labels : array (n,)
        int32.
    """

    x: Array
    labels: Array

    @classmethod
    def prepare(cls, gpu: Device, x: Array, y: Array) -> DeviceSamples:
        """The samples in this layout: `x` itself if it has it, else a copy."""
        cp = gpu.cp
        n, width = x.shape
        stride = padded_pixels(width) if x.dtype == np.uint8 else width
        padded = x
        if not x.flags.c_contiguous or stride != width or x.data.ptr % PIECE:
            padded = cp.zeros((n, stride), x.dtype)
            padded[:, :width] = x
        return cls(padded, y.astype(np.int32))


class FusedRun(PathRun):
    """A training run by kernels of our own, a whole epoch at a time.

    Parameters
    ----------
    gpu : Device
    task : Task
    states : sequence of State
        Where each network starts, on the host.
    samples : DeviceSamples

    Attributes
    ----------
    networks : array (networks, 1 + n_slots, n_parameters)
        For each network its parameters (weights and bias of each layer in turn), then each of their slots, laid out alike.
    """

    def __init__(self, gpu: Device, task: Task, states: Sequence[State], samples: DeviceSamples) -> None:
        self.gpu, self.task, self.samples = gpu, task, samples
        self.networks = gpu.cp.asarray(np.stack([packed(state, task.rule.n_slots) for state in states]))
        self._scalars: tuple[npt.NDArray[np.float64], Array] | None = None

    def epoch(self, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]) -> tuple[Array, Array]:
        cp = self.gpu.cp
        check_orders(orders, len(self.samples.labels))
        with self.gpu.training_stream():
            if self._scalars is None or not np.array_equal(
                self._scalars[0], scalars
            ):  # a constant learning rate makes the same ones every epoch
                self._scalars = scalars, cp.asarray(scalars.astype(np.float32))
            losses, hits = (cp.empty(scalars.shape[:2], np.float64) for _ in range(2))
            on_device = cp.asarray(orders.astype(np.int32))
            with self.gpu.around_launches:
                self._train(on_device, self._scalars[1], losses, hits)
            return losses, hits

    @abstractmethod
    def _train(self, orders: Array, scalars: Array, losses: Array, hits: Array) -> None:
        """Train every network for an epoch; all arrays are on the device, the first axis of each is that of the networks."""

    def states(self) -> list[State]:
        with self.gpu.training_stream():
            host = self.gpu.cp.asnumpy(self.networks)
        return [unpacked(network, self.task.layer_sizes) for network in host]

    def keep(self, networks: Sequence[int]) -> None:
        with self.gpu.training_stream():
            self.networks = self.gpu.cp.stack([self.networks[network] for network in networks])


def packed(state: State, n_slots: int) -> npt.NDArray[np.float32]:
    """A network as one array ``(1 + n_slots, n_parameters)``: see `FusedRun`."""
    planes = [state.params, *([layer[slot] for layer in state.slots] for slot in range(n_slots))]
    return np.stack([np.concatenate([np.asarray(a, np.float32).ravel() for pair in plane for a in pair]) for plane in planes])


def unpacked(network: npt.NDArray[Any], layer_sizes: Sequence[int]) -> State:
    """The network that `packed` made the array of; its arrays are views."""
    params, *slots = (_layers(plane, layer_sizes) for plane in network)
    return State(params, [[plane[layer] for plane in slots] for layer in range(len(params))])


def _layers(plane: npt.NDArray[Any], layer_sizes: Sequence[int]) -> Params:
    layers, start = [], 0
    for n_in, n_out in pairwise(layer_sizes):
        middle, end = start + n_in * n_out, start + (n_in + 1) * n_out
        layers.append((plane[start:middle].reshape(n_in, n_out), plane[middle:end]))
        start = end
    return layers
