"""Kernels of the Numba backend. Importing this module imports Numba; they compile at first use and are cached on disk.

Every element of a result is summed by one thread in an order that does not depend on the number of threads, so the results are
the same bits for any number. Parallel loops run over rows, never over flat elements: whatever LLVM does to vectorise a row, it
does the same to every row. What works on ``(n, n_classes)`` is not parallel: it takes less time than starting the threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import prange

F = TypeVar("F", bound=Callable[..., Any])

# Not fastmath=True: its nnan and ninf make isnan() lie.
MATH = {"contract", "reassoc", "nsz", "arcp", "afn"}

IDENTITY, TANH, RELU, SIGMOID = 0, 1, 2, 3
UNROLL = 8

logger = logging.getLogger("mlp_accel")


def _cache_on_disk() -> bool:
    """Whether Numba finds a folder that it can write compiled code to."""
    try:
        numba.njit(cache=True)(_cache_on_disk)
    except RuntimeError as error:
        logger.warning("compiling at every start: %s; set NUMBA_CACHE_DIR to a folder that can be written", error)
        return False
    return True


CACHE = _cache_on_disk()


def jit(parallel: bool, reassociate: bool = True) -> Callable[[F], F]:
    """`numba.njit` with this module's options, and with a type; `reassociate` lets LLVM sum in the order that is fastest."""
    fastmath = MATH if reassociate else MATH - {"reassoc"}

    def decorate(function: F) -> F:
        return cast(F, numba.njit(parallel=parallel, fastmath=fastmath, cache=CACHE, error_model="numpy")(function))

    return decorate


@jit(parallel=True)
def scale_pixels(x: Any, scale: Any, out: Any) -> None:
    """``out = x * scale`` for uint8 `x`."""
    for i in prange(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] = x[i, k] * scale


@jit(parallel=True)
def gather_pixels(x: Any, rows: Any, scale: Any, out: Any) -> None:
    """``out = x[rows] * scale`` for uint8 `x`."""
    for i in prange(rows.shape[0]):
        image = x[rows[i]]
        for k in range(x.shape[1]):
            out[i, k] = image[k] * scale


@jit(parallel=False)
def add_product(row: Any, coefficients: Any, matrix: Any) -> None:
    """``row += coefficients @ matrix``, several rows of the matrix at a time: that saves loads and stores of `row`."""
    n = coefficients.shape[0]
    whole = n - n % UNROLL
    for k in range(0, whole, UNROLL):
        c0, c1, c2, c3 = coefficients[k], coefficients[k + 1], coefficients[k + 2], coefficients[k + 3]
        c4, c5, c6, c7 = coefficients[k + 4], coefficients[k + 5], coefficients[k + 6], coefficients[k + 7]
        for j in range(row.shape[0]):
            low = c0 * matrix[k, j] + c1 * matrix[k + 1, j] + c2 * matrix[k + 2, j] + c3 * matrix[k + 3, j]
            high = c4 * matrix[k + 4, j] + c5 * matrix[k + 5, j] + c6 * matrix[k + 6, j] + c7 * matrix[k + 7, j]
            row[j] += low + high
    for k in range(whole, n):
        for j in range(row.shape[0]):
            row[j] += coefficients[k] * matrix[k, j]


@jit(parallel=True)
def dense(x: Any, weights: Any, bias: Any, activation: int, out: Any) -> None:
    """``out = activation(x @ weights + bias)``."""
    one = out.dtype.type(1)
    for i in prange(x.shape[0]):
        row = out[i]
        row[:] = bias
        add_product(row, x[i], weights)
        if activation == TANH:
            for j in range(row.shape[0]):
                row[j] = np.tanh(row[j])
        elif activation == RELU:
            for j in range(row.shape[0]):
                if row[j] < 0:  # written so that NaN stays NaN
                    row[j] = 0
        elif activation == SIGMOID:
            for j in range(row.shape[0]):
                e = np.exp(-abs(row[j]))
                row[j] = (one if row[j] >= 0 else e) / (one + e)


@jit(parallel=True)
def dense_gradient(x: Any, delta: Any, weights: Any, bias: Any) -> None:
    """``weights = x.T @ delta``, ``bias = delta.sum(axis=0)``."""
    for k in prange(x.shape[1]):
        row = weights[k]
        row[:] = 0
        add_product(row, x[:, k], delta)
    bias[:] = 0
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            bias[j] += delta[i, j]


@jit(parallel=True)
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


@jit(parallel=False)
def softmax(logits: Any, out: Any) -> None:
    """Each row of `out` is the softmax of that row of `logits`."""
    for i in range(logits.shape[0]):
        largest = logits[i].max()
        total = out.dtype.type(0)
        for j in range(logits.shape[1]):
            out[i, j] = np.exp(logits[i, j] - largest)
            total += out[i, j]
        for j in range(logits.shape[1]):
            out[i, j] /= total


@jit(parallel=False)
def cross_entropy(y: Any, y_hat: Any, smallest: Any) -> float:
    """Sum of ``-log y_hat[label]``, clipped; a label that is no class adds nothing."""
    total = 0.0
    for i in range(y_hat.shape[0]):
        if 0 <= y[i] < y_hat.shape[1]:
            p = y_hat[i, y[i]]
            total -= np.log(smallest if p < smallest else p)  # written so that NaN stays NaN
    return total


@jit(parallel=False, reassociate=False)  # else log(sum) is added to the largest logit, and lost if that is huge
def cross_entropy_from_logits(y: Any, logits: Any) -> float:
    """Sum of ``log(sum(exp(logits))) - logits[label]``."""
    total = 0.0
    for i in range(logits.shape[0]):
        largest = logits[i].max()
        exp_sum = logits.dtype.type(0)
        for j in range(logits.shape[1]):
            exp_sum += np.exp(logits[i, j] - largest)
        of_label = logits[i, y[i]] if 0 <= y[i] < logits.shape[1] else logits.dtype.type(0)
        total += (np.float64(largest) - np.float64(of_label)) + np.float64(np.log(exp_sum))
    return total


@jit(parallel=False)
def correct(y: Any, scores: Any) -> float:
    """Number of rows whose first largest score is that of the label."""
    hits = 0.0
    for i in range(scores.shape[0]):
        hits += scores[i].argmax() == y[i]
    return hits


@jit(parallel=False)
def output_delta(y: Any, y_hat: Any, notebook: bool, out: Any) -> None:
    """``(y_hat - one_hot) / n``, or the notebook's ``(y_hat - one_hot) * y_hat * (1 - y_hat)``."""
    one, zero = out.dtype.type(1), out.dtype.type(0)
    n = out.dtype.type(y_hat.shape[0])
    for i in range(y_hat.shape[0]):
        for j in range(y_hat.shape[1]):
            p = y_hat[i, j]
            error = p - (one if y[i] == j else zero)
            out[i, j] = error * p * (one - p) if notebook else error / n


@jit(parallel=True)
def sgd_update(parameter: Any, grad: Any, learning_rate: Any, out: Any) -> None:
    """``out = parameter - learning_rate * grad``, row by row."""
    for i in prange(parameter.shape[0]):
        for j in range(parameter.shape[1]):
            out[i, j] = parameter[i, j] - learning_rate * grad[i, j]
