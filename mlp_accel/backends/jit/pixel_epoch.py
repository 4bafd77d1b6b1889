"""A whole epoch on images whose pixels are mostly zero, in one compiled loop.

The two big products, of the images with the weights of the first layer, visit the pixels that are not zero and no other: of
MNIST's that is one in five. The pixels are divided into `N_GROUPS` groups, and a thread keeps to its group, so that the weights of
the first layer never leave its cache. A minibatch takes three parallel regions: the first layer, by groups of pixels; the rest of
the network, forward and back, by images; and going down the gradient, by groups of pixels again. Every sum is made by one thread,
in an order that does not depend on the number of threads, so the results are the same bits for any number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from mlp_accel.backends.jit.compiler import VECTOR_BYTES, ParallelKernel, jit
from mlp_accel.backends.jit.math import activate, exp, times_slope
from mlp_accel.backends.jit.memory import (
    CACHE_LINE,
    N_GROUPS,
    N_IN,
    N_OUT,
    OUT_STRIDE,
    OUTPUT,
    Data,
    Network,
    Scratch,
)
from mlp_accel.backends.jit.pixel_lists import find_lists, list_images
from mlp_accel.backends.jit.product import Matrix, product
from mlp_accel.backends.jit.simd import prefetch, sparse_tile

N_REGIONS = 3
"""Of a minibatch, in which tasks run in parallel."""


@jit()
def add_products(
    panel: int,
    first: int,
    stop: int,
    out: Matrix,
    base: Matrix,
    scale: Any,
    entries: Any,
    starts: Any,
    stops: Any,
    values: Any,
    matrix: Matrix,
) -> None:
    """``out[i] = base[i] + scale * sum(values[v] * matrix[k])`` over the entries ``(v, k)`` of list `i`, for each from `first` on.

    List `i` is ``entries[starts[i]:stops[i]]``. As many sums run side by side as keep the multipliers busy.
    """
    vectors = panel * out.array.itemsize // VECTOR_BYTES
    x, y, z = out.array, base.array, matrix.array
    for i in range(first, stop):
        start, n = starts[i], stops[i] - starts[i]
        if n == 0 and base.row > 0:  # nothing changes
            continue
        o, b = out.at + i * out.row, base.at + i * base.row
        if vectors == 4:
            sparse_tile(4, 2, x, o, y, b, scale, entries, start, n + n % 2, values, z, matrix.at, matrix.row)
        elif vectors == 2:
            sparse_tile(2, 4, x, o, y, b, scale, entries, start, n + -n % 4, values, z, matrix.at, matrix.row)
        else:
            sparse_tile(1, 8, x, o, y, b, scale, entries, start, n + -n % 8, values, z, matrix.at, matrix.row)


@jit()
def first_layer(data: Data, network: Network, scratch: Scratch, start: int, group: int, first: int, stop: int) -> None:
    """What a group of pixels adds to the first layer of images `first` to `stop` of the minibatch at `start`."""
    n_in, width, panel = network.layers[0, N_IN], network.layers[0, OUT_STRIDE], network.panel
    find_lists(data, scratch, start, group, first, stop)
    images = group * scratch.largest.shape[0]
    entries, starts, stops = data.entries, scratch.image_starts, scratch.image_stops
    one, base = network.first.dtype.type(1), network.bias if group == 0 else scratch.zeros
    for column in range(0, width, panel):
        out, weights = Matrix(scratch.partial, column, width, 1), Matrix(network.first, column * n_in, panel, 1)
        add_products(
            panel, images + first, images + stop, out, Matrix(base, column, 0, 1), one, entries, starts, stops, data.values, weights
        )


@jit()
def train_images(
    data: Data, network: Network, scratch: Scratch, start: int, first: int, stop: int, size: int, activation: int, notebook: bool
) -> None:
    """Images `first` to `stop` of the minibatch at `start`: from the first layer's sums forward, and back to its error."""
    layers, n_layers = network.layers, network.layers.shape[0]
    one = network.first.dtype.type(1)
    add_partial_sums(network, scratch, first, stop)
    if n_layers > 1:
        width = layers[0, OUT_STRIDE]
        activate(activation, scratch.outputs, first * width, stop * width)
    for layer in range(1, n_layers):
        _, _, stride_in, stride, weights, _, bias, source, target = layers[layer]
        out = Matrix(scratch.outputs, target + first * stride, stride, 1)
        below = Matrix(scratch.outputs, source + first * stride_in, stride_in, 1)
        bias_rows, matrix = Matrix(network.bias, bias, 0, 1), Matrix(network.weights, weights, stride, 1)
        product(stop - first, stride, layers[layer, N_IN], out, bias_rows, one, below, matrix)
        if layer < n_layers - 1:
            activate(activation, scratch.outputs, target + first * stride, target + stop * stride)
    softmax_errors(data, network, scratch, start, first, stop, size, notebook)
    for layer in range(n_layers - 1, 0, -1):
        _, n_out, stride_in, stride, _, transposed, _, source, target = layers[layer]
        out = Matrix(scratch.errors, source + first * stride_in, stride_in, 1)
        above = Matrix(scratch.errors, target + first * stride, stride, 1)
        zeros, matrix = Matrix(scratch.zeros, 0, 0, 1), Matrix(network.transposed, transposed, stride_in, 1)
        product(stop - first, stride_in, n_out, out, zeros, one, above, matrix)
        times_slope(activation, scratch.errors, scratch.outputs, source + first * stride_in, source + stop * stride_in)


