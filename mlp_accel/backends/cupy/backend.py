"""The CuPy backend: matrix products by cuBLAS, everything else by kernels of our own (`ops`), on an NVIDIA GPU."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation
from mlp_accel.backends.arrays import Array, check_shapes
from mlp_accel.backends.base import GRADIENTS, Backend
from mlp_accel.backends.cupy import ops
from mlp_accel.backends.cupy import probe as cupy_probe
from mlp_accel.backends.cupy.device import Device, LaunchClock
from mlp_accel.backends.cupy.paths.base import tf32_asked_for
from mlp_accel.backends.cupy.paths.cluster import ClusterPath, cluster_of
from mlp_accel.backends.cupy.paths.steps import GraphPath, StepPath
from mlp_accel.backends.cupy.source import WARP, ceil_div
from mlp_accel.backends.paths import EpochPath
from mlp_accel.errors import check_choice
from mlp_accel.optimizers import Rule

BASE_OPS = ("scale_pixels", "softmax", "cross_entropy", "correct", "output_delta", "dense_gradient", "apply_rule")
"""The ops that are those of the base class; the constructor makes each of them run on this backend's device."""


OP_BY_OP = "by which an epoch of MNIST should take 95 to 140 ms, and Numba takes 22 to 38 ms on two cores"
"""Of the GPU: counted launches and what each takes the host, not measured. Of Numba: docs/cpu.md."""


