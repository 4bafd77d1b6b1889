"""From the samples to the loss: what a step of the sparse path does before it walks back.

Each function does it for some of the units or some of the samples; `memory` explains blocks, parts and panels.
"""

from __future__ import annotations

import numpy as np

from mlp_accel.backends.numba.compiler import EXACT_MATH, VECTOR_BYTES, inlined, jit
from mlp_accel.backends.numba.emit.addresses import call
from mlp_accel.backends.numba.emit.product import Matrix, product
from mlp_accel.backends.numba.emit.tiles import sparse_row
from mlp_accel.backends.numba.emit.vector_math import exp
from mlp_accel.backends.numba.paths.sparse.lists import prefetch_list
from mlp_accel.backends.numba.paths.sparse.memory import (
    HALF_PANEL,
    N_IN,
    N_OUT,
    OUT_STRIDE,
    OUTPUT,
    PANEL_VECTORS,
    UNROLL,
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


@inlined
def first_layer(inputs: EpochInput, network: Network, scratch: Scratch, start: int, block: int, first: int, stop: int) -> None:
    """A block of the first layer, before its activation, for samples `first` to `stop` of the minibatch that begins at `start`."""
    n_in, width, panel = network.layers[0, N_IN], network.block, network.panel
    entries, starts, stops = inputs.entries, inputs.starts, inputs.stops
    weights, bias, out, values = network.first, network.bias, scratch.sums, inputs.values
    one = weights.dtype.type(1)
    vectors = panel * weights.itemsize // VECTOR_BYTES
    for column in range(block * width, (block + 1) * width, panel):
        rows, panel_at = block * width * (scratch.largest.shape[0] - 1) + column, column * n_in
        for i in range(first, stop):
            if column == block * width:
                prefetch_list(inputs, start + i)
            begin = starts[start + i]
            n = -(-(stops[start + i] - begin) // UNROLL) * UNROLL
            row = rows + i * width
            if vectors == PANEL_VECTORS:
                sparse_row(PANEL_VECTORS, UNROLL, out, row, bias, column, one, entries, begin, n, values, weights, panel_at, panel)
            elif HALF_PANEL > 1 and vectors == HALF_PANEL:
                sparse_row(HALF_PANEL, UNROLL, out, row, bias, column, one, entries, begin, n, values, weights, panel_at, panel)
            else:
                sparse_row(1, UNROLL, out, row, bias, column, one, entries, begin, n, values, weights, panel_at, panel)


@inlined
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
        product(stop - first, stride, depth, out, zeros, one, below, matrix)


@inlined
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


@inlined
def forward_above(rules: Rules, network: Network, scratch: Scratch, first: int, stop: int) -> None:
    """From the second layer's sums to those of the last layer, for samples `first` to `stop`."""
    layers = network.layers
    for layer in range(2, layers.shape[0]):
        _, _, stride_in, stride, weights, _, bias, source, target = row_of(layers, layer)
        activate(rules, scratch, source + first * stride_in, source + stop * stride_in)
        out = Matrix(scratch.sums, target + first * stride, stride, 1)
        below = Matrix(scratch.outputs, source + first * stride_in, stride_in, 1)
        bias_rows, matrix = Matrix(network.bias, bias, 0, 1), Matrix(network.weights, weights, stride, 1)
        product(stop - first, stride, layers[layer, N_IN], out, bias_rows, network.first.dtype.type(1), below, matrix)


@inlined
def output_deltas(
    inputs: EpochInput, rules: Rules, network: Network, scratch: Scratch, start: int, first: int, stop: int, size: int
) -> None:
    """Softmax, what loss and accuracy are summed from, and the deltas at the logits, for samples `first` to `stop`."""
    last = network.layers[network.layers.shape[0] - 1]
    one = network.first.dtype.type(1)
    per_sample, notebook = one / network.first.dtype.type(size), rules.notebook != 0
    sums, deltas, labels = scratch.sums, scratch.deltas, inputs.labels
    columns, largest, exp_sums, best = scratch.columns, scratch.largest, scratch.exp_sums, scratch.best
    hits, margins = scratch.hits, scratch.margins
    # Unsigned indices cannot be negative: without that check LLVM computes several samples in one vector.
    n_out, stride, target = np.uint64(last[N_OUT]), np.uint64(last[OUT_STRIDE]), np.uint64(last[OUTPUT])
    begin, end, length, batch = np.uint64(first), np.uint64(stop), np.uint64(largest.shape[0]), np.uint64(start)
    for i in range(begin, end):
        for j in range(n_out):
            columns[j * length + i] = sums[target + i * stride + j]
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
    for j in range(n_out):
        for i in range(begin, end):
            e = exp(columns[j * length + i] - largest[i])
            columns[j * length + i] = e
            exp_sums[i] += e
    for i in range(begin, end):
        row = target + i * stride
        label = np.uint64(labels[batch + i])
        hits[i] = best[i] == label
        margins[i] = np.float64(largest[i]) - np.float64(sums[row + label])
        factor = one / exp_sums[i] if notebook else per_sample / exp_sums[i]
        for j in range(n_out):
            deltas[row + j] = columns[j * length + i] * factor
        for j in range(n_out, stride):
            deltas[row + j] = 0
        if notebook:
            for j in range(n_out):
                p = deltas[row + j]
                deltas[row + j] = (p - (one if j == label else p * 0)) * p * (one - p)
        else:
            deltas[row + label] -= per_sample


@jit(math=EXACT_MATH)  # other rules may add a small logarithm to a huge margin first, where its digits are lost
def sum_losses(scratch: Scratch, batch: int, size: int) -> None:
    """Write the sum of the losses of a minibatch, and its number of right answers."""
    loss = hits = 0.0
    for i in range(size):
        loss += scratch.margins[i] + np.log(scratch.exp_sums[i])
        hits += scratch.hits[i]
    scratch.batch_losses[batch], scratch.batch_hits[batch] = loss, hits