@jit()
def add_partial_sums(network: Network, scratch: Scratch, first: int, stop: int) -> None:
    """The first layer before its activation: what the groups of pixels add to it."""
    width = network.layers[0, OUT_STRIDE]
    group = scratch.largest.shape[0] * width
    out, part = scratch.outputs[first * width : stop * width], scratch.partial[first * width : stop * width]
    for j in range(out.shape[0]):
        out[j] = part[j]
    for g in range(1, N_GROUPS):
        part = scratch.partial[g * group + first * width : g * group + stop * width]
        for j in range(out.shape[0]):
            out[j] += part[j]


@jit()
def softmax_errors(
    data: Data, network: Network, scratch: Scratch, start: int, first: int, stop: int, size: int, notebook: bool
) -> None:
    """Softmax of the last layer's outputs, what the loss and the accuracy are made of, and the error at the logits."""
    last = network.layers[network.layers.shape[0] - 1]
    one = network.first.dtype.type(1)
    share = one / network.first.dtype.type(size)
    outputs, errors, labels, order = scratch.outputs, scratch.errors, data.labels, data.order
    columns, largest, exp_sums, best = scratch.columns, scratch.largest, scratch.exp_sums, scratch.best
    hits, margins = scratch.hits, scratch.margins
    # Unsigned numbers spare the question whether an index is negative, and let LLVM make vectors of the images.
    n_out, stride, target = np.uint64(last[N_OUT]), np.uint64(last[OUT_STRIDE]), np.uint64(last[OUTPUT])
    begin, end, length, batch = np.uint64(first), np.uint64(stop), np.uint64(largest.shape[0]), np.uint64(start)
    for i in range(begin, end):
        for j in range(n_out):
            columns[j * length + i] = outputs[target + i * stride + j]
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
        label = np.uint64(labels[order[batch + i]])
        hits[i] = best[i] == label
        margins[i] = np.float64(largest[i]) - np.float64(outputs[at + label])
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


@jit()
def update_first_layer(
    data: Data, network: Network, scratch: Scratch, size: int, group: int, share: int, learning_rate: Any
) -> None:
    """A share of a group of pixels: their weights go down the gradient, which is summed in registers and never stored."""
    n_in, width, panel = network.layers[0, N_IN], network.layers[0, OUT_STRIDE], network.panel
    first, stop = data.groups[group, share], data.groups[group, share + 1]
    all_errors = scratch.errors
    for k in range(0, size * panel, 16):
        prefetch(all_errors, k)  # another core has written most of them; they arrive while the lists are made
    list_images(data, scratch, size, group, share)
    entries, starts, stops = scratch.pixel_entries, scratch.pixel_starts, scratch.pixel_stops
    errors = all_errors if width == panel else scratch.panels[group * (data.groups.shape[1] - 1) + share]
    for column in range(0, width, panel):
        if width != panel:
            for i in range(size):
                for j in range(panel):
                    errors[i * panel + j] = all_errors[i * width + column + j]
        weights, rows = Matrix(network.first, column * n_in, panel, 1), Matrix(errors, 0, panel, 1)
        add_products(panel, first, stop, weights, weights, -learning_rate, entries, starts, stops, data.values, rows)


