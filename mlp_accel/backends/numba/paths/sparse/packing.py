"""From parameters and images to the flat memory that `pixel_epoch` works on, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.base import Params, Slots
from mlp_accel.backends.numba.compiler import VECTOR_BYTES
from mlp_accel.backends.numba.emit.simd import CHUNK
from mlp_accel.backends.numba.paths.sparse import pixel_lists
from mlp_accel.backends.numba.paths.sparse.memory import (
    BIAS,
    CACHE_LINE,
    MAX_PARTS,
    N_OUT,
    OUT_STRIDE,
    PANEL_VECTORS,
    TRANSPOSED,
    UNROLL,
    WEIGHTS,
    Network,
    Scratch,
)
from mlp_accel.backends.paths import State

SAMPLE = 1000
"""Images that are looked at to see which pixels are used."""


class PixelLists(NamedTuple):
    """Images as lists of their pixels that are not zero; made once for a training run, as data are copied to a GPU once.

    It takes 4 bytes for each such pixel.
    """

    entries: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    work: npt.NDArray[np.float64]
    """(n_in + 1,): how much there is to do with the pixels below each."""


def list_pixels(x: npt.NDArray[np.uint8]) -> PixelLists:
    """The lists of images ``(n, n_in)``."""
    n, n_in = x.shape
    some = x[:: max(1, n // SAMPLE)]
    work = np.concatenate([[0], np.cumsum(np.count_nonzero(some, axis=0) / len(some) + 0.01)])
    pixels, counts, stops = np.ascontiguousarray(x).reshape(-1), np.empty(n, np.int64), np.empty(n, np.int64)
    pixel_lists.count_pixels(pixels, n_in, counts)
    ends = np.cumsum(-(-counts // UNROLL) * UNROLL)
    entries, starts = aligned_empty(int(ends[-1]) + CHUNK, np.uint32), np.concatenate([[0], ends[:-1]])
    pixel_lists.list_pixels(pixels, n_in, entries, starts, stops)
    return PixelLists(entries, starts, stops, work)


def share_out(x: PixelLists, network: Network, n_threads: int) -> npt.NDArray[np.int64]:
    """Where each share of the pixels begins: they are shared out among the threads of a block, so that each has as much work."""
    n_shares = -(-n_threads // n_blocks(network))
    shares = np.searchsorted(x.work, np.linspace(0, x.work[-1], n_shares + 1)).astype(np.int64)
    shares[-1] = len(x.work) - 1
    return shares


def pixel_values(dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """What each of the 256 values of a pixel stands for."""
    values = aligned_zeros(256, dtype)
    values[:] = np.arange(256) * np.asarray(1.0 / 255.0, dtype)
    return values


def n_blocks(network: Network) -> int:
    """Blocks of the first layer."""
    return int(network.layers[0, OUT_STRIDE] // network.block)


def pack_network(state: State, batch_size: int, n_threads: int) -> Network:
    """The parameters and slots in new memory, the first layer in a block for each thread as far as it can be divided."""
    params = state.params
    dtype = params[0][0].dtype
    lanes = VECTOR_BYTES // dtype.itemsize
    sizes = [params[0][0].shape[0], *(weights.shape[1] for weights, _ in params)]
    vectors = -(-sizes[1] // lanes)
    vectors = vectors if vectors <= 2 else _up(vectors, MAX_PARTS)
    n_parts = min(vectors, MAX_PARTS) if len(params) > 1 else 1
    block = vectors // min(n_parts, 1 << (n_threads.bit_length() - 1))  # a power of two, as is the number of parts
    strides = [0, vectors * lanes, *(_up(size, lanes) for size in sizes[2:])]
    layers = _layer_table(sizes, strides, batch_size)
    ends, above = layers[-1], len(params) > 1
    lengths = [
        sizes[0] * strides[1],
        int(ends[WEIGHTS]) + (sizes[-2] * strides[-1] if above else 0),
        int(ends[BIAS]) + strides[-1],
    ]
    line = CACHE_LINE // dtype.itemsize
    starts = np.cumsum([0, *(_up(length, line) for length in lengths)])
    n_slots = len(state.slots[0])
    memory = aligned_zeros((2 + n_slots, int(starts[-1])), dtype)
    first, weights, bias = (memory[0, start : start + length] for start, length in zip(starts[:-1], lengths, strict=True))
    network = Network(
        first=first,
        panel=lanes * math.gcd(block, PANEL_VECTORS),
        block=block * lanes,
        part=vectors // n_parts * lanes,
        weights=weights,
        transposed=aligned_zeros(int(ends[TRANSPOSED]) + (sizes[-1] * strides[-2] if above else 0), dtype),
        bias=bias,
        layers=layers,
        stride=memory.strides[0],
        slots=np.array([slot.ctypes.data for slot in memory[2:]], np.int64),
    )
    for values, to in zip([params, *_by_slot(state.slots)], _each(network), strict=True):
        _write(values, to)
    for (weights, _), to_transposed in zip(params, _transposed(network), strict=True):
        if to_transposed is not None:
            to_transposed[:, : weights.shape[0]] = weights.T
    return network


def unpack_network(network: Network) -> State:
    """Its parameters and slots in new memory."""
    params, *slots = (_read(values) for values in _each(network))
    return State(params, [list(of_layer) for of_layer in zip(*slots, strict=True)] if slots else [[] for _ in params])


def allocate_scratch(network: Network, batch_size: int, n_batches: int, keep_sums: bool) -> Scratch:
    """Memory for `n_batches` minibatches of `batch_size` images; with `keep_sums` the outputs have memory of their own."""
    dtype, strides = network.first.dtype, network.layers[:, OUT_STRIDE]
    n_values = batch_size * int(strides.sum())
    n_partial = int(strides[0] // network.part * batch_size * strides[1]) if len(strides) > 1 else 0
    sums = aligned_empty(n_values, dtype)
    return Scratch(
        partial=aligned_empty(n_partial, dtype),
        sums=sums,
        outputs=aligned_empty(n_values, dtype) if keep_sums else sums,
        errors=aligned_empty(n_values, dtype),
        zeros=aligned_zeros(strides.max(), dtype),
        columns=aligned_empty(int(network.layers[-1, N_OUT]) * batch_size, dtype),
        largest=aligned_empty(batch_size, dtype),
        best=aligned_empty(batch_size, np.float64),
        exp_sums=aligned_empty(batch_size, dtype),
        margins=aligned_empty(batch_size, np.float64),
        hits=aligned_empty(batch_size, np.float64),
        batch_losses=np.empty(n_batches),
        batch_hits=np.empty(n_batches),
    )


def aligned_empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Memory that begins at a cache line: a vector across two lines takes twice as long to load."""
    dtype = np.dtype(dtype)
    size = math.prod(np.atleast_1d(shape).tolist()) * dtype.itemsize
    memory = np.empty(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned_zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`aligned_empty`, filled with zeros."""
    result = aligned_empty(shape, dtype)
    result[...] = 0
    return result


def _layer_table(sizes: list[int], strides: list[int], batch_size: int) -> npt.NDArray[np.int64]:
    table, weights, transposed, bias, source, target = [], 0, 0, 0, 0, 0
    for layer in range(len(sizes) - 1):
        n_in, n_out, stride_in, stride = *sizes[layer : layer + 2], *strides[layer : layer + 2]
        table.append([n_in, n_out, stride_in, stride, weights, transposed, bias, source, target])
        weights += n_in * stride if layer else 0
        transposed += n_out * stride_in if layer else 0
        bias += stride
        source, target = target, target + batch_size * stride
    return np.array(table, np.int64)


def _each(network: Network) -> list[Network]:
    """The network, and one for each slot, whose parameters are the slots."""
    arrays = network.first, network.weights, network.bias
    shifts = [0, *(int(slot) - network.first.ctypes.data for slot in network.slots)]
    views = [[_shifted(array, shift) for array in arrays] for shift in shifts]
    return [network._replace(first=first, weights=weights, bias=bias) for first, weights, bias in views]


def _shifted(array: npt.NDArray[Any], shift: int) -> npt.NDArray[Any]:
    """As many numbers, so many bytes behind `array` in the memory that it is a part of."""
    memory = array.base
    assert memory is not None
    start = array.ctypes.data + shift - memory.ctypes.data
    return memory.reshape(-1).view(np.uint8)[start : start + array.nbytes].view(array.dtype)


def _by_slot(slots: Slots) -> list[Params]:
    """For each slot the values of all layers."""
    return [list(of_slot) for of_slot in zip(*slots, strict=True)]


def _layers(network: Network) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """For each layer its weights, those of the first by panels, and its bias; with their padding."""
    for layer, (n_in, _, _, stride, weights, _, bias, _, _) in enumerate(network.layers.tolist()):
        if layer:
            to = network.weights[weights : weights + n_in * stride].reshape(n_in, stride)
        else:
            to = network.first.reshape(-1, n_in, network.panel)
        yield to, network.bias[bias : bias + stride]


def _transposed(network: Network) -> Iterator[npt.NDArray[Any] | None]:
    """For each layer the copy of its weights the other way round, which the first one does not have."""
    for layer, (_, n_out, stride_in, _, _, transposed, _, _, _) in enumerate(network.layers.tolist()):
        end = transposed + n_out * stride_in
        yield network.transposed[transposed:end].reshape(n_out, stride_in) if layer else None


def _write(params: Params, network: Network) -> None:
    for (weights, bias), (to, to_bias) in zip(params, _layers(network), strict=True):
        to_bias[: bias.shape[0]] = bias
        if to.ndim == 3:
            n_panels, n_in, panel = to.shape
            padded = np.pad(weights, ((0, 0), (0, n_panels * panel - weights.shape[1])))
            to[:] = padded.reshape(n_in, n_panels, panel).transpose(1, 0, 2)
        else:
            to[:, : weights.shape[1]] = weights


def _read(network: Network) -> Params:
    result = []
    for (packed, bias), n_out in zip(_layers(network), network.layers[:, N_OUT].tolist(), strict=True):
        rows = packed.transpose(1, 0, 2).reshape(packed.shape[1], -1) if packed.ndim == 3 else packed
        result.append((rows[:, :n_out].copy(), bias[:n_out].copy()))
    return result


def _up(n: int, step: int) -> int:
    return -(-n // step) * step
