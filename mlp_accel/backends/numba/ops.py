"""Kernels of the ops.

Every element of a result is summed by one thread in an order that does not depend on the number of threads, so the results are the
same bits for any number. Work is shared out by rows, never by flat elements: whatever LLVM does to vectorise a row, it does the
same to every row. What works on ``(n, n_classes)`` is not parallel: it takes less time than starting the threads.
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
def gather_pixels(x: Any, rows: Any, scale: Any, out: Any) -> None:
    """``out = x[rows] * scale`` for uint8 `x`."""
    for i in prange(rows.shape[0]):
        image = x[rows[i]]
        for k in range(x.shape[1]):
            out[i, k] = image[k] * scale


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

    They are of the type of `one`, which is 1. `activate` is the address of the activation, or 0.
    """
    inputs, matrix = array_at(x, stop * depth, one), array_at(weights, depth * columns, one)
    biases, result = array_at(bias, columns, one), array_at(sums, stop * columns, one)
    to, below = Matrix(result, first * columns, columns, 1), Matrix(inputs, first * depth, depth, 1)
    product(stop - first, columns, depth, to, Matrix(biases, 0, 0, 1), one, below, Matrix(matrix, 0, columns, 1))
    if activate != 0:
        start = first * columns * result.itemsize
        call(activate, (sums + start, outputs + start, (stop - first) * columns, one))
    return 0


@functools.cache
def address_of_dense_rows(dtype: str) -> int:
    """Where `dense_rows` is, compiled for arrays of this type."""
    i, real = numba.int64, getattr(numba, dtype)
    return int(c_function(dense_rows, i(i, i, i, i, i, i, i, i, i, i, real)).address)


@ParallelKernel
def dense(run: int, x: Any, weights: Any, bias: Any, activate: int, n_tasks: int, sums: Any, outputs: Any) -> None:
    """A layer: `sums`, and `outputs` where `activate` is not 0; `run` is the address of `dense_rows`."""
    rows, depth, columns = x.shape[0], x.shape[1], weights.shape[1]
    for task in prange(n_tasks):
        first, stop = rows * np.int64(task) // n_tasks, rows * np.int64(task + 1) // n_tasks
        arrays = x.ctypes.data, weights.ctypes.data, bias.ctypes.data, sums.ctypes.data, outputs.ctypes.data
        call(run, (first, stop, columns, depth, *arrays, activate, sums.dtype.type(1)))


@jit(math=EXACT_MATH)  # else log(sum) is added to the largest logit, and lost if that is huge
def classify(logits: Any, y: Any, notebook: bool, delta: Any) -> Any:
    """Error at the logits, sum of the losses and number of right answers; a label that is no class is never right."""
    one, share = delta.dtype.type(1), delta.dtype.type(1) / delta.dtype.type(logits.shape[0])
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
        hits += real and best == y[i] and total == total  # of a row with NaN nothing is the largest
        for j in range(logits.shape[1]):
            p = delta[i, j] / total
            error = p - one if j == y[i] else p
            delta[i, j] = error * p * (one - p) if notebook else error * share
    return loss, hits


@ParallelKernel
def hidden_delta(delta: Any, weights: Any, kept: Any, times_slope: int, n_tasks: int, out: Any) -> None:
    """``out = (delta @ weights.T) * slope``; `times_slope` is an address."""
    rows, columns = out.shape
    for task in prange(n_tasks):
        first, stop = rows * np.int64(task) // n_tasks, rows * np.int64(task + 1) // n_tasks
        for i in range(first, stop):
            for k in range(columns):
                error = out.dtype.type(0)
                for j in range(weights.shape[1]):
                    error += delta[i, j] * weights[k, j]
                out[i, k] = error
        start, count = first * columns * out.itemsize, (stop - first) * columns
        call(times_slope, (out.ctypes.data + start, kept.ctypes.data + start, count, out.dtype.type(1)))


@ParallelKernel
def update(
    rule: int,
    x: Any,
    delta: Any,
    zeros: Any,
    scalars: Any,
    slots: Any,
    n_tasks: int,
    weights: Any,
    bias: Any,
    grad: Any,
    bias_grad: Any,
) -> None:
    """Gradients of a layer, and what the rule at an address makes of its parameters and slots.

    `zeros` has a zero for each column; `slots` has the addresses of the slots, of the weights and of the bias.
    """
    size, rows, columns = x.shape[0], x.shape[1], delta.shape[1]
    one = weights.dtype.type(1)
    inputs, errors, result = x.reshape(-1), delta.reshape(-1), grad.reshape(-1)
    for task in prange(n_tasks):
        first, stop = rows * np.int64(task) // n_tasks, rows * np.int64(task + 1) // n_tasks
        to, turned = Matrix(result, first * columns, columns, 1), Matrix(inputs, first, 1, rows)
        product(stop - first, columns, size, to, Matrix(zeros, 0, 0, 1), one, turned, Matrix(errors, 0, columns, 1))
        start, count = first * columns * grad.itemsize, (stop - first) * columns
        places = weights.ctypes.data + start, grad.ctypes.data + start, slots.ctypes.data
        call(rule, (*places, start, scalars.ctypes.data, count, one))
    bias_grad[:] = 0
    for i in range(size):
        for j in range(columns):
            bias_grad[j] += delta[i, j]
    places = bias.ctypes.data, bias_grad.ctypes.data, slots.ctypes.data + slots.strides[0]
    call(rule, (*places, 0, scalars.ctypes.data, columns, one))
