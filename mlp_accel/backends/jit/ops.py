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

from mlp_accel.backends.jit.addresses import array_at, call
from mlp_accel.backends.jit.compiler import ParallelKernel, c_function, inlined, jit, numba
from mlp_accel.backends.jit.math import RELU, TANH, activate, exp
from mlp_accel.backends.jit.product import Matrix, product


@ParallelKernel
def scale_pixels(x: Any, scale: Any, out: Any) -> None:
    """``out = x * scale`` for uint8 `x`."""
    for i in prange(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] = x[i, k] * scale


@ParallelKernel
def gather_pixels(x: Any, rows: Any, scale: Any, out: Any) -> None:
    """``out = x[rows] * scale`` for uint8 `x`."""
    for i in prange(rows.shape[0]):
        image = x[rows[i]]
        for k in range(x.shape[1]):
            out[i, k] = image[k] * scale


def dense_rows(
    first: int, stop: int, columns: int, depth: int, activation: int, x: int, weights: int, bias: int, out: int, one: Any
) -> int:
    """Rows `first` to `stop` of ``out = activation(x @ weights + bias)``; the arrays are given by their addresses.

    They are of the type of `one`, which is 1.
    """
    inputs, matrix = array_at(x, stop * depth, one), array_at(weights, depth * columns, one)
    biases, result = array_at(bias, columns, one), array_at(out, stop * columns, one)
    to, below = Matrix(result, first * columns, columns, 1), Matrix(inputs, first * depth, depth, 1)
    product(stop - first, columns, depth, to, Matrix(biases, 0, 0, 1), one, below, Matrix(matrix, 0, columns, 1))
    activate(activation, result, first * columns, stop * columns)
    return 0


@functools.cache
def address_of_dense_rows(dtype: str) -> int:
    """Where `dense_rows` is, compiled for arrays of this type."""
    i, real = numba.int64, getattr(numba, dtype)
    return int(c_function(dense_rows, i(i, i, i, i, i, i, i, i, i, real)).address)


@ParallelKernel
def dense(run: int, x: Any, weights: Any, bias: Any, activation: int, n_tasks: int, out: Any) -> None:
    """``out = activation(x @ weights + bias)``; `run` is the address of `dense_rows`."""
    rows, depth, columns = x.shape[0], x.shape[1], weights.shape[1]
    for task in prange(n_tasks):
        first, stop = rows * np.int64(task) // n_tasks, rows * np.int64(task + 1) // n_tasks
        arrays = x.ctypes.data, weights.ctypes.data, bias.ctypes.data, out.ctypes.data
        call(run, (first, stop, columns, depth, activation, *arrays, out.dtype.type(1)))


@ParallelKernel
def dense_gradient(x: Any, delta: Any, zeros: Any, n_tasks: int, weights: Any, bias: Any) -> None:
    """``weights = x.T @ delta``, ``bias = delta.sum(axis=0)``; `zeros` has a zero for each column."""
    size, rows, columns = x.shape[0], x.shape[1], delta.shape[1]
    inputs, errors, result = x.reshape(-1), delta.reshape(-1), weights.reshape(-1)
    for task in prange(n_tasks):
        first, stop = rows * task // n_tasks, rows * (task + 1) // n_tasks
        to, turned = Matrix(result, first * columns, columns, 1), Matrix(inputs, first, 1, rows)
        one = weights.dtype.type(1)
        product(stop - first, columns, size, to, Matrix(zeros, 0, 0, 1), one, turned, Matrix(errors, 0, columns, 1))
    bias[:] = 0
    for i in range(size):
        for j in range(columns):
            bias[j] += delta[i, j]


@ParallelKernel
def hidden_delta(delta: Any, weights: Any, activations: Any, activation: int, out: Any) -> None:
    """``out = (delta @ weights.T) * activation'``, the derivative taken from the activations."""
    one, zero = out.dtype.type(1), out.dtype.type(0)
    for i in prange(delta.shape[0]):
        for k in range(weights.shape[0]):
            error = zero
            for j in range(weights.shape[1]):
                error += delta[i, j] * weights[k, j]
            a = activations[i, k]
            if activation == TANH:
                slope = one - a * a
            elif activation == RELU:
                slope = one if a > 0 else zero
            else:
                slope = a * (one - a)
            out[i, k] = error * slope


@inlined
def largest_of(row: Any) -> Any:
    """The largest number of a row; NaN is passed over, and makes the sum of the exponentials NaN."""
    largest = row.dtype.type(-np.inf)
    for j in range(row.shape[0]):
        largest = row[j] if row[j] > largest else largest
    return largest


@jit()
def softmax(logits: Any, out: Any) -> None:
    """Each row of `out` is the softmax of that row of `logits`."""
    for i in range(logits.shape[0]):
        largest = largest_of(logits[i])
        total = out.dtype.type(0)
        for j in range(logits.shape[1]):
            out[i, j] = exp(logits[i, j] - largest)
            total += out[i, j]
        for j in range(logits.shape[1]):
            out[i, j] /= total


@jit()
def cross_entropy(y: Any, y_hat: Any, smallest: Any) -> float:
    """Sum of ``-log y_hat[label]``, clipped; a label that is no class adds nothing."""
    total = 0.0
    for i in range(y_hat.shape[0]):
        if 0 <= y[i] < y_hat.shape[1]:
            p = y_hat[i, y[i]]
            total -= np.log(smallest if p < smallest else p)  # written so that NaN stays NaN
    return total


@jit(reassociate=False)  # else log(sum) is added to the largest logit, and lost if that is huge
def cross_entropy_from_logits(y: Any, logits: Any) -> float:
    """Sum of ``log(sum(exp(logits))) - logits[label]``."""
    total = 0.0
    for i in range(logits.shape[0]):
        largest = largest_of(logits[i])
        exp_sum = logits.dtype.type(0)
        for j in range(logits.shape[1]):
            exp_sum += exp(logits[i, j] - largest)
        of_label = logits[i, y[i]] if 0 <= y[i] < logits.shape[1] else logits.dtype.type(0)
        total += (np.float64(largest) - np.float64(of_label)) + np.float64(np.log(exp_sum))
    return total


@jit()
def correct(y: Any, scores: Any) -> float:
    """Number of rows whose first largest score is that of the label."""
    hits = 0.0
    for i in range(scores.shape[0]):
        hits += scores[i].argmax() == y[i]
    return hits


@jit()
def output_delta(y: Any, y_hat: Any, notebook: bool, out: Any) -> None:
    """``(y_hat - one_hot) / n``, or the notebook's ``(y_hat - one_hot) * y_hat * (1 - y_hat)``."""
    one, zero = out.dtype.type(1), out.dtype.type(0)
    n = out.dtype.type(y_hat.shape[0])
    for i in range(y_hat.shape[0]):
        for j in range(y_hat.shape[1]):
            p = y_hat[i, j]
            error = p - (one if y[i] == j else zero)
            out[i, j] = error * p * (one - p) if notebook else error / n


@ParallelKernel
def sgd_update(parameter: Any, grad: Any, learning_rate: Any, out: Any) -> None:
    """``out = parameter - learning_rate * grad``, row by row."""
    for i in prange(parameter.shape[0]):
        for j in range(parameter.shape[1]):
            out[i, j] = parameter[i, j] - learning_rate * grad[i, j]