class CupyBackend(Backend):
    """Arrays live on one CUDA device; ops return before they are done, `synchronize` waits.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Of parameters, activations and gradients.
    device : int, optional
        Which GPU; by default the current one of CuPy.
    tf32 : bool, optional
        Products may round float32 operands to TF32 (10 bits after the point); by default as ``MLP_ACCEL_TF32`` says.

    Raises
    ------
    SettingError
        If ``MLP_ACCEL_TF32`` is neither 0 nor 1.
    """

    name = "cupy"
    path_names = (ClusterPath.name, GraphPath.name, StepPath.name)
    takes_device = True

    def __init__(self, dtype: str = "float32", device: int | None = None, tf32: bool | None = None) -> None:
        super().__init__(dtype)
        self.xp: Any = importlib.import_module("cupy")
        asked_for = tf32_asked_for()
        self.gpu = Device(self.xp, device, tf32=asked_for if tf32 is None else tf32)
        self.device = f"cuda:{self.gpu.index} {self.gpu.name}"
        self._paths = (ClusterPath(self, self.gpu), GraphPath(self, self.gpu), StepPath(self, self.gpu))
        self._named_path = cache(self._make_path)
        self._kernel = cache(self._load_kernel)
        self._counters: dict[tuple[int, int], Array] = {}
        for op in BASE_OPS:
            setattr(self, op, self.gpu.scoped(getattr(self, op)))

    @classmethod
    def probe(cls, device: int | None = None) -> None:
        cupy_probe.probe(device)

    @classmethod
    def slower_than(cls) -> Mapping[str, str]:
        gpu = Device(importlib.import_module("cupy"), None, tf32=False)
        needed = min(kind.compute_capability for kind in (ClusterPath, GraphPath, StepPath))
        if gpu.capability >= needed:
            return {}
        capability = ".".join(map(str, gpu.capability))
        what = f"compute capability {capability} is too low for any path but the loop, {OP_BY_OP}"
        return {"numba": f"{gpu.name} is predicted to be slower: {what}"}

    @property
    def paths(self) -> Sequence[EpochPath]:
        return self._paths

    def path_named(self, name: str) -> EpochPath | None:
        """One of its paths, or None if it has none of that name.

        Also ``cluster:SIZE``, with clusters of 1, 2, 4, 8 or 16 thread blocks. The paths ``graph`` and ``steps`` by name also train
        steps that are so large that without a name they are left to the loop.
        """
        return self._named_path(name)

    def _make_path(self, name: str) -> EpochPath | None:
        path, colon, size = name.partition(":")
        if path == ClusterPath.name:
            return cluster_of(size)(self, self.gpu) if colon else self._paths[0]
        kinds = {kind.name: kind for kind in (GraphPath, StepPath)}
        return kinds[name](self, self.gpu, any_size=True) if name in kinds else None

    def versions(self) -> dict[str, str]:
        runtime = self.xp.cuda.runtime
        return {
            "cupy": self.xp.__version__,
            "cuda_runtime": str(runtime.runtimeGetVersion()),
            "cuda_driver": str(runtime.driverGetVersion()),
            "gpu": self.device,
            "tf32": "on" if self.gpu.tf32 else "off",
        }

    def launch_clock(self) -> Callable[[], float | None]:
        with self.gpu:
            clock = LaunchClock(self.xp)
        self.gpu.around_launches = clock
        return clock.seconds

    def free_memory(self) -> int:
        return self.gpu.memory()[0]

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

    def _new(self, shape: tuple[int, ...], dtype: Any) -> Array:
        with self.gpu:
            return super()._new(shape, dtype)

    def copy(self, array: Array) -> Array:
        with self.gpu:
            return super().copy(array)

    def join(self, values: Sequence[Any]) -> Array:
        with self.gpu:
            return super().join(values)

    def check_input(self, x: Array, n_in: int) -> None:
        self.gpu.need(x, what="x")
        super().check_input(x, n_in)

    # A step of training --------------------------------------------------------------------------------------------------------

    def minibatch(self, x: Array, y: Array, samples: Array) -> tuple[Array, Array]:
        for array, what in ((x, "x"), (y, "y"), (samples, "samples")):
            self.gpu.need(array, what)
        check_shapes(x.ndim == 2 and y.shape == x.shape[:1], "x and y must have one label for each sample", x, y)
        if x.dtype != np.uint8:
            (x,) = self._real(x=x)
        y = self._labels(y)
        with self.gpu:
            samples = self.gpu.contiguous(samples.astype(np.int64, copy=False))
        batch_x, batch_y = self.empty((len(samples), x.shape[1])), self.empty((len(samples),), y.dtype.type)
        kernel = self._kernel("gather", ops.minibatch_source, self.dtype, x.dtype.name, y.dtype.name)
        sizes = (np.int32(x.shape[1]), np.int32(len(samples)), np.int64(batch_x.size), np.int64(len(x)))
        self._launch(kernel, max(batch_x.size, len(samples)), self.gpu.contiguous(x), y, samples, batch_x, batch_y, *sizes)
        return batch_x, batch_y

    def dense(self, x: Array, weights: Array, bias: Array, activation: Activation | None = None) -> tuple[Array, Array]:
        x, weights, bias = self._real(x=x, weights=weights, bias=bias)
        check_shapes(
            x.shape[1:] == weights.shape[:1] and bias.shape == weights.shape[1:],
            "x, weights and bias of a layer do not fit",
            x,
            weights,
            bias,
        )
        z = self.gpu.matmul(x, weights, self.empty((x.shape[0], weights.shape[1])))
        output = self.empty(z.shape) if activation is not None and activation.of_input else z
        kernel = self._kernel("finish_layer", ops.dense_source, activation, self.dtype)
        self._launch(kernel, z.size, z, bias, output, np.int32(z.shape[1]), np.int64(z.size))
        return output, z

    def classify(self, logits: Array, y: Array, gradient: str) -> tuple[Array, Any, Any]:
        notebook = check_choice("gradient", gradient, GRADIENTS) == "notebook"
        self.gpu.need(y, "y")
        (logits,) = self._real(logits=logits)
        check_shapes(logits.ndim == 2 and y.shape == logits.shape[:1], "y must hold one label for each sample", y, logits)
        y, (n, width) = self._labels(y), logits.shape
        totals = self._new(
            (2,), np.float64
        )  # the loss of a step is read at the end of the epoch: memory of `empty` would be reused before that
        of_blocks = self.empty((ceil_div(n, ops.SAMPLES), 2), np.float64)
        kernel = self._kernel("classify", ops.classify_source, self.dtype, y.dtype.name)
        sizes = (np.int32(notebook), np.int32(width), np.int32(n))
        self._launch(kernel, WARP * n, logits, y, totals, of_blocks, self._counter(), *sizes, shared_bytes=ops.SHARED_BYTES)
        return logits, totals[0, ...], totals[1, ...]

    def hidden_delta(self, delta: Array, weights: Array, slope_input: Array, activation: Activation) -> Array:
        delta, weights, slope_input = self._real(delta=delta, weights=weights, slope_input=slope_input)
        fit = delta.shape == (slope_input.shape[0], weights.shape[1]) and weights.shape[0] == slope_input.shape[1]
        check_shapes(fit, "deltas, weights and outputs do not fit", delta, weights, slope_input)
        result = self.gpu.matmul(delta, weights.T, self.empty(slope_input.shape))
        kernel = self._kernel("multiply_slope", ops.dense_source, activation, self.dtype)
        self._launch(kernel, result.size, result, slope_input, np.int64(result.size))
        return result

    def update(
        self, params: tuple[Array, Array], slots: list[tuple[Array, Array]], x: Array, delta: Array, rule: Rule, scalars: Any
    ) -> tuple[tuple[Array, Array], list[tuple[Array, Array]]]:
        x, delta, scalars = self._real(x=x, delta=delta, scalars=scalars)
        check_shapes(x.shape[:1] == delta.shape[:1], "inputs and deltas do not fit", x, delta)
        check_shapes(scalars.shape == (rule.n_scalars,), f"the rule takes {rule.n_scalars} scalars", scalars)
        grads = (self.gpu.matmul(x.T, delta, self.empty((x.shape[1], delta.shape[1]))), self.empty(delta.shape[1:]))
        with self.gpu:
            self.xp.sum(delta, axis=0, out=grads[1])
        kernel = self._kernel("update", ops.update_source, rule, self.dtype)
        results = []
        for parameter, grad, given in zip(params, grads, self._unpaired(slots), strict=True):
            parameter, *parameter_slots = self._real(parameter=parameter, **{f"slot {i}": slot for i, slot in enumerate(given)})
            arrays = (parameter, grad, *parameter_slots)
            fit = len(given) == rule.n_slots and all(array.shape == grad.shape for array in arrays)
            check_shapes(fit, "parameter, gradient and slots do not fit", *arrays)
            self._launch(kernel, grad.size, parameter, grad, scalars, np.int64(grad.size), *parameter_slots)
            results.append((parameter, parameter_slots))
        (weights, weight_slots), (bias, bias_slots) = results
        return (weights, bias), list(zip(weight_slots, bias_slots, strict=True))

    # Helpers ------------------------------------------------------------------------------------------------------------------

    def _real(self, **arrays: Array) -> list[Array]:
        """The arrays in C order; TypeError for one that is not on the GPU or not of the backend's dtype."""
        for what, array in arrays.items():
            self.gpu.need(array, what)
            if array.dtype != self.dtype:
                raise TypeError(f"{what} must be {self.dtype}; got {array.dtype}. backend.asarray({what}) converts it")
        return [self.gpu.contiguous(array) for array in arrays.values()]

    def _labels(self, y: Array) -> Array:
        if y.dtype.name not in ops.INTEGER:
            raise TypeError(f"y must be integer labels; got {y.dtype}")
        return self.gpu.contiguous(y)

    def _counter(self) -> Array:
        """The counter of `last_block` in ``device.cuh``, 0 between kernels, and shared by all kernels of a stream."""
        with self.gpu:
            key = (threading.get_ident(), self.xp.cuda.get_current_stream().ptr)
            if key not in self._counters:
                self._counters[key] = self.xp.zeros(1, np.uint32)
        return self._counters[key]

    def _launch(self, kernel: Any, threads: int, *arguments: Any, shared_bytes: int = 0) -> None:
        if threads == 0:
            return
        with self.gpu:
            kernel((ceil_div(threads, ops.THREADS),), (ops.THREADS,), arguments, shared_mem=shared_bytes)

    def _load_kernel(self, name: str, source: Callable[..., str], *arguments: Any) -> Any:
        return self.gpu.module(source(*arguments), ops.options()).get_function(name)
