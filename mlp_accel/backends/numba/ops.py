"""Kernels of the ops.

The results are the same bits for any number of threads. Each thread has one job: some rows of a result, which it computes whole.
The order in which the terms of an element are added is fixed when the kernel is compiled, and is the same for all rows, so it does
not matter which job a row belongs to. `classify` runs on one thread: starting others would take longer than its work.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import prange

from mlp_accel.backends.numba.compiler import EXACT_MATH, ParallelKernel, c_function, jit, numba
from mlp_accel.backends.numba.emit.addresses import array_at, call
from mlp_accel.backends.numba.emit.product import Matrix, product
from mlp_accel.backends.numba.emit.vector_math import exp


@ParallelKernel
def gather_pixels(x: Any, samples: Any, scale: Any, out: Any) -> None:
    """``out = x[samples] * scale`` for uint8 `x`."""
    for i in prange(samples.shape[0]):
        pixels = x[samples[i]]
        for k in range(x.shape[1]):
            out[i, k] = pixels[k] * scale


def dense_rows(
    first: int,
    stop: int,
    columns: int,
    depth: int,
    x: int,
    weights: int,
    bias: int,
    sums: int,
    outputs: int,
    activate: int,
    one: Any,
) -> int:
    """Rows `first` to `stop` of ``sums = x @ weights + bias`` and of the outputs; the arrays are given by their addresses.

    Their elements have the type of `one`, which is 1. `activate` is the address of the activation, or 0 for none.
    """
    inputs, matrix = array_at(x, stop * depth, one), array_at(weights, depth * columns, one)
    biases, result = array_at(bias, columns, one), array_at(sums, stop * columns, one)
    out, below = Matrix(result, first * columns, columns, 1), Matrix(inputs, first * depth, depth, 1)
    product(stop - first, columns, depth, out, Matrix(biases, 0, 0, 1), one, below, Matrix(matrix, 0, columns, 1))
    if activate != 0:
        start = first * columns * result.itemsize
        call(activate, (sums + start, outputs + start, (stop - first) * columns, one))
    return 0


@functools.cache
def address_of_dense_rows(dtype: str) -> int:
    """The address of `dense_rows`, compiled for arrays of this type."""
    i, real = numba.int64, getattr(numba, dtype)
    return int(c_function(dense_rows, i(i, i, i, i, i, i, i, i, i, i, real)).address)


@ParallelKernel
def dense(address: int, x: Any, weights: Any, bias: Any, activate: int, n_jobs: int, sums: Any, outputs: Any) -> None:
    """A layer: `sums`, and `outputs` where `activate` is not 0; `address` is that of `dense_rows`."""
    rows, depth, columns = x.shape[0], x.shape[1], weights.shape[1]
    for job in prange(n_jobs):
        first, stop = rows * np.int64(job) // n_jobs, rows * np.int64(job + 1) // n_jobs
        arrays = x.ctypes.data, weights.ctypes.data, bias.ctypes.data, sums.ctypes.data, outputs.ctypes.data
        call(address, (first, stop, columns, depth, *arrays, activate, sums.dtype.type(1)))


@jit(math=EXACT_MATH)  # other rules may add log(sum) to a huge logit first, where its digits are lost
def classify(logits: Any, y: Any, notebook: bool, delta: Any) -> Any:
    """Write the delta at the logits; returns the sum of the losses and the number of hits. A label that is no class is no hit."""
    one, per_sample = delta.dtype.type(1), delta.dtype.type(1) / delta.dtype.type(logits.shape[0])
    loss = hits = 0.0
    for i in range(logits.shape[0]):
        largest, best = logits[i, 0], 0
        for j in range(1, logits.shape[1]):
            if logits[i, j] > largest:
                largest, best = logits[i, j], j
        total = delta.dtype.type(0)
        for j in range(logits.shape[1]):
            delta[i, j] = exp(logits[i, j] - largest)
        for j in range(logits.shape[1]):
            total += delta[i, j]
        real = 0 <= y[i] < logits.shape[1]
        of_label = logits[i, y[i]] if real else delta.dtype.type(0)
        loss += (np.float64(largest) - np.float64(of_label)) + np.float64(np.log(total))
        hits += real and best == y[i] and total == total  # where a logit is NaN, no class is the largest
        for j in range(logits.shape[1]):
            p = delta[i, j] / total
            difference = p - one if j == y[i] else p
            delta[i, j] = difference * p * (one - p) if notebook else difference * per_sample
    return loss, hits


@ParallelKernel
def hidden_delta(delta: Any, weights: Any, slope_input: Any, times_slope: int, n_jobs: int, out: Any) -> None:
    """``out = (delta @ weights.T) * slope``; `times_slope` is the address of the function that multiplies."""
    rows, columns = out.shape
    for job in prange(n_jobs):
        first, stop = rows * np.int64(job) // n_jobs, rows * np.int64(job + 1) // n_jobs
        for i in range(first, stop):
            for k in range(columns):
                total = out.dtype.type(0)
                for j in range(weights.shape[1]):
                    total += delta[i, j] * weights[k, j]
                out[i, k] = total
        start, count = first * columns * out.itemsize, (stop - first) * columns
        call(times_slope, (out.ctypes.data + start, slope_input.ctypes.data + start, count, out.dtype.type(1)))


@ParallelKernel
def update(
    rule: int,
    x: Any,
    delta: Any,
    zeros: Any,
    scalars: Any,
    slots: Any,
    n_jobs: int,
    weights: Any,
    bias: Any,
    grad: Any,
    bias_grad: Any,
) -> None:
    """Compute the gradients of a layer, and update its parameters and slots by the rule, whose address is `rule`.

    `zeros` has a zero for each unit of the layer. `slots` has two rows of addresses: of the slots of the weights, and of the bias.
    """
    size, rows, columns = x.shape[0], x.shape[1], delta.shape[1]
    one = weights.dtype.type(1)
    inputs, deltas, result = x.reshape(-1), delta.reshape(-1), grad.reshape(-1)
    for job in prange(n_jobs):
        first, stop = rows * np.int64(job) // n_jobs, rows * np.int64(job + 1) // n_jobs
        out, transposed = Matrix(result, first * columns, columns, 1), Matrix(inputs, first, 1, rows)
        product(stop - first, columns, size, out, Matrix(zeros, 0, 0, 1), one, transposed, Matrix(deltas, 0, columns, 1))
        start, count = first * columns * grad.itemsize, (stop - first) * columns
        addresses = weights.ctypes.data + start, grad.ctypes.data + start, slots.ctypes.data
        call(rule, (*addresses, start, scalars.ctypes.data, count, one))
    bias_grad[:] = 0
    for i in range(size):
        for j in range(columns):
            bias_grad[j] += delta[i, j]
    addresses = bias.ctypes.data, bias_grad.ctypes.data, slots.ctypes.data + slots.strides[0]
    call(rule, (*addresses, 0, scalars.ctypes.data, columns, one))
