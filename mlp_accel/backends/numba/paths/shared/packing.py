"""Parameters in the layout that compiled epochs work on (`memory` has a picture of it), and back; memory of a step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.arrays import Params, Slots
from mlp_accel.backends.numba.compiler import CACHE_LINE, VECTOR_BYTES
from mlp_accel.backends.numba.emit.tiles import TILE_VECTORS
from mlp_accel.backends.numba.paths.shared.memory import (
    BIAS,
    INPUTS,
    MAX_PARTS,
    N_OUT,
    OUT_STRIDE,
    PANEL_VECTORS,
    SAMPLES,
    TRANSPOSED,
    UNITS,
    WEIGHTS,
    Network,
    Scratch,
    aligned_empty,
    aligned_zeros,
)
from mlp_accel.backends.paths import State

MANY_INPUTS = 500
"""A narrow first layer is divided by its inputs if there are so many: with fewer, more would be exchanged than computed."""


def division_of(layer_sizes: Sequence[int], dtype: str, sparse: bool) -> int:
    """What the threads divide among them. It does not depend on their number, on which therefore no sum depends.

    Fewest numbers are exchanged if it is the units. But a narrow first layer is a single row of tiles, or of panels where values
    are skipped: two threads would each read all samples, and compute less with each value that they read.
    """
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    narrow = layer_sizes[1] <= (PANEL_VECTORS if sparse else TILE_VECTORS) * lanes
    if narrow and layer_sizes[0] >= MANY_INPUTS:
        return INPUTS
    return SAMPLES if narrow and not sparse else UNITS


def n_blocks(network: Network) -> int:
    """Number of blocks of the first layer."""
    return int(network.layers[0, OUT_STRIDE] // network.block)


def pack_network(state: State, batch_size: int, division: int, n_segments: int, n_threads: int) -> Network:
    """Parameters and slots in new memory, in the layout that the division among the threads needs."""
    params = state.params
    dtype = params[0][0].dtype
    lanes = VECTOR_BYTES // dtype.itemsize
    sizes = [params[0][0].shape[0], *(weights.shape[1] for weights, _ in params)]
    vectors = -(-sizes[1] // lanes)
    vectors = vectors if vectors <= 2 else _round_up(vectors, MAX_PARTS)
    n_parts = min(vectors, MAX_PARTS) if len(params) > 1 else 1
    most_blocks = n_parts if division == UNITS else 1
    n_blocks = min(most_blocks, 1 << (n_threads.bit_length() - 1))  # a power of two, as is the number of parts
    block = vectors // n_blocks
    strides = [0, vectors * lanes, *(_round_up(size, lanes) for size in sizes[2:])]
    layers = _layer_table(sizes, strides, batch_size)
    ends, above = layers[-1], len(params) > 1
    lengths = [
        sizes[0] * strides[1],
        int(ends[WEIGHTS]) + (sizes[-2] * strides[-1] if above else 0),
        int(ends[BIAS]) + strides[-1],
    ]
    line = CACHE_LINE // dtype.itemsize
    starts = np.cumsum([0, *(_round_up(length, line) for length in lengths)])
    n_slots = len(state.slots[0])
    memory = aligned_zeros((2 + n_slots, int(starts[-1])), dtype)
    first, weights, bias = (memory[0, start : start + length] for start, length in zip(starts[:-1], lengths, strict=True))
    network = Network(
        first=first,
        panel=lanes * math.gcd(block, PANEL_VECTORS),
        block=block * lanes,
        part=vectors // n_parts * lanes,
        shares=n_segments if division == INPUTS else -(-n_threads // n_blocks),
        division=division,
        weights=weights,
        transposed=aligned_zeros(int(ends[TRANSPOSED]) + (sizes[-1] * strides[-2] if above else 0), dtype),
        bias=bias,
        layers=layers,
        stride=memory.strides[0],
        slots=np.array([slot.ctypes.data for slot in memory[2:]], np.int64),
    )
    for values, target in zip([params, *_by_slot(state.slots)], _with_slots(network), strict=True):
        _write(values, target)
    for (weights, _), copy in zip(params, _transposed(network), strict=True):
        if copy is not None:
            copy[:, : weights.shape[0]] = weights.T
    return network


def unpack_network(network: Network) -> State:
    """Its parameters and slots in new memory."""
    params, *slots = (_read(values) for values in _with_slots(network))
    return State(params, [list(of_layer) for of_layer in zip(*slots, strict=True)] if slots else [[] for _ in params])


def allocate_scratch(network: Network, batch_size: int, n_batches: int, keep_sums: bool) -> Scratch:
    """Memory for minibatches of `batch_size` samples, and for the losses and hits of each of `n_batches`.

    With `keep_sums` the outputs have memory of their own, and do not replace the sums that go into the activation.
    """
    dtype, strides = network.first.dtype, network.layers[:, OUT_STRIDE]
    n_values = batch_size * int(strides.sum())
    n_partial = int(strides[0] // network.part * batch_size * strides[1]) if len(strides) > 1 else 0
    n_segment_sums = network.shares * batch_size * int(strides[0]) if network.division == INPUTS else 0
    sums = aligned_empty(n_values, dtype)
    return Scratch(
        segment_sums=aligned_empty(n_segment_sums, dtype),
        partial=aligned_empty(n_partial, dtype),
        sums=sums,
        outputs=aligned_empty(n_values, dtype) if keep_sums else sums,
        deltas=aligned_empty(n_values, dtype),
        zeros=aligned_zeros(strides.max(), dtype),
        ones=np.ones(1, dtype),
        columns=aligned_empty(int(strides[-1]) * batch_size, dtype),
        largest=aligned_empty(batch_size, dtype),
        best=aligned_empty(batch_size, dtype),
        exp_sums=aligned_empty(batch_size, dtype),
        losses=aligned_empty(batch_size, np.float64),
        hits=aligned_empty(batch_size, np.float64),
        batch_losses=np.empty(n_batches),
        batch_hits=np.empty(n_batches),
    )


def _layer_table(sizes: list[int], strides: list[int], batch_size: int) -> npt.NDArray[np.int64]:
    """`Network.layers`: sizes, and where each layer begins in the flat arrays."""
    table, weights, transposed, bias, source, target = [], 0, 0, 0, 0, 0
    for layer in range(len(sizes) - 1):
        n_in, n_out, stride_in, stride = *sizes[layer : layer + 2], *strides[layer : layer + 2]
        table.append([n_in, n_out, stride_in, stride, weights, transposed, bias, source, target])
        weights += n_in * stride if layer else 0
        transposed += n_out * stride_in if layer else 0
        bias += stride
        source, target = target, target + batch_size * stride
    return np.array(table, np.int64)


def _with_slots(network: Network) -> list[Network]:
    """The network, and for each slot a network whose parameters are the values of that slot."""
    arrays = network.first, network.weights, network.bias
    shifts = [0, *(int(slot) - network.first.ctypes.data for slot in network.slots)]
    views = [[_shifted(array, shift) for array in arrays] for shift in shifts]
    return [network._replace(first=first, weights=weights, bias=bias) for first, weights, bias in views]


def _shifted(array: npt.NDArray[Any], shift: int) -> npt.NDArray[Any]:
    """The array of the same length that lies `shift` bytes behind `array`, in the memory that `array` is a view of."""
    memory = array.base
    assert memory is not None
    start = array.ctypes.data + shift - memory.ctypes.data
    return memory.reshape(-1).view(np.uint8)[start : start + array.nbytes].view(array.dtype)


def _by_slot(slots: Slots) -> list[Params]:
    """For each slot its values for all layers."""
    return [list(of_slot) for of_slot in zip(*slots, strict=True)]


def _layers(network: Network) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """For each layer views of its weights and bias with their padding; the first layer's weights are (n_panels, n_in, panel)."""
    for layer, (n_in, _, _, stride, weights, _, bias, _, _) in enumerate(network.layers.tolist()):
        if layer:
            packed = network.weights[weights : weights + n_in * stride].reshape(n_in, stride)
        else:
            packed = network.first.reshape(-1, n_in, network.panel)
        yield packed, network.bias[bias : bias + stride]


