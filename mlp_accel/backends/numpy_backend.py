"""The NumPy backend: BLAS for the products, ufuncs in place for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import threadpoolctl

from mlp_accel.backends.base import ACTIVATIONS, Array, Backend
from mlp_accel.errors import check_choice


class NumpyBackend(Backend):
    """Runs everywhere."""

    name = "numpy"
    xp: Any = np

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
        return np.multiply(x, self.float_dtype(1.0 / 255.0), out=out, dtype=self.float_dtype)

    def minibatch(self, x: Array, y: Array, rows: Array, out: Array | None = None) -> tuple[Array, Array]:
        return self.scale_pixels(x[rows], out), y[rows]

    def dense(self, x: Array, weights: Array, bias: Array, activation: str = "identity", out: Array | None = None) -> Array:
        check_choice("activation", activation, ("identity", *ACTIVATIONS))
        z = np.matmul(x, weights, out=out)
        z += bias
        if activation == "tanh":
            np.tanh(z, out=z)
        elif activation == "relu":
            np.maximum(z, 0, out=z)
        elif activation == "sigmoid":
            from scipy.special import expit  # only this activation waits for SciPy's import

            expit(z, out=z)
        return z

    def softmax(self, logits: Array, out: Array | None = None) -> Array:
        with np.errstate(over="ignore"):  # a difference beyond the range is -inf, and exp(-inf) is the 0 it should be
            e = np.subtract(logits, logits.max(axis=1, keepdims=True), out=out)
        np.exp(e, out=e)
        e /= e.sum(axis=1, keepdims=True)
        return e

    def cross_entropy_from_logits(self, y: Array, logits: Array) -> Any:
        with np.errstate(over="ignore"):
            return super().cross_entropy_from_logits(y, logits)

    def hidden_delta(self, delta: Array, weights: Array, activations: Array, activation: str, out: Array | None = None) -> Array:
        check_choice("activation", activation, ACTIVATIONS)
        error = np.matmul(delta, weights.T, out=out)
        if activation == "relu":
            error *= activations > 0
        else:
            slope = activations * activations
            np.subtract(1 if activation == "tanh" else activations, slope, out=slope)
            error *= slope
        return error

    def dense_gradient(self, x: Array, delta: Array, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
        weights, bias = out if out is not None else (None, None)
        return np.matmul(x.T, delta, out=weights), np.sum(delta, axis=0, out=bias)

    def sgd_update(self, parameter: Array, grad: Array, learning_rate: float, out: Array | None = None) -> Array:
        return np.subtract(parameter, learning_rate * grad, out=out)
