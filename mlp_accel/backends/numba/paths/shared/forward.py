"""From the first layer to the loss: what a step does before it walks back.

Each function does it for some of the units or some of the samples; `memory` explains blocks, parts and panels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_accel.backends.numba.compiler import EXACT_MATH, VECTOR_BYTES, inlined, jit
from mlp_accel.backends.numba.emit.addresses import call
from mlp_accel.backends.numba.emit.product import Matrix, multiply
from mlp_accel.backends.numba.emit.tiles import transpose_tile
from mlp_accel.backends.numba.emit.vector_math import exp, log
from mlp_accel.backends.numba.paths.shared.memory import (
    N_IN,
    N_OUT,
    OUT_STRIDE,
    OUTPUT,
    EpochInput,
    Network,
    Rules,
    Scratch,
    row_of,
)


@inlined
def activate(rules: Rules, scratch: Scratch, start: int, stop: int) -> None:
    """Compute the outputs from number `start` to `stop` by the activation, from the sums of the same numbers."""
    sums, outputs = scratch.sums, scratch.outputs
    addresses = sums.ctypes.data + start * sums.itemsize, outputs.ctypes.data + start * sums.itemsize
    call(rules.activate, (*addresses, stop - start, sums.dtype.type(1)))


@jit()
def partial_sums(rules: Rules, network: Network, scratch: Scratch, block: int, first: int, stop: int) -> None:
    """The activation of a block of the first layer, and its partial sums of the second layer, for samples `first` to `stop`."""
    length, width, part, stride = scratch.largest.shape[0], network.block, network.part, network.layers[1, OUT_STRIDE]
    start = (block * length + first) * width
    activate(rules, scratch, start, start + (stop - first) * width)
    one = network.first.dtype.type(1)
    for begin in range(0, width, part):
        unit = block * width + begin
        depth = min(part, network.layers[1, N_IN] - unit)
        out = Matrix(scratch.partial, (unit // part * length + first) * stride, stride, 1)
        below = Matrix(scratch.outputs, start + begin, width, 1)
        zeros, matrix = Matrix(scratch.zeros, 0, 0, 1), Matrix(network.weights, unit * stride, stride, 1)
        multiply(rules.product, stop - first, stride, depth, out, zeros, one, below, matrix)


@jit()
def add_segment_sums(network: Network, scratch: Scratch, n_segments: int, first: int, stop: int) -> None:
    """The first layer before its activation, for samples `first` to `stop`: its bias and the sums of all segments of the inputs."""
    stride, length = np.uint64(network.layers[0, OUT_STRIDE]), np.uint64(scratch.largest.shape[0])
    out, parts, biases = scratch.sums, scratch.segment_sums, network.bias
    for i in range(np.uint64(first), np.uint64(stop)):
        for j in range(stride):
            out[i * stride + j] = biases[j]
    for segment in range(np.uint64(n_segments)):
        for j in range(np.uint64(first) * stride, np.uint64(stop) * stride):
            out[j] += parts[segment * length * stride + j]


@jit()
def add_partial_sums(network: Network, scratch: Scratch, first: int, stop: int) -> None:
    """The second layer before its activation, for samples `first` to `stop`: its bias and all partial sums."""
    layers, length = network.layers, np.uint64(scratch.largest.shape[0])
    stride, target, bias = np.uint64(layers[1, OUT_STRIDE]), np.uint64(layers[1, OUTPUT]), np.uint64(layers[0, OUT_STRIDE])
    out, parts, biases = scratch.sums, scratch.partial, network.bias
    for i in range(np.uint64(first), np.uint64(stop)):
        for j in range(stride):
            out[target + i * stride + j] = biases[bias + j]
    for part in range(np.uint64(layers[0, OUT_STRIDE] // network.part)):
        for j in range(np.uint64(first) * stride, np.uint64(stop) * stride):
            out[target + j] += parts[part * length * stride + j]


@jit()
def forward_above(rules: Rules, network: Network, scratch: Scratch, first: int, stop: int) -> None:
    """From the second layer's sums to those of the last layer, for samples `first` to `stop`."""
    layers = network.layers
    for layer in range(2, layers.shape[0]):
        _, _, stride_in, stride, weights, _, bias, source, target = row_of(layers, layer)
        activate(rules, scratch, source + first * stride_in, source + stop * stride_in)
        out = Matrix(scratch.sums, target + first * stride, stride, 1)
        below = Matrix(scratch.outputs, source + first * stride_in, stride_in, 1)
        bias_rows, matrix = Matrix(network.bias, bias, 0, 1), Matrix(network.weights, weights, stride, 1)
        multiply(
            rules.product, stop - first, stride, layers[layer, N_IN], out, bias_rows, network.first.dtype.type(1), below, matrix
        )


