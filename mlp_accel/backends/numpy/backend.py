"""The NumPy backend: matrix products by BLAS, everything else by ufuncs that work in place."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

from mlp_accel.activations import Activation
from mlp_accel.backends.arrays import Array
from mlp_accel.backends.base import GRADIENTS, Backend
from mlp_accel.backends.numpy.elementwise import numpy_function
from mlp_accel.backends.pace import Pace
from mlp_accel.backends.paths import Task
from mlp_accel.errors import check_choice
from mlp_accel.optimizers import Rule

SMALL_PRODUCT = 10_000_000
"""Operations of the largest product of a step below which a second thread makes it at most 15 % faster, and often slower."""


@functools.cache
def _blas() -> Any:
    """The BLAS libraries of this process."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


class NumpyBackend(Backend):
    """Runs wherever this package does."""

    name = "numpy"
    xp: Any = np

    @contextmanager
    def limit_threads(self, count: int) -> Iterator[None]:
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            yield

    @contextmanager
    def step_threads(self, task: Task) -> Iterator[Pace]:
        """One thread for small products: others would save little, and cost much where other processes keep the cores busy.

        The shape alone decides, because BLAS gives other bits with another number of threads.
        """
        widest = max(n_in * n_out for n_in, n_out in pairwise(task.layer_sizes))
        limits = _blas().limit(limits=1) if 2 * task.batch_size * widest < SMALL_PRODUCT else nullcontext()
        with limits:
            yield Pace()

    def versions(self) -> dict[str, str]:
        blas = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
        names = {f"{library['internal_api']} {library['version']} ({library.get('architecture')})" for library in blas}
        return {"numpy": np.__version__, "blas": ", ".join(sorted(names)) or "unknown"}

    def scalar_rows(self, table: npt.NDArray[np.float64]) -> Any:
        return table.tolist()  # Python numbers do not change the dtype of the arrays that they are combined with

    def join(self, values: Sequence[Any]) -> Array:
        return np.array(values, np.float64)

    def minibatch(self, x: Array, y: Array, samples: Array) -> tuple[Array, Array]:
        if x.shape[0] != y.shape[0]:
            raise ValueError(f"y must hold one label for each sample of x; got shapes {y.shape} and {x.shape}")
        labels = y[samples]  # checks the numbers, which np.take by mode="wrap" does not; by another mode it would copy once more
        gathered = np.take(x, samples, axis=0, out=self.empty((len(samples), *x.shape[1:]), x.dtype.type), mode="wrap")
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
        flat, rows = logits.reshape(-1), _row_starts(n, n_classes)  # indexing by one array takes half the time of indexing by two
        of_label, best = (
            rows + y % n_classes,
            logits.argmax(axis=1),
        )  # a label that is no class reads a wrong logit, but one of its own sample
        hits = np.count_nonzero(best == y)
        largest = flat[rows + best]
        # The difference of two large float32 may overflow, so it is taken in float64.
        losses = np.subtract(largest, flat[of_label], dtype=np.float64)
        logits -= largest[:, None]  # a difference out of range is -inf, whose exponential is 0 as it should be
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

    def hidden_delta(self, delta: Array, weights: Array, slope_input: Array, activation: Activation) -> Array:
        result = np.matmul(delta, weights.T, out=self.empty(slope_input.shape))
        return numpy_function(activation.times_slope, ("a0",))(result, slope_input, self.empty)[0]

    def update(
        self, params: tuple[Array, Array], slots: list[tuple[Array, Array]], x: Array, delta: Array, rule: Rule, scalars: Any
    ) -> tuple[tuple[Array, Array], list[tuple[Array, Array]]]:
        weights, bias = params
        if rule.rate_index is not None:  # p - u * g: delta is smaller than the gradient, so it is multiplied by u
            delta *= scalars[rule.rate_index]
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
    """A function that updates a parameter and its slots in place, and uses the memory of the gradient for what it computes."""
    parameter, grad, *slots = rule.record.elements
    return numpy_function(rule.record, (parameter, *slots), (grad,))


@functools.lru_cache(maxsize=32)  # a training run needs two: whole minibatches, and the shorter last one
def _row_starts(n: int, width: int) -> npt.NDArray[np.int64]:
    """The index at which each of `n` rows of that width begins in the flat array."""
    starts = np.arange(0, n * width, width)
    starts.flags.writeable = False
    return starts


@functools.lru_cache(maxsize=32)
def _ones(n: int, dtype: str) -> npt.NDArray[Any]:
    """Ones: a product with them sums along an axis in half the time of NumPy's sum, or less."""
    ones = np.ones(n, dtype)
    ones.flags.writeable = False
    return ones
