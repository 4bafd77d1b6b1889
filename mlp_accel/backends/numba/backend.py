"""The Numba backend: kernels compiled for this CPU, on every core.

Everything else in this folder imports Numba; this module does so when a kernel is first needed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

from mlp_accel.activations import Activation
from mlp_accel.backends.arrays import Array, check_shapes
from mlp_accel.backends.base import GRADIENTS, Backend, Result
from mlp_accel.backends.pace import Pace
from mlp_accel.backends.paths import EpochPath, Task
from mlp_accel.errors import BackendUnavailableError, SettingError, check_choice
from mlp_accel.optimizers import Rule

NO_SLOTS = np.empty((2, 0), np.int64)

SMALL_LAYER = 1_000_000
"""Multiplications of a layer below which a second thread saves less than to start it and to wait for it takes."""


class NumbaBackend(Backend):
    """NumPy arrays, and kernels compiled for this CPU. The results are the same bits for any number of threads."""

    name = "numba"
    path_names = ("sparse", "dense")
    rows_alike = True
    xp: Any = np

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(dtype)
        self._zeros = np.zeros(0, dtype)

    @classmethod
    def probe(cls) -> None:
        fix = "python -m pip install --upgrade numba"
        try:
            backend = cls()
            importlib.import_module("mlp_accel.backends.numba.ops")
        except ModuleNotFoundError as error:
            cause = "not installed" if error.name == "numba" else "broken installation"
            raise BackendUnavailableError(cls.name, cause, str(error), fix) from error
        except Exception as error:  # an import may fail in any way: a NumPy too new, a library that does not load
            raise BackendUnavailableError(cls.name, "broken installation", f"{type(error).__name__}: {error}", fix) from error
        x = np.arange(SMALL_LAYER // 25, dtype=np.float32).reshape(-1, 40) % 7  # large enough for all threads
        weights = np.ones((40, 25), np.float32)
        try:
            result, _ = backend.dense(x, weights, np.zeros(25, np.float32))
        except Exception as error:
            raise BackendUnavailableError(cls.name, "a kernel failed", f"{type(error).__name__}: {error}", fix) from error
        if not np.array_equal(result, x @ weights):
            raise BackendUnavailableError(cls.name, "a kernel failed", "a product has wrong numbers", fix)

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

    @contextmanager
    def step_threads(self, task: Task) -> Iterator[Pace]:
        """All threads, or for a while one alone, where others keep the cores busy; its results are the same bits."""
        pace = Pace(self._n_jobs, self._compiler.numba.set_num_threads)
        try:
            yield pace
        finally:
            pace.close()

    def spread(self, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
        """One thread for each job: kernels release Python's lock, and on one thread a kernel has no barriers to wait at."""
        if self._n_jobs == 1 or len(jobs) == 1:
            return super().spread(jobs)
        only_one = partial(self._compiler.numba.set_num_threads, 1)  # Numba keeps this number for each Python thread
        with ThreadPoolExecutor(self._n_jobs, initializer=only_one) as pool:
            return [result.result() for result in [pool.submit(job) for job in jobs]]

    def versions(self) -> dict[str, str]:
        compiler = self._compiler
        return {
            "numba": compiler.numba.__version__,
            "llvmlite": metadata.version("llvmlite"),
            "numba_threading_layer": compiler.threading_layer(),
            "numba_target": f"{compiler.CPU}, vectors of {compiler.VECTOR_BYTES} bytes",
        }

    @property
    def paths(self) -> Sequence[EpochPath]:
        folder = "mlp_accel.backends.numba.paths"
        sparse, dense = (importlib.import_module(f"{folder}.{name}.path") for name in self.path_names)
        return sparse.SparsePath(self), dense.DensePath(self)

    def asarray(self, array: Any) -> Array:
        result = np.ascontiguousarray(super().asarray(array))
        return (
            result if result.flags.writeable else result.copy()
        )  # Numba would compile every kernel once more for read-only arrays

    def scalar_rows(self, table: npt.NDArray[np.float64]) -> Any:
        return table.astype(self.dtype)

    def join(self, values: Sequence[Any]) -> Array:
        return np.array(values, np.float64)

    def minibatch(self, x: Array, y: Array, samples: Array) -> tuple[Array, Array]:
        check_shapes(x.ndim == 2 and y.shape == x.shape[:1], "y must hold one label for each sample of x", x, y)
        labels = y[samples]  # NumPy checks the numbers here, so the kernel need not
        result = self.empty((samples.shape[0], x.shape[1]))
        if x.dtype != np.uint8:
            return np.take(x, samples, axis=0, out=result, mode="wrap"), labels
        self._ops.gather_pixels(_c(x), _c(samples), self.float_dtype(1.0 / 255.0), result)
        return result, labels

    def dense(self, x: Array, weights: Array, bias: Array, activation: Activation | None = None) -> tuple[Array, Array]:
        check_shapes(
            x.shape[1:] == weights.shape[:1] and bias.shape == weights.shape[1:],
            "x, weights and bias of a layer do not fit",
            x,
            weights,
            bias,
        )
        inputs = self._real(x, weights, bias)
        sums = self.empty((x.shape[0], weights.shape[1]))
        outputs = self.empty(sums.shape) if activation is not None and activation.of_input else sums
        activate = 0 if activation is None else self._generated.activation_addresses(activation, self.dtype).activate
        dense, n_jobs = self._ops.dense, self._n_jobs
        if x.shape[0] * weights.size < SMALL_LAYER:
            dense, n_jobs = dense.serial, 1
        dense(self._ops.address_of_dense_rows(self.dtype), *inputs, activate, n_jobs, sums, outputs)
        return outputs, sums

    def classify(self, logits: Array, y: Array, gradient: str) -> tuple[Array, Any, Any]:
        check_shapes(logits.ndim == 2 and y.shape == logits.shape[:1], "y must hold one label for each sample", y, logits)
        notebook = check_choice("gradient", gradient, GRADIENTS) == "notebook"
        delta = self.empty(logits.shape)
        return delta, *self._ops.classify(*self._real(logits), _c(y), notebook, delta)

    def hidden_delta(self, delta: Array, weights: Array, slope_input: Array, activation: Activation) -> Array:
        fit = delta.shape == (slope_input.shape[0], weights.shape[1]) and weights.shape[0] == slope_input.shape[1]
        check_shapes(fit, "deltas, weights and outputs do not fit", delta, weights, slope_input)
        result = self.empty(slope_input.shape)
        times_slope = self._generated.activation_addresses(activation, self.dtype).times_slope
        self._ops.hidden_delta(*self._real(delta, weights, slope_input), times_slope, self._n_jobs, result)
        return result

    def update(
        self, params: tuple[Array, Array], slots: list[tuple[Array, Array]], x: Array, delta: Array, rule: Rule, scalars: Any
    ) -> tuple[tuple[Array, Array], list[tuple[Array, Array]]]:
        shapes = (x.shape[1], delta.shape[1]), delta.shape[1:]
        fit = x.shape[:1] == delta.shape[:1] and all((w.shape, b.shape) == shapes for w, b in (params, *slots))
        check_shapes(fit and len(slots) == rule.n_slots, "parameters, slots, inputs and deltas do not fit", *params, x, delta)
        weights, bias = self._real(*params)
        pairs = [tuple(self._real(*pair)) for pair in slots]
        addresses = [[weights_slot.ctypes.data for weights_slot, _ in pairs], [bias_slot.ctypes.data for _, bias_slot in pairs]]
        slot_addresses = np.array(addresses, np.int64) if pairs else NO_SLOTS
        zeros = self._zeros
        if zeros.shape[0] < delta.shape[1]:
            zeros = self._zeros = np.zeros(delta.shape[1], self.dtype)
        grad, bias_grad = self.empty(shapes[0]), self.empty(shapes[1])
        inputs = (*self._real(x, delta), zeros, *self._real(scalars), slot_addresses)
        address = self._generated.rule_address(rule, self.dtype)
        self._ops.update(address, *inputs, self._n_jobs, weights, bias, grad, bias_grad)
        return (weights, bias), pairs

    @cached_property
    def _generated(self) -> Any:
        return importlib.import_module("mlp_accel.backends.numba.generated")

    @cached_property
    def _ops(self) -> Any:
        return importlib.import_module("mlp_accel.backends.numba.ops")

    @cached_property
    def _compiler(self) -> Any:
        return importlib.import_module("mlp_accel.backends.numba.compiler")

    @property
    def _n_jobs(self) -> int:
        return int(self._compiler.usable_threads())

    def _real(self, *arrays: Array) -> list[Array]:
        """The arrays in C order and the backend's dtype: the kernels get only their addresses."""
        return [
            a if a.dtype == self.dtype and a.flags.c_contiguous else np.ascontiguousarray(a, dtype=self.dtype)
            for a in map(np.asarray, arrays)
        ]


def _c(array: Array) -> npt.NDArray[Any]:
    """The array in C order: Numba would compile every kernel once more for another."""
    return np.ascontiguousarray(array)
