"""The parts of a step of the fused epoch, each for some of the units, the images or the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_accel.backends.numba.compiler import EXACT_MATH, VECTOR_BYTES, inlined, jit
from mlp_accel.backends.numba.emit.addresses import array_at, call
from mlp_accel.backends.numba.emit.product import Matrix, product
from mlp_accel.backends.numba.emit.tiles import scatter_row, sparse_row
from mlp_accel.backends.numba.emit.vector_math import exp
from mlp_accel.backends.numba.paths.sparse.memory import (
    CACHE_LINE,
    HALF_PANEL,
    N_IN,
    N_OUT,
    OUT_STRIDE,
    OUTPUT,
    PANEL_VECTORS,
    UNROLL,
    Data,
    Network,
    Rules,
    Scratch,
    row_of,
)
from mlp_accel.backends.numba.paths.sparse.pixel_lists import find_pixel, prefetch_list


@inlined
def activate(rules: Rules, scratch: Scratch, start: int, stop: int) -> None:
    """Outputs `start` to `stop` from the sums."""
    sums, outputs = scratch.sums, scratch.outputs
    places = sums.ctypes.data + start * sums.itemsize, outputs.ctypes.data + start * sums.itemsize
    call(rules.activate, (*places, stop - start, sums.dtype.type(1)))


@inlined
def times_slope(rules: Rules, scratch: Scratch, start: int, stop: int) -> None:
    """Errors `start` to `stop`, each times the slope of the activation."""
    errors, kept = scratch.errors, scratch.sums
    places = errors.ctypes.data + start * kept.itemsize, kept.ctypes.data + start * kept.itemsize
    call(rules.times_slope, (*places, stop - start, kept.dtype.type(1)))


@inlined
def update(rules: Rules, data: Data, network: Network, batch: int, parameters: Any, start: int, stop: int) -> None:
    """Parameters `start` to `stop` from their gradients, which are set to 0."""
    size, one = parameters.itemsize, parameters.dtype.type(1)
    place = parameters.ctypes.data + start * size
    shift = place - network.first.ctypes.data
    scalars = data.scalars.ctypes.data + batch * rules.n_scalars * size
    call(rules.update, (place, place + network.stride, network.slots.ctypes.data, shift, scalars, stop - start, one))


@inlined
def first_layer(data: Data, network: Network, scratch: Scratch, start: int, block: int, first: int, stop: int) -> None:
    """A block of the first layer, before its activation, for images `first` to `stop` of the minibatch at `start`."""
    n_in, width, panel = network.layers[0, N_IN], network.block, network.panel
    entries, starts, stops = data.entries, data.starts, data.stops
    weights, bias, out, values = network.first, network.bias, scratch.sums, data.values
    one = weights.dtype.type(1)
    vectors = panel * weights.itemsize // VECTOR_BYTES
    for column in range(block * width, (block + 1) * width, panel):
        to = block * width * (scratch.largest.shape[0] - 1) + column
        for i in range(first, stop):
            if column == block * width:
                prefetch_list(data, start + i)
            begin = starts[start + i]
            count = -(-(stops[start + i] - begin) // UNROLL) * UNROLL
            o, at = to + i * width, column * n_in
            if vectors == PANEL_VECTORS:
                sparse_row(PANEL_VECTORS, UNROLL, out, o, bias, column, one, entries, begin, count, values, weights, at, panel)
            elif HALF_PANEL > 1 and vectors == HALF_PANEL:
                sparse_row(HALF_PANEL, UNROLL, out, o, bias, column, one, entries, begin, count, values, weights, at, panel)
            else:
                sparse_row(1, UNROLL, out, o, bias, column, one, entries, begin, count, values, weights, at, panel)


@inlined
def partial_sums(rules: Rules, network: Network, scratch: Scratch, block: int, first: int, stop: int) -> None:
    """The activation of a block of the first layer, and what it adds to the second one, for images `first` to `stop`."""
    length, width, part, stride = scratch.largest.shape[0], network.block, network.part, network.layers[1, OUT_STRIDE]
    at = (block * length + first) * width
    activate(rules, scratch, at, at + (stop - first) * width)
    one = network.first.dtype.type(1)
    for begin in range(0, width, part):
        unit = block * width + begin
        depth = min(part, network.layers[1, N_IN] - unit)
        out = Matrix(scratch.partial, (unit // part * length + first) * stride, stride, 1)
        below = Matrix(scratch.outputs, at + begin, width, 1)
        zeros, matrix = Matrix(scratch.zeros, 0, 0, 1), Matrix(network.weights, unit * stride, stride, 1)
        product(stop - first, stride, depth, out, zeros, one, below, matrix)


@inlined
def add_partial_sums(network: Network, scratch: Scratch, first: int, stop: int) -> None:
    """The second layer before its activation: its bias, and what the parts of the first layer add to it."""
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
    """From the second layer's sums to those of the last layer, for images `first` to `stop`."""
    layers = network.layers
    for layer in range(2, layers.shape[0]):
        _, _, stride_in, stride, weights, _, bias, source, target = row_of(layers, layer)
        activate(rules, scratch, source + first * stride_in, source + stop * stride_in)
        out = Matrix(scratch.sums, target + first * stride, stride, 1)
        below = Matrix(scratch.outputs, source + first * stride_in, stride_in, 1)
        bias_rows, matrix = Matrix(network.bias, bias, 0, 1), Matrix(network.weights, weights, stride, 1)
        product(stop - first, stride, layers[layer, N_IN], out, bias_rows, network.first.dtype.type(1), below, matrix)


