"""The NumPy backend: BLAS for the products, ufuncs in place for the rest."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

from mlp_accel.backends.base import ACTIVATIONS, GRADIENTS, Array, Backend, Params, Step
from mlp_accel.errors import check_choice
from mlp_accel.workspace import Workspace


class _Scratch(threading.local):
    """Memory for intermediate results, kept from step to step: new memory of this size costs a page fault for every 4 KB.

    One array for each shape of a row and dtype, with as many rows as were ever asked for.
    """

    def __init__(self) -> None:
        self._arrays: dict[tuple[Any, ...], npt.NDArray[Any]] = {}

    def get(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Undefined contents, until the next call for rows of the same shape and dtype in this thread."""
        key = (*shape[1:], np.dtype(dtype).char)
        array = self._arrays.get(key)
        if array is None or len(array) < shape[0]:
            array = self._arrays[key] = np.empty(shape, dtype)
        return array[: shape[0]]


class NumpyBackend(Backend):
    """Runs everywhere."""

    name = "numpy"
    xp: Any = np

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(dtype)
        self._scratch = _Scratch()

    @contextmanager
    def limit_threads(self, count: int) -> Iterator[None]:
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            yield

    def versions(self) -> dict[str, str]:
        blas = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
        names = {f"{library['internal_api']} {library['version']} ({library.get('architecture')})" for library in blas}
        return {"numpy": np.__version__, "blas": ", ".join(sorted(names)) or "unknown"}

    def scale_pixels(self, x: Array, out: Array | None = None) -> Array:
        if x.dtype != np.uint8:
            return x
        result = self.empty(x.shape) if out is None else out
        np.copyto(result, x)
        return np.multiply(result, self.float_dtype(1.0 / 255.0), out=result)

    def minibatch(self, x: Array, y: Array, rows: Array, out: Array | None = None) -> tuple[Array, Array]:
        labels = y[rows]  # checks the range of the rows, as "clip" does not; any other mode would copy once more
        to = out if x.dtype != np.uint8 else self._scratch.get((len(rows), *x.shape[1:]), x.dtype)
        return self.scale_pixels(np.take(x, rows, axis=0, out=to, mode="clip"), out), labels

    def dense(self, x: Array, weights: Array, bias: Array, activation: str = "identity", out: Array | None = None) -> Array:
        check_choice("activation", activation, ("identity", *ACTIVATIONS))
        z = np.matmul(x, weights, out=out)
        z += bias
        _activate(z, activation)
        return z

    def softmax(self, logits: Array, out: Array | None = None) -> Array:
        e = np.exp(self._below_largest(logits), out=out)
        e /= np.add.reduce(e, axis=1, keepdims=True)
        return e

    def cross_entropy_from_logits(self, y: Array, logits: Array) -> Any:
        below = self._below_largest(logits)
        of_label = below[_labels(y, logits)]
        exp_sums = np.add.reduce(np.exp(below, out=below), axis=1)
        if np.isfinite(of_label).all():
            return np.log(exp_sums).sum(dtype=np.float64) - of_label.sum(dtype=np.float64)
        with np.errstate(over="ignore"):  # the difference of two large float32: it is taken in float64
            return super().cross_entropy_from_logits(y, logits)

    def _below_largest(self, logits: Array) -> Array:
        """Each logit less the largest of its row; a difference beyond the range is -inf, whose exponential is 0 as it should be."""
        below = self._scratch.get(logits.shape, logits.dtype)
        largest = np.maximum.reduce(logits, axis=1, keepdims=True)
        with np.errstate(over="ignore"):
            return np.subtract(logits, largest, out=below)

    def correct(self, y: Array, scores: Array) -> Any:
        _labels(y, scores)
        return np.float64(np.count_nonzero(scores.argmax(axis=1) == y))

    def output_delta(self, y: Array, y_hat: Array, gradient: str, out: Array | None = None) -> Array:
        notebook = check_choice("gradient", gradient, GRADIENTS) == "notebook"
        error = self.empty(y_hat.shape) if out is None else out
        np.copyto(error, y_hat)
        error[_labels(y, y_hat)] -= 1
        if notebook:
            error *= y_hat
            error *= 1 - y_hat
        else:
            error /= len(y_hat)
        return error

    def hidden_delta(self, delta: Array, weights: Array, activations: Array, activation: str, out: Array | None = None) -> Array:
        check_choice("activation", activation, ACTIVATIONS)
        error = np.matmul(delta, weights.T, out=out)
        error *= _slope(activations, activation)
        return error

    def dense_gradient(self, x: Array, delta: Array, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
        weights, bias = out if out is not None else (None, None)
        return np.matmul(x.T, delta, out=weights), np.sum(delta, axis=0, out=bias)

    def sgd_update(self, parameter: Array, grad: Array, learning_rate: float, out: Array | None = None) -> Array:
        if parameter.shape != grad.shape:
            raise ValueError(f"parameter and gradient do not fit: shapes {parameter.shape}, {grad.shape}")
        change = np.multiply(grad, self.float_dtype(learning_rate), out=self._scratch.get(grad.shape, grad.dtype))
        return np.subtract(parameter, change, out=out)

    def train_epoch(
        self, step: Step, params: Params, x: Array, y: Array, order: Array, batch_size: int, workspace: Workspace
    ) -> tuple[Params, Array, Array]:
        self._epoch_path = "fused loop"
        params = [(weights.copy(), bias.copy()) for weights, bias in params]
        losses, hits = np.empty((2, -(-len(order) // batch_size)))
        with np.errstate(over="ignore", invalid="ignore"):  # the loss shows it
            for batch in range(len(losses)):
                rows = order[batch * batch_size : (batch + 1) * batch_size]
                losses[batch], hits[batch] = self._train(step, params, x, y, rows, workspace.rows(len(rows)))
        return params, losses, hits

    def _train(self, step: Step, params: Params, x: Array, y: Array, rows: Array, workspace: Workspace) -> tuple[Any, Any]:
        """One step, in place: what the ops would compute twice is computed once, and the error carries the learning rate.

        With small minibatches the calls of Python and NumPy take as long as the arithmetic in them.
        """
        a, labels = self.minibatch(x, y, rows, out=workspace.x)
        outputs = [a]
        for (weights, bias), z in zip(params, workspace.outputs, strict=True):
            np.matmul(outputs[-1], weights, out=z)
            z += bias
            if len(outputs) < len(params):
                _activate(z, step.activation)
            outputs.append(z)

        hits = np.count_nonzero(z.argmax(axis=1) == labels)
        z -= np.maximum.reduce(z, axis=1, keepdims=True)
        samples = _first_rows(len(labels))
        of_label = z[samples, labels]
        np.exp(z, out=z)
        exp_sums = np.add.reduce(z, axis=1, keepdims=True)
        loss = np.add.reduce(np.log(exp_sums), axis=None, dtype=np.float64) - np.add.reduce(of_label, dtype=np.float64)

        z /= exp_sums
        if step.gradient == "notebook":
            slope = z * (1 - z)
            slope *= self.float_dtype(step.learning_rate)
            z[samples, labels] -= 1
            z *= slope
        else:
            z[samples, labels] -= 1
            z *= self.float_dtype(step.learning_rate / len(labels))
        change = z
        for layer in reversed(range(len(params))):
            (weights, bias), (grad, _), a, error = params[layer], workspace.grads[layer], outputs[layer], change
            if layer > 0:
                change = np.matmul(error, weights.T, out=workspace.deltas[layer - 1])
            weights -= np.matmul(a.T, error, out=grad)
            bias -= np.add.reduce(error, axis=0)
            if layer > 0:
                change *= _slope(a, step.activation, out=a)
        return loss, hits


def _activate(z: Array, activation: str) -> None:
    """Apply an activation in place."""
    if activation == "tanh":
        np.tanh(z, out=z)
    elif activation == "relu":
        np.maximum(z, 0, out=z)
    elif activation == "sigmoid":
        from scipy.special import expit  # only this activation waits for SciPy's import

        expit(z, out=z)


def _slope(activations: Array, activation: str, out: Array | None = None) -> Array:
    """The derivative of an activation, from what it put out."""
    if activation == "relu":
        return activations > 0
    if activation == "tanh":
        return np.subtract(1, np.multiply(activations, activations, out=out), out=out)
    return np.multiply(activations, 1 - activations, out=out)


def _labels(y: Array, scores: Array) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Row and column of each label that is a class."""
    if y.shape != scores.shape[:1]:
        raise ValueError(f"y must hold one label for each row: shapes {y.shape}, {scores.shape}")
    if y.dtype == np.int64 and np.maximum.reduce(y.view(np.uint64)) < scores.shape[1]:  # a negative number is a huge one
        return _first_rows(len(y)), y
    rows = np.flatnonzero((y >= 0) & (y < scores.shape[1]))
    return rows, y[rows]


@functools.lru_cache(maxsize=32)  # a training run needs two of them
def _first_rows(n: int) -> npt.NDArray[np.int64]:
    rows = np.arange(n)
    rows.flags.writeable = False
    return rows
