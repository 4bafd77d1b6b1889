"""The NumPy backend: BLAS for the products, ufuncs in place for the rest."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

from mlp_accel.activations import Activation
from mlp_accel.backends.base import GRADIENTS, Array, Backend
from mlp_accel.backends.numpy.elementwise import numpy_function
from mlp_accel.errors import check_choice
from mlp_accel.optimizers import Rule


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

    def scalar_rows(self, table: npt.NDArray[np.float64]) -> Any:
        return table.tolist()  # numbers of Python, which take the dtype of the array they meet

    def join(self, values: Sequence[Any]) -> Array:
        return np.array(values, np.float64)

    def minibatch(self, x: Array, y: Array, rows: Array) -> tuple[Array, Array]:
        if x.shape[0] != y.shape[0]:
            raise ValueError(f"y must hold one label for each row of x; got shapes {y.shape} and {x.shape}")
        labels = y[rows]  # checks the range of the rows, as "wrap" does not; any other mode would copy once more
        gathered = np.take(x, rows, axis=0, out=self.empty((len(rows), *x.shape[1:]), x.dtype.type), mode="wrap")
        if x.dtype != np.uint8:
            return gathered, labels
        result = self.empty(gathered.shape)
        np.copyto(result, gathered)
        return np.multiply(result, 1.0 / 255.0, out=result), labels

    def dense(self, x: Array, weights: Array, bias: Array, activation: Activation | None = None) -> tuple[Array, Array]:
        z = np.matmul(x, weights, out=self.empty((x.shape[0], weights.shape[1])))
        z += bias
        if activation is None:
            return z, z
        (output,) = numpy_function(activation.value, (None if activation.of_input else "a0",))(z, self.empty)
        return output, z

    def classify(self, logits: Array, y: Array, gradient: str) -> tuple[Array, Any, Any]:
        n, n_classes = logits.shape
        logits = np.ascontiguousarray(logits)
        flat, rows = logits.reshape(-1), _row_starts(n, n_classes)  # one index for each label is half the work of two
        of_label, best = rows + y % n_classes, logits.argmax(axis=1)  # whatever a label is, it stays in its row
        hits = np.count_nonzero(best == y)
        largest = flat[rows + best]
        # The difference of two large float32 may overflow, so it is taken in float64.
        losses = np.subtract(largest, flat[of_label], dtype=np.float64)
        logits -= largest[:, None]  # beyond the range is -inf, whose exponential is 0 as it should be
        p = np.exp(logits, out=logits)
        exp_sums = p @ _ones(n_classes, p.dtype.char)
        losses += np.log(exp_sums)
        if check_choice("gradient", gradient, GRADIENTS) == "notebook":
            p /= exp_sums[:, None]
            slope = p * (1 - p)
            flat[of_label] -= 1
            p *= slope
        else:
            exp_sums *= n
            p /= exp_sums[:, None]
            flat[of_label] -= 1 / n
        return p, np.add.reduce(losses), hits

    def hidden_delta(self, delta: Array, weights: Array, kept: Array, activation: Activation) -> Array:
        error = np.matmul(delta, weights.T, out=self.empty(kept.shape))
        return numpy_function(activation.times_slope, ("a0",))(error, kept, self.empty)[0]

    def update(
        self, params: tuple[Array, Array], slots: list[tuple[Array, Array]], x: Array, delta: Array, rule: Rule, scalars: Any
    ) -> tuple[tuple[Array, Array], list[tuple[Array, Array]]]:
        weights, bias = params
        if rule.rate_column is not None:  # p - u * g: the factor goes into the error, which is small
            delta *= scalars[rule.rate_column]
            weights -= np.matmul(x.T, delta, out=self.empty(weights.shape))
            bias -= _ones(len(delta), delta.dtype.char) @ delta
            return params, slots
        function = _rule_function(rule)
        grad = np.matmul(x.T, delta, out=self.empty(weights.shape))
        function(weights, grad, *(pair[0] for pair in slots), *scalars, self.empty)
        function(bias, _ones(len(delta), delta.dtype.char) @ delta, *(pair[1] for pair in slots), *scalars, self.empty)
        return params, slots


@functools.lru_cache(maxsize=64)
def _rule_function(rule: Rule) -> Any:
    """Writes a parameter and its slots over with what the rule makes of them; the gradient is lost."""
    parameter, grad, *slots = rule.record.elements
    return numpy_function(rule.record, (parameter, *slots), (grad,))


@functools.lru_cache(maxsize=32)  # a training run needs two of them
def _row_starts(n: int, width: int) -> npt.NDArray[np.int64]:
    """Where each of `n` rows begins in memory."""
    starts = np.arange(0, n * width, width)
    starts.flags.writeable = False
    return starts


@functools.lru_cache(maxsize=32)
def _ones(n: int, dtype: str) -> npt.NDArray[Any]:
    """A product with ones is the sum along an axis in half the time, or less, that NumPy's own sum takes."""
    ones = np.ones(n, dtype)
    ones.flags.writeable = False
    return ones
