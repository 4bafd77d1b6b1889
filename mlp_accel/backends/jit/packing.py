"""From parameters and images to the flat memory that `pixel_epoch` works on, and back."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.base import ACTIVATIONS, Params, Step
from mlp_accel.backends.jit import pixel_epoch, pixel_lists
from mlp_accel.backends.jit.compiler import VECTOR_BYTES
from mlp_accel.backends.jit.memory import (
    BIAS,
    CACHE_LINE,
    MAX_PARTS,
    N_OUT,
    OUT_STRIDE,
    PANEL_VECTORS,
    TRANSPOSED,
    UNROLL,
    WEIGHTS,
    Data,
    Network,
    Scratch,
)
from mlp_accel.backends.jit.simd import CHUNK

MAX_PIXELS = 1 << 16
"""The number of a pixel has 16 bits in an entry."""

SAMPLE = 1000
"""Images that are looked at to see which pixels are used."""

SPARSE = 0.5
"""Share of pixels that are not zero up to which it pays to skip the others."""


class PixelLists(NamedTuple):
    """Images in the form that the fused epoch trains on; made once for a training run, as data are copied to a GPU once.

    It takes 4 bytes for each pixel that is not zero.
    """

    entries: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    in_order: npt.NDArray[np.int64]
    """(3, n): starts, stops and labels in the order of an epoch, memory that is kept from epoch to epoch."""
    work: npt.NDArray[np.float64]
    """(n_in + 1,): how much there is to do with the pixels below each."""
    scratch: dict[tuple[Any, ...], Scratch]
    """Memory of a step, kept from epoch to epoch."""


def list_pixels(x: npt.NDArray[np.uint8]) -> PixelLists | None:
    """The lists of images ``(n, n_in)``, or None if so few pixels are zero that the lists would not pay."""
    n, n_in = x.shape
    used = np.count_nonzero(x[:: max(1, n // SAMPLE)], axis=0) / len(x[:: max(1, n // SAMPLE)])
    if used.mean() > SPARSE or n_in > MAX_PIXELS:
        return None
    work = np.concatenate([[0], np.cumsum(used + 0.01)])
    pixels, counts, stops = np.ascontiguousarray(x).reshape(-1), np.empty(n, np.int64), np.empty(n, np.int64)
    pixel_lists.count_pixels(pixels, n_in, counts)
    ends = np.cumsum(-(-counts // UNROLL) * UNROLL)
    entries, starts = aligned_empty(int(ends[-1]) + CHUNK, np.uint32), np.concatenate([[0], ends[:-1]])
    pixel_lists.list_pixels(pixels, n_in, entries, starts, stops)
    return PixelLists(entries, starts, stops, np.empty((3, n), np.int64), work, {})


def train_epoch(
    step: Step, params: Params, x: PixelLists, y: Any, order: Any, batch_size: int, n_threads: int
) -> tuple[Params, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`Backend.train_epoch` on lists of pixels."""
    dtype = params[0][0].dtype
    network = pack_network(params, batch_size, n_threads)
    n_batches = -(-len(order) // batch_size)
    key = (network.layers.tobytes(), batch_size, n_threads, n_batches, dtype.char)
    if key not in x.scratch:
        x.scratch[key] = allocate_scratch(network, batch_size, n_batches)
    scratch, data = x.scratch[key], pack_data(x, y, order, network, n_threads)
    activation, notebook = 1 + ACTIVATIONS.index(step.activation), step.gradient == "notebook"
    pixel_epoch.train_epoch(data, network, scratch, batch_size, dtype.type(step.learning_rate), activation, notebook)
    return unpack_network(network, params), scratch.batch_losses.copy(), scratch.batch_hits.copy()


def pack_data(x: PixelLists, y: Any, order: Any, network: Network, n_threads: int) -> Data:
    """The data, and the pixels shared out among the threads of a block, so that each share is as much work."""
    dtype = network.first.dtype.type
    n_shares = -(-n_threads // n_blocks(network))
    shares = np.searchsorted(x.work, np.linspace(0, x.work[-1], n_shares + 1)).astype(np.int64)
    shares[-1] = len(x.work) - 1
    values = aligned_zeros(256, dtype)
    values[:] = np.arange(256) * dtype(1.0 / 255.0)
    in_order = x.in_order if len(order) <= x.in_order.shape[1] else np.empty((3, len(order)), np.int64)
    n_classes = int(network.layers[-1, N_OUT])
    if not pixel_lists.follow_order(order, x.starts, x.stops, y, n_classes, in_order):
        raise IndexError(
            f"the order must hold numbers of the {len(x.starts)} images, the labels numbers of the {n_classes} classes"
        )
    starts, stops, labels = in_order[:, : len(order)]
    return Data(x.entries, starts, stops, labels, values, shares)


def n_blocks(network: Network) -> int:
    """Blocks of the first layer."""
    return int(network.layers[0, OUT_STRIDE] // network.block)


def pack_network(params: Params, batch_size: int, n_threads: int) -> Network:
    """The parameters in new memory, the first layer in a block for each thread as far as it can be divided."""
    dtype = params[0][0].dtype
    lanes = VECTOR_BYTES // dtype.itemsize
    sizes = [params[0][0].shape[0], *(weights.shape[1] for weights, _ in params)]
    vectors = -(-sizes[1] // lanes)
    vectors = vectors if vectors <= 2 else _up(vectors, MAX_PARTS)
    n_parts = min(vectors, MAX_PARTS) if len(params) > 1 else 1
    block = vectors // min(n_parts, 1 << (n_threads.bit_length() - 1))  # a power of two, as is the number of parts
    panel = lanes * math.gcd(block, PANEL_VECTORS)
    strides = [0, vectors * lanes, *(_up(size, lanes) for size in sizes[2:])]
    layers = _layer_table(sizes, strides, batch_size)
    n_panels = strides[1] // panel
    first = aligned_zeros((n_panels, sizes[0], panel), dtype)
    padded = np.pad(params[0][0], ((0, 0), (0, strides[1] - sizes[1])))
    first[:] = padded.reshape(sizes[0], n_panels, panel).transpose(1, 0, 2)
    ends = layers[-1]
    network = Network(
        first=first.reshape(-1),
        panel=panel,
        block=block * lanes,
        part=vectors // n_parts * lanes,
        weights=aligned_zeros(ends[WEIGHTS] + (sizes[-2] * strides[-1] if len(params) > 1 else 0), dtype),
        transposed=aligned_zeros(ends[TRANSPOSED] + (sizes[-1] * strides[-2] if len(params) > 1 else 0), dtype),
        bias=aligned_zeros(ends[BIAS] + strides[-1], dtype),
        layers=layers,
    )
    for (weights, bias), (to, to_transposed, to_bias) in zip(params, _views(network), strict=True):
        to_bias[: bias.shape[0]] = bias
        if to is not None:
            to[:, : weights.shape[1]] = weights
            to_transposed[:, : weights.shape[0]] = weights.T
    to_bias[sizes[-1] :] = np.finfo(dtype).min
    return network


def unpack_network(network: Network, params: Params) -> Params:
    """Its parameters in the shapes of `params`, in new memory."""
    result = []
    for layer, ((weights, bias), (packed, _, packed_bias)) in enumerate(zip(params, _views(network), strict=True)):
        n_in, n_out = weights.shape
        if layer == 0:
            packed = network.first.reshape(-1, n_in, network.panel).transpose(1, 0, 2).reshape(n_in, -1)
        result.append((np.ascontiguousarray(packed[:, :n_out]), packed_bias[: bias.shape[0]].copy()))
    return result


def allocate_scratch(network: Network, batch_size: int, n_batches: int) -> Scratch:
    """Memory for `n_batches` minibatches of `batch_size` images."""
    dtype, strides = network.first.dtype, network.layers[:, OUT_STRIDE]
    n_values = batch_size * int(strides.sum())
    n_partial = int(strides[0] // network.part * batch_size * strides[1]) if len(strides) > 1 else 0
    return Scratch(
        partial=aligned_empty(n_partial, dtype),
        outputs=aligned_empty(n_values, dtype),
        errors=aligned_empty(n_values, dtype),
        bias_gradient=aligned_empty(network.bias.shape[0], dtype),
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


def _views(network: Network) -> list[tuple[Any, Any, Any]]:
    """For each layer its weights, transposed weights and bias, with their padding; the first layer's are in `first`."""
    views = []
    for layer, (n_in, n_out, stride_in, stride, weights, transposed, bias, _, _) in enumerate(network.layers.tolist()):
        to = network.weights[weights : weights + n_in * stride].reshape(n_in, stride) if layer else None
        to_transposed = network.transposed[transposed : transposed + n_out * stride_in].reshape(n_out, stride_in) if layer else None
        views.append((to, to_transposed, network.bias[bias : bias + stride]))
    return views


def _up(n: int, step: int) -> int:
    return -(-n // step) * step
