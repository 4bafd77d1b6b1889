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
    N_GROUPS,
    N_IN,
    N_OUT,
    OUT_STRIDE,
    OUTPUT,
    PADDING,
    UNROLL,
    Data,
    Network,
    Scratch,
)
from mlp_accel.backends.jit.product import Matrix, product
from mlp_accel.backends.jit.simd import CHUNK, HAS_COMPRESS, compress, prefetch, sparse_tile

PREFETCH_AHEAD = 4
"""Images; they lie anywhere in memory, and one costs more to fetch than to compute with."""

ROW = np.uint32(0xFFFF)
"""Mask of the part of an entry that is a number of a row."""


@jit()
def list_pixels(data: Data, scratch: Scratch, n_in: int, start: int, group: int, first: int, stop: int) -> None:
    """Of each image from `first` on list the pixels of a group that are not zero; behind each list are `UNROLL` zeros."""
    pixels, order, entries = data.pixels, data.order, scratch.image_entries
    stops, chunk_starts, batch_size = scratch.image_stops, scratch.chunk_starts, scratch.chunk_starts.shape[0]
    begin, end = data.groups[group, 0], data.groups[group, data.groups.shape[1] - 1]
    for i in range(first, stop):
        ahead = start + i + PREFETCH_AHEAD
        if ahead < order.shape[0]:
            for k in range(begin, end, 64):
                prefetch(pixels, order[ahead] * n_in + k)
        number = group * batch_size + i
        image, at = order[start + i] * n_in, np.uint64(number * (n_in + PADDING))
        for pixel in range(begin, end, CHUNK):
            chunk_starts[i, pixel // CHUNK] = at
            if HAS_COMPRESS and pixel + CHUNK <= n_in:
                at += np.uint64(compress(pixels, image + pixel, entries, at, pixel))
            else:
                for k in range(pixel, min(pixel + CHUNK, n_in)):  # without a branch: nobody could predict it
                    value = np.uint32(pixels[image + k])
                    entries[at] = value << np.uint32(16) | np.uint32(k)
                    at += np.uint64(value != 0)
        stops[number] = at
        for k in range(UNROLL):
            entries[at + np.uint64(k)] = 0


@jit()
def add_products(
    panel: int, first: int, stop: int, out: Matrix, base: Matrix, scale: Any, lists: Matrix, stops: Any, values: Any, matrix: Matrix
) -> None:
    """``out[i] = base[i] + scale * sum(values[v] * matrix[k])`` over the entries ``(v, k)`` of list `i`, for each from `first` on.

    List `i` is row `i` of `lists`, up to ``stops[i]``. As many sums run side by side as keep the multipliers busy.
    """
    vectors = panel * out.array.itemsize // VECTOR_BYTES
    x, y, z, entries = out.array, base.array, matrix.array, lists.array
    for i in range(first, stop):
        start = lists.at + i * lists.row
        n = stops[i] - start
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
    list_pixels(data, scratch, n_in, start, group, first, stop)
    images = group * scratch.chunk_starts.shape[0]
    lists = Matrix(scratch.image_entries, 0, n_in + PADDING, 1)
    zeros, one = Matrix(scratch.zeros, 0, 0, 1), network.first.dtype.type(1)
    for column in range(0, width, panel):
        out, weights = Matrix(scratch.partial, column, width, 1), Matrix(network.first, column * n_in, panel, 1)
        add_products(panel, images + first, images + stop, out, zeros, one, lists, scratch.image_stops, data.values, weights)


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
    """The first layer before its activation: what the groups add to it, and its bias."""
    width, bias, partial, outputs = network.layers[0, OUT_STRIDE], network.bias, scratch.partial, scratch.outputs
    group = scratch.chunk_starts.shape[0] * width
    for i in range(first, stop):
        for j in range(width):
            total = bias[j]
            for g in range(N_GROUPS):
                total += partial[g * group + i * width + j]
            outputs[i * width + j] = total


@jit()
def softmax_errors(
    data: Data, network: Network, scratch: Scratch, start: int, first: int, stop: int, size: int, notebook: bool
) -> None:
    """Softmax of the last layer's outputs, what the loss and the accuracy are made of, and the error at the logits."""
    last = network.layers[network.layers.shape[0] - 1]
    n_out, stride, target = last[N_OUT], last[OUT_STRIDE], last[OUTPUT]
    zero, one = network.first.dtype.type(0), network.first.dtype.type(1)
    share = one / network.first.dtype.type(size)
    outputs, errors, labels, order = scratch.outputs, scratch.errors, data.labels, data.order
    hits, margins, exp_sums = scratch.hits, scratch.margins, scratch.exp_sums
    for i in range(first, stop):
        at, label = target + i * stride, labels[order[start + i]]
        largest = outputs[at]
        for j in range(at + 1, at + n_out):
            largest = outputs[j] if outputs[j] > largest else largest
        exp_sum = zero
        for j in range(at, at + stride):
            errors[j] = exp(outputs[j] - largest)
            exp_sum += errors[j]
        best = at
        while outputs[best] < largest:
            best += 1
        hits[i] = best == at + label
        margins[i] = np.float64(largest) - np.float64(outputs[at + label])
        exp_sums[i] = exp_sum
        if notebook:
            for j in range(at, at + stride):
                p = errors[j] / exp_sum
                errors[j] = (p - (one if j == at + label else zero)) * p * (one - p)
        else:
            factor = share / exp_sum
            for j in range(at, at + stride):
                errors[j] *= factor
            errors[at + label] -= share


@jit()
def list_images(scratch: Scratch, size: int, group: int, first: int, stop: int, capacity: int) -> None:
    """Turn the lists of pixels around: of each pixel from `first` to `stop` list the images in which it is not zero."""
    stops, pixel_entries, image_entries = scratch.pixel_stops, scratch.pixel_entries, scratch.image_entries
    chunk_starts, image_stops = scratch.chunk_starts, scratch.image_stops
    images = group * chunk_starts.shape[0]
    for pixel in range(first, stop):
        stops[pixel] = pixel * capacity
    for image in range(size):
        # Unsigned numbers spare the question whether an index is negative.
        at = np.uint64(chunk_starts[image, first // CHUNK])
        end = np.uint64(image_stops[images + image])
        number = np.uint32(image)
        while at < end and np.int64(image_entries[at] & ROW) < first:
            at += np.uint64(1)
        while at < end:
            entry = image_entries[at]
            pixel_number = np.uint64(entry & ROW)
            if np.int64(pixel_number) >= stop:
                break
            slot = np.uint64(stops[pixel_number])
            pixel_entries[slot] = entry & ~ROW | number
            stops[pixel_number] = slot + np.uint64(1)
            at += np.uint64(1)
    for pixel in range(first, stop):
        for k in range(UNROLL):
            pixel_entries[stops[pixel] + k] = 0


@jit()
def update_first_layer(
    data: Data, network: Network, scratch: Scratch, size: int, group: int, share: int, learning_rate: Any
) -> None:
    """A share of a group of pixels: their weights go down the gradient, which is summed in registers and never stored."""
    n_in, width, panel = network.layers[0, N_IN], network.layers[0, OUT_STRIDE], network.panel
    first, stop = data.groups[group, share], data.groups[group, share + 1]
    capacity = scratch.pixel_entries.shape[0] // n_in
    list_images(scratch, size, group, first, stop, capacity)
    lists = Matrix(scratch.pixel_entries, 0, capacity, 1)
    all_errors = scratch.errors
    errors = all_errors if width == panel else scratch.panels[group * (data.groups.shape[1] - 1) + share]
    for column in range(0, width, panel):
        if width != panel:
            for i in range(size):
                for j in range(panel):
                    errors[i * panel + j] = all_errors[i * width + column + j]
        weights, rows = Matrix(network.first, column * n_in, panel, 1), Matrix(errors, 0, panel, 1)
        add_products(panel, first, stop, weights, weights, -learning_rate, lists, scratch.pixel_stops, data.values, rows)


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
        first, stop = n_out * task // n_tasks, n_out * (task + 1) // n_tasks
        biases, gradient, errors = network.bias, scratch.bias_gradient, scratch.errors
        for j in range(first, stop):
            gradient[bias + j] = 0
        for i in range(size):
            for j in range(first, stop):
                gradient[bias + j] += errors[target + i * stride + j]
        for j in range(first, stop):
            biases[bias + j] -= learning_rate * gradient[bias + j]


@jit(reassociate=False)  # else the small logarithm is added to a margin that may be huge, and lost
def sum_losses(scratch: Scratch, size: int) -> tuple[float, float]:
    """Sum of the losses of a minibatch, and the number of right answers."""
    loss = hits = 0.0
    for i in range(size):
        loss += scratch.margins[i] + np.log(scratch.exp_sums[i])
        hits += scratch.hits[i]
    return loss, hits


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
    n, n_shares = data.order.shape[0], data.groups.shape[1] - 1
    n_tasks = N_GROUPS * n_shares
    for batch in range(losses.shape[0]):
        start = batch * batch_size
        size = min(batch_size, n - start)
        for task in prange(n_tasks):
            group, share = task // n_shares, task % n_shares
            first_layer(data, network, scratch, start, group, size * share // n_shares, size * (share + 1) // n_shares)
        for task in prange(n_tasks):
            first, stop = size * task // n_tasks, size * (task + 1) // n_tasks
            train_images(data, network, scratch, start, first, stop, size, activation, notebook)
        for task in prange(n_tasks):
            update_first_layer(data, network, scratch, size, task // n_shares, task % n_shares, learning_rate)
            update_other_layers(network, scratch, size, task, n_tasks, learning_rate)
        losses[batch], hits[batch] = sum_losses(scratch, size)