def _transposed(network: Network) -> Iterator[npt.NDArray[Any] | None]:
    """For each layer the transposed copy of its weights; None for the first, which has none."""
    for layer, (_, n_out, stride_in, _, _, transposed, _, _, _) in enumerate(network.layers.tolist()):
        end = transposed + n_out * stride_in
        yield network.transposed[transposed:end].reshape(n_out, stride_in) if layer else None


def _write(params: Params, network: Network) -> None:
    for (weights, bias), (packed, packed_bias) in zip(params, _layers(network), strict=True):
        packed_bias[: bias.shape[0]] = bias
        if packed.ndim == 3:
            n_panels, n_in, panel = packed.shape
            padded = np.pad(weights, ((0, 0), (0, n_panels * panel - weights.shape[1])))
            packed[:] = padded.reshape(n_in, n_panels, panel).transpose(1, 0, 2)
        else:
            packed[:, : weights.shape[1]] = weights


def _read(network: Network) -> Params:
    result = []
    for (packed, bias), n_out in zip(_layers(network), network.layers[:, N_OUT].tolist(), strict=True):
        rows = packed.transpose(1, 0, 2).reshape(packed.shape[1], -1) if packed.ndim == 3 else packed
        result.append((rows[:, :n_out].copy(), bias[:n_out].copy()))
    return result


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step