@jit()
def update_other_layers(network: Network, scratch: Scratch, size: int, task: int, n_tasks: int, learning_rate: Any) -> None:
    """A task's share of the weights above the first layer, and of all biases."""
    for layer in range(network.layers.shape[0]):
        n_in, n_out, stride_in, stride, weights, transposed, bias, source, target = network.layers[layer]
        if layer > 0:
            first, stop = n_in * task // n_tasks, n_in * (task + 1) // n_tasks
            rows = Matrix(network.weights, weights + first * stride, stride, 1)
            inputs, error_rows = Matrix(scratch.outputs, source + first, 1, stride_in), Matrix(scratch.errors, target, stride, 1)
            product(stop - first, stride, size, rows, rows, -learning_rate, inputs, error_rows)
            matrix, turned = network.weights, network.transposed
            for k in range(first, stop):
                for j in range(n_out):
                    turned[transposed + j * stride_in + k] = matrix[weights + k * stride + j]
        line = CACHE_LINE // network.bias.itemsize
        n_lines = -(-stride // line)  # two cores that write to one line wait for each other
        first, stop = n_lines * task // n_tasks * line, min(n_lines * (task + 1) // n_tasks * line, stride)
        biases, gradient, errors = network.bias, scratch.bias_gradient, scratch.errors
        begin, end, errors_at = np.uint64(bias + first), np.uint64(bias + stop), np.uint64(target + first)
        for j in range(begin, end):
            gradient[j] = 0
        for i in range(np.uint64(size)):
            row = errors_at + i * np.uint64(stride) - begin
            for j in range(begin, end):
                gradient[j] += errors[row + j]
        for j in range(begin, end):
            biases[j] -= learning_rate * gradient[j]


@jit(reassociate=False)  # else the small logarithm is added to a margin that may be huge, and lost
def sum_losses(scratch: Scratch, size: int) -> tuple[float, float]:
    """Sum of the losses of a minibatch, and the number of right answers."""
    loss = hits = 0.0
    for i in range(size):
        loss += scratch.margins[i] + np.log(scratch.exp_sums[i])
        hits += scratch.hits[i]
    return loss, hits


@jit()
def run_task(
    region: int,
    task: int,
    n_tasks: int,
    data: Data,
    network: Network,
    scratch: Scratch,
    start: int,
    size: int,
    learning_rate: Any,
    activation: int,
    notebook: bool,
) -> None:
    """One task of one of the `N_REGIONS` parallel regions of the minibatch of `size` images at `start`."""
    n_shares = n_tasks // N_GROUPS
    group, share = task // n_shares, task % n_shares
    if region == 0:
        first_layer(data, network, scratch, start, group, size * share // n_shares, size * (share + 1) // n_shares)
    elif region == 1:
        first, stop = size * task // n_tasks, size * (task + 1) // n_tasks
        train_images(data, network, scratch, start, first, stop, size, activation, notebook)
    else:
        update_first_layer(data, network, scratch, size, group, share, learning_rate)
        update_other_layers(network, scratch, size, task, n_tasks, learning_rate)


@ParallelKernel
def train_epoch(
    data: Data,
    network: Network,
    scratch: Scratch,
    batch_size: int,
    learning_rate: Any,
    activation: int,
    notebook: bool,
    losses: Any,
    hits: Any,
) -> None:
    """Train on every minibatch of ``data.order``; `network` is changed, `losses` and `hits` are filled."""
    n, n_tasks = data.order.shape[0], N_GROUPS * (data.groups.shape[1] - 1)
    for batch in range(losses.shape[0]):
        start = batch * batch_size
        size = min(batch_size, n - start)
        for region in range(N_REGIONS):  # one loop over the tasks in place of three: each takes seconds to compile
            for task in prange(n_tasks):
                run_task(region, task, n_tasks, data, network, scratch, start, size, learning_rate, activation, notebook)
        losses[batch], hits[batch] = sum_losses(scratch, size)