@inlined
def softmax_errors(
    data: Data, rules: Rules, network: Network, scratch: Scratch, start: int, first: int, stop: int, size: int
) -> None:
    """Softmax of the last layer's sums, what the loss and the accuracy are made of, and the error at the logits."""
    last = network.layers[network.layers.shape[0] - 1]
    one = network.first.dtype.type(1)
    share, notebook = one / network.first.dtype.type(size), rules.notebook != 0
    sums, errors, labels = scratch.sums, scratch.errors, data.labels
    columns, largest, exp_sums, best = scratch.columns, scratch.largest, scratch.exp_sums, scratch.best
    hits, margins = scratch.hits, scratch.margins
    # Unsigned numbers spare the question whether an index is negative, and let LLVM make vectors of the images.
    n_out, stride, target = np.uint64(last[N_OUT]), np.uint64(last[OUT_STRIDE]), np.uint64(last[OUTPUT])
    begin, end, length, batch = np.uint64(first), np.uint64(stop), np.uint64(largest.shape[0]), np.uint64(start)
    for i in range(begin, end):
        for j in range(n_out):
            columns[j * length + i] = sums[target + i * stride + j]
    for i in range(begin, end):
        largest[i] = columns[i]
        exp_sums[i] = 0
        best[i] = -1  # of a row with NaN nothing is the largest
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
        at = target + i * stride
        label = np.uint64(labels[batch + i])
        hits[i] = best[i] == label
        margins[i] = np.float64(largest[i]) - np.float64(sums[at + label])
        factor = one / exp_sums[i] if notebook else share / exp_sums[i]
        for j in range(n_out):
            errors[at + j] = columns[j * length + i] * factor
        for j in range(n_out, stride):
            errors[at + j] = 0
        if notebook:
            for j in range(n_out):
                p = errors[at + j]
                errors[at + j] = (p - (one if j == label else p * 0)) * p * (one - p)
        else:
            errors[at + label] -= share


@inlined
def errors_above(rules: Rules, network: Network, scratch: Scratch, first: int, stop: int) -> None:
    """From the errors at the logits back to those of the second layer, for images `first` to `stop`."""
    layers = network.layers
    for layer in range(layers.shape[0] - 1, 1, -1):
        _, n_out, stride_in, stride, _, transposed, _, source, target = row_of(layers, layer)
        out = Matrix(scratch.errors, source + first * stride_in, stride_in, 1)
        above = Matrix(scratch.errors, target + first * stride, stride, 1)
        zeros, matrix = Matrix(scratch.zeros, 0, 0, 1), Matrix(network.transposed, transposed, stride_in, 1)
        product(stop - first, stride_in, n_out, out, zeros, network.first.dtype.type(1), above, matrix)
        times_slope(rules, scratch, source + first * stride_in, source + stop * stride_in)


@inlined
def first_errors(rules: Rules, network: Network, scratch: Scratch, block: int, first: int, stop: int) -> None:
    """The error of a block of the first layer, for images `first` to `stop`."""
    _, n_out, stride_in, stride, _, transposed, _, _, target = row_of(network.layers, 1)
    width = network.block
    at = (block * scratch.largest.shape[0] + first) * width
    out, above = Matrix(scratch.errors, at, width, 1), Matrix(scratch.errors, target + first * stride, stride, 1)
    zeros, matrix = Matrix(scratch.zeros, 0, 0, 1), Matrix(network.transposed, transposed + block * width, stride_in, 1)
    product(stop - first, width, n_out, out, zeros, network.first.dtype.type(1), above, matrix)
    times_slope(rules, scratch, at, at + (stop - first) * width)


