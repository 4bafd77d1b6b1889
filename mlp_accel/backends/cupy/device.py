"""One GPU as the CuPy backend uses it: made current for each op, with errors that say what to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, wraps
from types import TracebackType
from typing import Any

import numpy as np

from mlp_accel.backends.arrays import Array
from mlp_accel.errors import DeviceMemoryError

GIB = 2**30


_compute_types = threading.RLock()
"""CuPy has one compute type of products for the whole process: while we begin a product, no other thread of ours may set it."""


class _OfThread(threading.local):
    """The devices whose contexts this thread is in, innermost last; and the stream that it trains on.

    A stream that records a graph must not be given other work, so no two threads share one.
    """

    def __init__(self) -> None:
        self.devices: list[Any] = []
        self.stream: Any = None


class LaunchClock:
    """A context with an event of the GPU on either side.

    Parameters
    ----------
    cp : module
        CuPy.
    """

    def __init__(self, cp: Any) -> None:
        self._cuda, self._used = cp.cuda, False
        self._events = cp.cuda.Event(), cp.cuda.Event()

    def __enter__(self) -> None:
        self._used = True
        self._events[0].record()

    def __exit__(self, *_: object) -> None:
        self._events[1].record()

    def seconds(self) -> float | None:
        """Between the two, the last time; None if nothing was launched within the context."""
        if not self._used:
            return None
        self._events[1].synchronize()
        return float(self._cuda.get_elapsed_time(*self._events)) / 1000


class Device:
    """A GPU. As a context it is the current device, and running out of its memory is an error that says what to do.

    Parameters
    ----------
    cp : module
        CuPy.
    index : int, optional
        Number of the GPU; by default CuPy's current one.
    tf32 : bool
        cuBLAS may round float32 operands to TF32.
    """

    def __init__(self, cp: Any, index: int | None, tf32: bool) -> None:
        self.cp = cp
        self.index: int = cp.cuda.runtime.getDevice() if index is None else index
        self.name: str = cp.cuda.runtime.getDeviceProperties(self.index)["name"].decode()
        self.tf32 = tf32
        self.module = cache(self._compile)
        self.around_launches: AbstractContextManager[Any] = nullcontext()
        """Entered, on the training's stream, around the launches of each epoch that our own kernels train: to measure them."""
        self._of_thread = _OfThread()

    def __enter__(self) -> Device:
        device = self.cp.cuda.Device(self.index)
        device.__enter__()
        self._of_thread.devices.append(device)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._of_thread.devices.pop().__exit__(kind, error, trace)
        if kind is not None and issubclass(kind, self.cp.cuda.memory.OutOfMemoryError):
            free, total = self.memory()
            raise DeviceMemoryError(
                f"out of memory on cuda:{self.index} {self.name}: {error}. {free / GIB:.1f} of {total / GIB:.1f} GiB are free; "
                "use fewer samples, a smaller batch size, a smaller network or fewer networks at once, or end what else runs there"
            ) from error

    def versions(self) -> dict[str, str]:
        """Of all that runs a kernel: the GPU, its driver, and the libraries that compile and launch."""
        runtime, digits = self.cp.cuda.runtime, ".".join(map(str, self.cp.cuda.nvrtc.getVersion()))
        found = {"gpu": self.name, "compute_capability": ".".join(map(str, self.capability)), "cupy": self.cp.__version__}
        return {**found, "nvrtc": digits, "runtime": str(runtime.runtimeGetVersion()), "driver": str(runtime.driverGetVersion())}

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability."""
        digits = self.cp.cuda.Device(self.index).compute_capability
        return int(digits[:-1]), int(digits[-1])

    @property
    def multiprocessors(self) -> int:
        """How many there are; each runs thread blocks on its own."""
        return int(self.cp.cuda.Device(self.index).attributes["MultiProcessorCount"])

    @property
    def shared_limit(self) -> int:
        """Bytes of shared memory that a block may ask for."""
        return int(self.cp.cuda.Device(self.index).attributes["MaxSharedMemoryPerBlockOptin"])

    def memory(self) -> tuple[int, int]:
        """Bytes of the GPU's memory that are free, and all of them."""
        with self.cp.cuda.Device(self.index):
            free, total = self.cp.cuda.runtime.memGetInfo()
        return int(free), int(total)

    def need(self, array: Any, what: str) -> None:
        """Raise TypeError unless `array` is on a GPU."""
        if not isinstance(array, self.cp.ndarray):
            kind = f"{type(array).__module__}.{type(array).__qualname__}"
            raise TypeError(f"{what} must be an array on the GPU; got {kind}. backend.asarray({what}) puts it there")

    def contiguous(self, array: Array) -> Array:
        """`array` in C order, copied only if it is in another."""
        if array.flags.c_contiguous:
            return array
        with self:
            return self.cp.ascontiguousarray(array)

    def _compile(self, code: str, options: tuple[str, ...]) -> Any:
        """Compile CUDA C++ by NVRTC, or load what CuPy has kept on disk (``CUPY_CACHE_DIR``)."""
        with self:
            return self.cp.RawModule(code=code, options=("-std=c++17", *options), backend="nvrtc")

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The current device, with products in TF32 only if that was asked for, whatever ``CUPY_TF32`` says."""
        core, single = self.cp._core, np.dtype(np.float32)
        linalg = core._routines_linalg
        wanted = linalg.COMPUTE_TYPE_TF32 if self.tf32 else linalg.COMPUTE_TYPE_DEFAULT
        with self, _compute_types:
            before = core.get_compute_type(single)
            if before == wanted:
                yield
                return
            core.set_compute_type(single, wanted)
            try:
                yield
            finally:
                core.set_compute_type(single, before)

    def scoped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, each call of which runs within `computing`."""

        @wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            with self.computing():
                return function(*arguments, **keywords)

        return call

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        """``a @ b`` into `out` by cuBLAS."""
        with self.computing():
            return self.cp.matmul(a, b, out=out)

    @contextmanager
    def training_stream(self) -> Iterator[None]:
        """Inside the context work goes to the stream of the training.

        It begins when all is done that the caller's stream was given before, and what that is given afterwards waits for its end.
        """
        with self:
            outer = self.cp.cuda.get_current_stream()
            if self._of_thread.stream is None:
                self._of_thread.stream = self.cp.cuda.Stream(non_blocking=True)
            stream = self._of_thread.stream
            if outer == stream:
                yield
                return
            stream.wait_event(outer.record())
            try:
                with stream:
                    yield
            finally:
                outer.wait_event(stream.record())
