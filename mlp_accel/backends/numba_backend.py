"""The Numba backend: kernels compiled for this CPU, on every core. They are in `jit`, which is imported when first needed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

from mlp_accel.backends.base import ACTIVATIONS, GRADIENTS, Array, Backend, Params, Step
from mlp_accel.errors import BackendUnavailableError, SettingError, check_choice
from mlp_accel.workspace import Workspace

PARALLEL_SIZE = 10_000
"""An elementwise op on fewer elements takes less time than starting the threads."""


class NumbaBackend(Backend):
    """NumPy arrays, and kernels compiled for this CPU. The results are the same bits for any number of threads."""

    name = "numba"
    xp: Any = np

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(dtype)
        self._zeros = np.zeros(0, dtype)

    @classmethod
    def probe(cls) -> None:
        mend = "python -m pip install --upgrade numba"
        try:
            backend = cls()
            importlib.import_module("mlp_accel.backends.jit.ops")
        except ModuleNotFoundError as error:
            cause = "not installed" if error.name == "numba" else "broken installation"
            raise BackendUnavailableError(cls.name, cause, str(error), mend) from error
        except Exception as error:  # an import may fail in any way: a NumPy too new, a library that does not load
            raise BackendUnavailableError(cls.name, "broken installation", f"{type(error).__name__}: {error}", mend) from error
        x, weights = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones((4, 2), np.float32)
        try:
            result = backend.dense(x, weights, np.zeros(2, np.float32))
        except Exception as error:
            raise BackendUnavailableError(cls.name, "a kernel failed", f"{type(error).__name__}: {error}", mend) from error
        if not np.array_equal(result, x @ weights):
            raise BackendUnavailableError(cls.name, "a kernel failed", "a product has wrong numbers", mend)

    @contextmanager
    def limit_threads(self, count: int) -> Iterator[None]:
        numba = self._compiler.numba
        limit = numba.config.NUMBA_NUM_THREADS
        if count > limit:
            source = f"NUMBA_NUM_THREADS={limit}" if "NUMBA_NUM_THREADS" in os.environ else f"this process may use {limit} cores"
            raise SettingError(f"{count} threads are too many for the numba backend: {source}")
        before = numba.get_num_threads()
        numba.set_num_threads(count)
        try:
            with threadpoolctl.threadpool_limits(count, user_api="blas"):
                yield
        finally:
            numba.set_num_threads(before)

    def versions(self) -> dict[str, str]:
        compiler = self._compiler
        return {
            "numba": compiler.numba.__version__,
            "llvmlite": metadata.version("llvmlite"),
            "numba_threading_layer": compiler.threading_layer(),
            "numba_target": f"{compiler.CPU}, vectors of {compiler.VECTOR_BYTES} bytes",
        }

    def asarray(self, array: Any) -> Array:
        return np.ascontiguousarray(super().asarray(array))

    def scale_pixels(self, x: Array, out: Array | None = None) -> Array:
        if x.dtype != np.uint8:
            return x
        result = self._result(out, x.shape)
        self._ops.scale_pixels(_c(x), self._scale, result)
        return result

    def minibatch(self, x: Array, y: Array, rows: Array, out: Array | None = None) -> tuple[Array, Array]:
        if x.dtype != np.uint8:
            return x[rows], y[rows]
        _need(x.ndim == 2 and y.shape == x.shape[:1], "y must hold one label for each row of x", x, y)
        labels = y[rows]  # NumPy checks the range of the rows, for the kernel too
        result = self._result(out, (rows.shape[0], x.shape[1]))
        self._ops.gather_pixels(_c(x), _c(rows), self._scale, result)
        return result, labels

    def dense(self, x: Array, weights: Array, bias: Array, activation: str = "identity", out: Array | None = None) -> Array:
        choices = ("identity", *ACTIVATIONS)
        code = choices.index(check_choice("activation", activation, choices))
        _need(x.shape[1:] == weights.shape[:1] and bias.shape == weights.shape[1:], "a layer does not fit", x, weights, bias)
        result = self._result(out, (x.shape[0], weights.shape[1]))
        if result.dtype != self.dtype or not result.flags.c_contiguous:  # the kernel knows addresses alone
            result = self.empty(result.shape)
        inputs = (np.ascontiguousarray(array, dtype=self.dtype) for array in (x, weights, bias))
        self._ops.dense(self._ops.address_of_dense_rows(self.dtype), *inputs, code, self._n_tasks, result)
        return result

    def softmax(self, logits: Array, out: Array | None = None) -> Array:
        result = self._result(out, logits.shape)
        self._ops.softmax(_c(logits), result)
        return result

    def cross_entropy(self, y: Array, y_hat: Array) -> Any:
        _need_labels(y, y_hat)
        return self._ops.cross_entropy(_c(y), _c(y_hat), np.finfo(y_hat.dtype).smallest_normal)

    def cross_entropy_from_logits(self, y: Array, logits: Array) -> Any:
        _need_labels(y, logits)
        return self._ops.cross_entropy_from_logits(_c(y), _c(logits))

    def correct(self, y: Array, scores: Array) -> Any:
        _need_labels(y, scores)
        return self._ops.correct(_c(y), _c(scores))

    def output_delta(self, y: Array, y_hat: Array, gradient: str, out: Array | None = None) -> Array:
        notebook = check_choice("gradient", gradient, GRADIENTS) == "notebook"
        _need_labels(y, y_hat)
        result = self._result(out, y_hat.shape)
        self._ops.output_delta(_c(y), _c(y_hat), notebook, result)
        return result

    def hidden_delta(self, delta: Array, weights: Array, activations: Array, activation: str, out: Array | None = None) -> Array:
        code = 1 + ACTIVATIONS.index(check_choice("activation", activation, ACTIVATIONS))
        fits = delta.shape == (activations.shape[0], weights.shape[1]) and weights.shape[0] == activations.shape[1]
        _need(fits, "errors, weights and activations do not fit", delta, weights, activations)
        result = self._result(out, activations.shape)
        self._ops.hidden_delta(_c(delta), _c(weights), _c(activations), code, result)
        return result

    def dense_gradient(self, x: Array, delta: Array, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
        _need(x.shape[:1] == delta.shape[:1], "inputs and errors do not fit", x, delta)
        shapes = (x.shape[1], delta.shape[1]), delta.shape[1:]
        weights, bias = out if out is not None else map(self.empty, shapes)
        _need((weights.shape, bias.shape) == shapes, f"out must have the shapes {shapes}", weights, bias)
        zeros = self._zeros
        if zeros.shape[0] < delta.shape[1]:
            zeros = self._zeros = np.zeros(delta.shape[1], self.dtype)
        self._ops.dense_gradient(_c(x), _c(delta), zeros, self._n_tasks, weights, bias)
        return weights, bias

    def sgd_update(self, parameter: Array, grad: Array, learning_rate: float, out: Array | None = None) -> Array:
        _need(parameter.shape == grad.shape, "parameter and gradient do not fit", parameter, grad)
        if parameter.size < PARALLEL_SIZE or parameter.ndim != 2:
            return np.subtract(parameter, learning_rate * grad, out=out)
        result = self._result(out, parameter.shape)
        self._ops.sgd_update(_c(parameter), _c(grad), self.float_dtype(learning_rate), result)
        return result

    def training_images(self, x: Array) -> Any:
        if x.dtype != np.uint8:
            return x
        lists = importlib.import_module("mlp_accel.backends.jit.packing").list_pixels(x)
        return x if lists is None else lists

    def train_epoch(
        self, step: Step, params: Params, x: Array, y: Array, order: Array, batch_size: int, workspace: Workspace
    ) -> tuple[Params, Array, Array]:
        packing = importlib.import_module("mlp_accel.backends.jit.packing")
        if not isinstance(x, packing.PixelLists):
            return super().train_epoch(step, params, x, y, order, batch_size, workspace)
        self._epoch_path = "fused epoch skipping zero pixels"
        result: tuple[Params, Array, Array] = packing.train_epoch(step, params, x, y, order, batch_size, self._n_tasks)
        return result

    @cached_property
    def _ops(self) -> Any:
        return importlib.import_module("mlp_accel.backends.jit.ops")

    @cached_property
    def _compiler(self) -> Any:
        return importlib.import_module("mlp_accel.backends.jit.compiler")

    @property
    def _n_tasks(self) -> int:
        return int(self._compiler.usable_threads())

    @property
    def _scale(self) -> Any:
        return self.float_dtype(1.0 / 255.0)

    def _result(self, out: Array | None, shape: tuple[int, ...]) -> Array:
        if out is None:
            return self.empty(shape)
        if out.shape != shape:  # the kernels would write beyond its end
            raise ValueError(f"out has the shape {out.shape}; the result has {shape}")
        return out


def _c(array: Array) -> npt.NDArray[Any]:
    """The kernels are compiled for C order; another order would compile them once more."""
    return np.ascontiguousarray(array)


def _need(fits: bool, problem: str, *arrays: Array) -> None:
    """Raise ValueError unless the shapes fit: the kernels do not check the bounds of what they read and write."""
    if not fits:
        raise ValueError(f"{problem}: shapes {', '.join(str(array.shape) for array in arrays)}")


def _need_labels(y: Array, scores: Array) -> None:
    _need(scores.ndim == 2 and y.shape == scores.shape[:1], "y must hold one label for each row", y, scores)