@jit()
def output_deltas(
    inputs: EpochInput, rules: Rules, network: Network, scratch: Scratch, start: int, first: int, stop: int, size: int
) -> None:
    """Softmax, loss, hits and the deltas at the logits, for samples `first` to `stop`.

    The logits are transposed, so that a vector holds those of neighbouring samples.
    """
    last = network.layers[network.layers.shape[0] - 1]
    one = network.first.dtype.type(1)
    per_sample, notebook = one / network.first.dtype.type(size), rules.notebook != 0
    columns, largest, exp_sums, best = scratch.columns, scratch.largest, scratch.exp_sums, scratch.best
    losses, hits, labels = scratch.losses, scratch.hits, inputs.labels
    transpose(columns, scratch.sums, last, largest.shape[0], first, stop, True)
    # Unsigned indices cannot be negative: without that check LLVM computes several samples in one vector.
    n_out, stride = np.uint64(last[N_OUT]), np.uint64(last[OUT_STRIDE])
    begin, end, length, batch = np.uint64(first), np.uint64(stop), np.uint64(largest.shape[0]), np.uint64(start)
    for i in range(begin, end):
        largest[i] = columns[i]
        exp_sums[i] = 0
        best[i] = -1  # stays where a logit is NaN: then no class is the largest
    for j in range(np.uint64(1), n_out):
        for i in range(begin, end):
            z = columns[j * length + i]
            largest[i] = z if z > largest[i] else largest[i]
    for k in range(n_out):
        backwards = n_out - np.uint64(1) - k
        for i in range(begin, end):
            best[i] = backwards if columns[backwards * length + i] == largest[i] else best[i]
    for i in range(begin, end):
        label = np.uint64(labels[batch + i])
        hits[i] = best[i] == label
        losses[i] = np.float64(largest[i]) - np.float64(columns[label * length + i])
    for j in range(n_out):
        for i in range(begin, end):
            e = exp(columns[j * length + i] - largest[i])
            columns[j * length + i] = e
            exp_sums[i] += e
    for i in range(begin, end):
        losses[i] = log_added(losses[i], exp_sums[i])
        exp_sums[i] = one / exp_sums[i] if notebook else per_sample / exp_sums[i]
    for j in range(n_out):
        for i in range(begin, end):
            columns[j * length + i] *= exp_sums[i]
    if notebook:
        for j in range(n_out):
            for i in range(begin, end):
                p = columns[j * length + i]
                columns[j * length + i] = (p - (one if np.uint64(labels[batch + i]) == j else p * 0)) * p * (one - p)
    else:
        for i in range(begin, end):
            columns[np.uint64(labels[batch + i]) * length + i] -= per_sample
    for j in range(n_out, stride):
        for i in range(begin, end):
            columns[j * length + i] = 0
    transpose(columns, scratch.deltas, last, largest.shape[0], first, stop, False)


@jit(math=EXACT_MATH)  # other rules may add a small logarithm to a huge margin first, where its digits are lost
def log_added(margin: float, exp_sum: Any) -> float:
    """A loss from the largest logit minus that of the label, and the sum of ``exp(logit - largest)``."""
    return margin + np.float64(log(exp_sum))


@inlined
def transpose(columns: Any, rows: Any, layer: Any, length: int, first: int, stop: int, forward: bool) -> None:
    """Bring samples `first` to `stop` of the last layer from `rows` to `columns`, or back."""
    stride, target, lanes = layer[OUT_STRIDE], layer[OUTPUT], VECTOR_BYTES // columns.itemsize
    whole = first + (stop - first) // lanes * lanes
    for i in range(first, whole, lanes):
        for j in range(0, stride, lanes):
            if forward:
                transpose_tile(columns, j * length + i, length, rows, target + i * stride + j, stride)
            else:
                transpose_tile(rows, target + i * stride + j, stride, columns, j * length + i, length)
    for i in range(whole, stop):
        for j in range(stride):
            if forward:
                columns[j * length + i] = rows[target + i * stride + j]
            else:
                rows[target + i * stride + j] = columns[j * length + i]


@jit(math=EXACT_MATH)
def sum_losses(scratch: Scratch, batch: int, size: int) -> None:
    """Write the sum of the losses of a minibatch, and its number of right answers."""
    loss = hits = 0.0
    for i in range(size):
        loss += scratch.losses[i]
        hits += scratch.hits[i]
    scratch.batch_losses[batch], scratch.batch_hits[batch] = loss, hits