@inlined
def update_first_layer(
    data: Data, rules: Rules, network: Network, scratch: Scratch, batch: int, start: int, size: int, block: int, share: int
) -> None:
    """A block's weights of a share of the pixels: each image adds to the gradient of those of its pixels that are not zero.

    An update that is just ``p - u * g`` is done at once, without a gradient.
    """
    n_in, width, panel = network.layers[0, N_IN], network.block, network.panel
    entries, starts, stops = data.entries, data.starts, data.stops
    weights, errors, values = network.first, scratch.errors, data.values
    first, stop, n_shares = data.shares[share], data.shares[share + 1], data.shares.shape[0] - 1
    vectors = panel * weights.itemsize // VECTOR_BYTES
    one, at_once = weights.dtype.type(1), rules.rate_column >= 0
    scale = -data.scalars[batch * rules.n_scalars + rules.rate_column] if at_once else one
    to = array_at(weights.ctypes.data + (0 if at_once else network.stride), weights.shape[0], one)
    for column in range(block * width, (block + 1) * width, panel):
        rows, at = block * width * (scratch.largest.shape[0] - 1) + column, column * n_in
        for i in range(size):
            begin, end = starts[start + i], stops[start + i]
            if n_shares > 1:
                begin, end = find_pixel(entries, begin, end, first), find_pixel(entries, begin, end, stop)
            row = rows + i * width
            if vectors == PANEL_VECTORS:
                scatter_row(PANEL_VECTORS, errors, row, scale, entries, begin, end, values, to, at, panel)
            elif HALF_PANEL > 1 and vectors == HALF_PANEL:
                scatter_row(HALF_PANEL, errors, row, scale, entries, begin, end, values, to, at, panel)
            else:
                scatter_row(1, errors, row, scale, entries, begin, end, values, to, at, panel)
        if not at_once:
            update(rules, data, network, batch, weights, at + first * panel, at + stop * panel)


@inlined
def update_weights_above(
    data: Data, rules: Rules, network: Network, scratch: Scratch, batch: int, size: int, block: int, share: int
) -> None:
    """A task's share of the weights above the first layer, and of their copy in `transposed`."""
    layers, width, matrix, turned = network.layers, network.block, network.weights, network.transposed
    n_shares = data.shares.shape[0] - 1
    n_tasks = layers[0, OUT_STRIDE] // width * n_shares
    task = block * n_shares + share
    one, at_once = matrix.dtype.type(1), rules.rate_column >= 0
    scale = -data.scalars[batch * rules.n_scalars + rules.rate_column] if at_once else one
    to = array_at(matrix.ctypes.data + (0 if at_once else network.stride), matrix.shape[0], one)
    base = matrix if at_once else scratch.zeros
    for layer in range(1, layers.shape[0]):
        n_in, n_out, stride_in, stride, weights, transposed, _, source, target = row_of(layers, layer)
        if layer == 1:  # whose inputs are where the first layer has left them: by blocks
            begin, n = block * width, max(0, min(width, n_in - block * width))
            first, stop = begin + n * share // n_shares, begin + n * (share + 1) // n_shares
            inputs = Matrix(scratch.outputs, begin * scratch.largest.shape[0] + first - begin, 1, width)
        else:
            first, stop = n_in * task // n_tasks, n_in * (task + 1) // n_tasks
            inputs = Matrix(scratch.outputs, source + first, 1, stride_in)
        place, end = weights + first * stride, weights + stop * stride
        rows, errors = Matrix(to, place, stride, 1), Matrix(scratch.errors, target, stride, 1)
        before = Matrix(base, place if at_once else 0, stride if at_once else 0, 1)
        product(stop - first, stride, size, rows, before, scale, inputs, errors)
        if not at_once:
            update(rules, data, network, batch, matrix, place, end)
        for k in range(first, stop):
            for j in range(n_out):
                turned[transposed + j * stride_in + k] = matrix[weights + k * stride + j]


@inlined
def update_biases(
    data: Data, rules: Rules, network: Network, scratch: Scratch, batch: int, size: int, block: int, share: int
) -> None:
    """A task's share of the biases of all layers."""
    layers, width, biases, errors = network.layers, network.block, network.bias, scratch.errors
    n_shares = data.shares.shape[0] - 1
    n_tasks = layers[0, OUT_STRIDE] // width * n_shares
    task, line = block * n_shares + share, CACHE_LINE // biases.itemsize
    gradient = array_at(biases.ctypes.data + network.stride, biases.shape[0], biases.dtype.type(1))
    for layer in range(layers.shape[0]):
        _, _, _, stride, _, _, bias, _, target = row_of(layers, layer)
        if layer == 0:
            first, stop, stride = 0, width if share == 0 else 0, width
            bias, target = block * width, block * width * scratch.largest.shape[0]
        else:
            n_lines = -(-stride // line)  # two cores that write to one line wait for each other
            first, stop = n_lines * task // n_tasks * line, min(n_lines * (task + 1) // n_tasks * line, stride)
        begin, end = np.uint64(bias + first), np.uint64(bias + stop)
        for i in range(np.uint64(size)):
            row = np.uint64(target + first) + i * np.uint64(stride) - begin
            for j in range(begin, end):
                gradient[j] += errors[row + j]
        update(rules, data, network, batch, biases, bias + first, bias + stop)


@jit(math=EXACT_MATH)  # else the small logarithm is added to a margin that may be huge, and lost
def sum_losses(scratch: Scratch, batch: int, size: int) -> None:
    """Sum of the losses of a minibatch, and the number of right answers."""
    loss = hits = 0.0
    for i in range(size):
        loss += scratch.margins[i] + np.log(scratch.exp_sums[i])
        hits += scratch.hits[i]
    scratch.batch_losses[batch], scratch.batch_hits[batch] = loss, hits
