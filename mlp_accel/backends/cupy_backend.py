"""The CuPy backend: cuBLAS for the products and own kernels for the rest, on an NVIDIA GPU; whole epochs by `cupy_paths`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends import cupy_probe
from mlp_accel.backends.base import ACTIVATIONS, GRADIENTS, Array, Backend, Params, Step
from mlp_accel.backends.cuda import ceil_div, ops
from mlp_accel.backends.cupy_device import Device
from mlp_accel.backends.cupy_paths import PathChooser, PathSettings
from mlp_accel.errors import check_choice
from mlp_accel.workspace import Workspace

ELEMENTWISE = ("identity", *ACTIVATIONS)
CODES = {"tanh": 0, "relu": 1, "sigmoid": 2, "identity": 3}
"""Of the activations in the kernels."""


class CupyBackend(Backend):
    """Arrays live on one CUDA device; ops return before they are done, `synchronize` waits.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Of parameters, activations and gradients.
    device : int, optional
        Which GPU; by default the current one of CuPy.
    settings : PathSettings, optional
        How to train an epoch, and whether float32 products may round to TF32; by default as the environment says.
    """

    name = "cupy"

    def __init__(self, dtype: str = "float32", device: int | None = None, settings: PathSettings | None = None) -> None:
        super().__init__(dtype)
        self.xp: Any = importlib.import_module("cupy")
        self.settings = settings or PathSettings.from_environment()
        self.gpu = Device(self.xp, device, tf32=self.settings.tf32)
        self.device = f"cuda:{self.gpu.index} {self.gpu.name}"
        self._paths = PathChooser(self)
        self._kernel = cache(self._load_kernel)

    @classmethod
    def probe(cls, device: int | None = None) -> None:
        cupy_probe.probe(device)

    @property
    def epoch_path(self) -> str:
        return self._paths.report

    def versions(self) -> dict[str, str]:
        runtime = self.xp.cuda.runtime
        return {
            "cupy": self.xp.__version__,
            "cuda_runtime": str(runtime.runtimeGetVersion()),
            "cuda_driver": str(runtime.driverGetVersion()),
            "gpu": self.device,
            "tf32": "on" if self.settings.tf32 else "off",
        }

    # Moving data --------------------------------------------------------------------------------------------------------------

    def asarray(self, array: Any) -> Array:
        with self.gpu:
            return super().asarray(array)

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        with self.gpu:
            host: npt.NDArray[Any] = self.xp.asnumpy(array)
            return host

    def synchronize(self) -> None:
        with self.gpu:
            self.xp.cuda.get_current_stream().synchronize()

    def empty(self, shape: tuple[int, ...]) -> Array:
        with self.gpu:
            return super().empty(shape)

    def copy(self, array: Array) -> Array:
        with self.gpu:
            return super().copy(array)

    def check_input(self, x: Array, n_in: int) -> None:
        self.gpu.need(x, what="x")
        super().check_input(x, n_in)

    # Ops ----------------------------------------------------------------------------------------------------------------------

    def scale_pixels(self, x: Array, out: Array | None = None) -> Array:
        self.gpu.need(x, what="x")
        if x.dtype != np.uint8:
            return x
        result = self._result(out, x.shape)
        self._launch("scale_pixels", x.size, self.gpu.contiguous(x), result, np.int64(x.size))
        return result

    def minibatch(self, x: Array, y: Array, rows: Array, out: Array | None = None) -> tuple[Array, Array]:
        for array, what in ((x, "x"), (y, "y"), (rows, "rows")):
            self.gpu.need(array, what=what)
        with self.gpu:
            labels = self.xp.take(y, rows, axis=0)
            if x.dtype != np.uint8:
                return self.xp.take(x, rows, axis=0), labels
            rows = self.gpu.contiguous(rows.astype(np.int64, copy=False))
        result = self._result(out, (rows.shape[0], x.shape[1]))
        arrays = (self.gpu.contiguous(x), rows, result)
        self._launch("gather_pixels", result.size, *arrays, np.int32(x.shape[1]), np.int64(result.size))
        return result, labels

    def dense(self, x: Array, weights: Array, bias: Array, activation: str = "identity", out: Array | None = None) -> Array:
        check_choice("activation", activation, ELEMENTWISE)
        x, weights, bias = self._real(x=x, weights=weights, bias=bias)
        _need(x.shape[1:] == weights.shape[:1] and bias.shape == weights.shape[1:], "a layer does not fit", x, weights, bias)
        z = self.gpu.matmul(x, weights, self._result(out, (x.shape[0], weights.shape[1])))
        self._launch("add_bias", z.size, z, bias, np.int32(CODES[activation]), np.int32(z.shape[1]), np.int64(z.size))
        return z

    def softmax(self, logits: Array, out: Array | None = None) -> Array:
        (logits,) = self._real(logits=logits)
        result = self._result(out, logits.shape)
        rows, width = logits.shape
        self._launch("softmax", 32 * rows, logits, result, np.int32(width), np.int32(rows))
        return result

    def cross_entropy(self, y: Array, y_hat: Array) -> Any:
        return self._sum_rows("cross_entropy", y, y_hat)

    def cross_entropy_from_logits(self, y: Array, logits: Array) -> Any:
        return self._sum_rows("cross_entropy_from_logits", y, logits)

    def correct(self, y: Array, scores: Array) -> Any:
        return self._sum_rows("correct", y, scores)

    def output_delta(self, y: Array, y_hat: Array, gradient: str, out: Array | None = None) -> Array:
        notebook = check_choice("gradient", gradient, GRADIENTS) == "notebook"
        y, y_hat = self._labels_and_scores(y, y_hat)
        result = self._result(out, y_hat.shape)
        rows, width = y_hat.shape
        sizes = (np.int32(notebook), np.int32(width), np.int32(rows))
        self._launch("output_delta", y_hat.size, y, y_hat, result, *sizes, label_dtype=y.dtype.name)
        return result

    def hidden_delta(self, delta: Array, weights: Array, activations: Array, activation: str, out: Array | None = None) -> Array:
        check_choice("activation", activation, ACTIVATIONS)
        delta, weights, activations = self._real(delta=delta, weights=weights, activations=activations)
        fits = delta.shape == (activations.shape[0], weights.shape[1]) and weights.shape[0] == activations.shape[1]
        _need(fits, "errors, weights and activations do not fit", delta, weights, activations)
        error = self.gpu.matmul(delta, weights.T, self._result(out, activations.shape))
        self._launch("multiply_slope", error.size, error, activations, np.int32(CODES[activation]), np.int64(error.size))
        return error

    def dense_gradient(self, x: Array, delta: Array, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
        x, delta = self._real(x=x, delta=delta)
        _need(x.shape[:1] == delta.shape[:1], "inputs and errors do not fit", x, delta)
        weights, bias = out if out is not None else (None, None)
        weights = self.gpu.matmul(x.T, delta, self._result(weights, (x.shape[1], delta.shape[1])))
        with self.gpu:
            return weights, self.xp.sum(delta, axis=0, out=bias)

    def sgd_update(self, parameter: Array, grad: Array, learning_rate: float, out: Array | None = None) -> Array:
        parameter, grad = self._real(parameter=parameter, grad=grad)
        _need(parameter.shape == grad.shape, "parameter and gradient do not fit", parameter, grad)
        result = self._result(out, parameter.shape)
        rate = np.dtype(self.dtype).type(learning_rate)
        self._launch("sgd_update", parameter.size, parameter, grad, result, rate, np.int64(parameter.size))
        return result

    # Whole epochs -------------------------------------------------------------------------------------------------------------

    def train_epoch(
        self, step: Step, params: Params, x: Array, y: Array, order: Array, batch_size: int, workspace: Workspace
    ) -> tuple[Params, Array, Array]:
        with self.gpu.training_stream():
            return self._paths.train(step, params, x, y, order, batch_size, workspace)

    def train_epoch_of_each(
        self, steps: Sequence[Step], params: Params, x: Array, y: Array, orders: Array, batch_size: int, workspace: Workspace
    ) -> tuple[Params, Array, Array]:
        with self.gpu.training_stream():
            return self._paths.train_each(steps, params, x, y, orders, batch_size, workspace)

    # Helpers ------------------------------------------------------------------------------------------------------------------

    def _result(self, out: Array | None, shape: tuple[int, ...]) -> Array:
        """Where a kernel writes: `out` if it is memory that kernels can write to."""
        if out is None:
            return self.empty(shape)
        self.gpu.need(out, what="out")
        if out.shape != shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError(f"out must be contiguous {self.dtype} of shape {shape}; got {out.dtype} of shape {out.shape}")
        return out

    def _real(self, **arrays: Array) -> list[Array]:
        """Arrays of the backend's dtype as the kernels read them."""
        for what, array in arrays.items():
            self.gpu.need(array, what=what)
            if array.dtype != self.dtype:
                raise TypeError(f"{what} must be {self.dtype}; got {array.dtype}. backend.asarray({what}) converts it")
        return [self.gpu.contiguous(array) for array in arrays.values()]

    def _labels_and_scores(self, y: Array, scores: Array) -> tuple[Array, Array]:
        self.gpu.need(y, what="y")
        _need(scores.ndim == 2 and y.shape == scores.shape[:1], "y must hold one label for each row", y, scores)
        if y.dtype.name not in ops.LABEL:
            raise TypeError(f"y must be integer labels; got {y.dtype}")
        (scores,) = self._real(scores=scores)
        return self.gpu.contiguous(y), scores

    def _sum_rows(self, kernel: str, y: Array, scores: Array) -> Any:
        y, scores = self._labels_and_scores(y, scores)
        with self.gpu:
            total = self.xp.empty((), np.float64)
        rows, width = scores.shape
        self._launch(kernel, 1, y, scores, total, np.int32(width), np.int32(rows), label_dtype=y.dtype.name)
        return total

    def _launch(self, kernel: str, threads: int, *arguments: Any, label_dtype: str = "int64") -> None:
        if threads == 0:
            return
        blocks = ceil_div(threads, ops.THREADS)
        shared = ops.SHARED_BYTES if kernel in ops.ROWS else 0
        with self.gpu:
            self._kernel(kernel, label_dtype)((blocks,), (ops.THREADS,), arguments, shared_mem=shared)

    def _load_kernel(self, name: str, label_dtype: str) -> Any:
        return self.gpu.module(ops.ops_source(), ops.options(self.dtype, label_dtype)).get_function(name)


def _need(fits: bool, problem: str, *arrays: Array) -> None:
    """Raise ValueError unless the shapes fit: the kernels do not check the bounds of what they read and write."""
    if not fits:
        raise ValueError(f"{problem}: shapes {', '.join(str(array.shape) for array in arrays)}")
