"""A CuPy without a GPU: arrays of NumPy under CuPy's type, and raw kernels run by the shim. What is not needed is not there.

It is stricter than NumPy where CuPy is: a NumPy array is refused where a device array belongs, and so are kernel arguments that
have no size of their own.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.backends.cupy.emulator import DEFAULT, Emulation, Program

H200 = {"capability": "90", "shared_limit": 232_448}
A100 = {"capability": "80", "shared_limit": 166_912}
GIB = 2**30
ILLEGAL_ADDRESS = "cudaErrorIllegalAddress: an illegal memory access was encountered"


class ndarray(np.ndarray[Any, Any]):  # noqa: N801 - CuPy's name
    """An array on the device; `data` is CuPy's, which has the address."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


class OutOfMemoryError(MemoryError):
    """As of CuPy."""


class CUDADriverError(RuntimeError):
    """As of CuPy."""


class CUDARuntimeError(RuntimeError):
    """As of CuPy."""


def on_device(value: Any) -> Any:
    """NumPy's result as CuPy's."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).view(ndarray)
    return type(value)(map(on_device, value)) if isinstance(value, list | tuple) else value


def refuse_host_arrays(values: Any) -> None:
    for value in values:
        if isinstance(value, np.ndarray) and not isinstance(value, ndarray):
            raise TypeError(f"Unsupported type {type(value)}")
        if isinstance(value, list | tuple):
            refuse_host_arrays(value)


class Stream:
    ptr = 0

    def __init__(self, events: list[str], non_blocking: bool = False) -> None:
        self.events, self.non_blocking = events, non_blocking
        self.recording: list[Callable[[], None]] | None = None
        self.outer: list[Stream] = []

    def record(self) -> Stream:
        self.events.append("record")
        return self

    def wait_event(self, event: Stream) -> None:
        self.events.append("wait for event")

    def synchronize(self) -> None:
        self.events.append("synchronize")

    def begin_capture(self) -> None:
        assert self.non_blocking, "the default stream cannot be captured"
        self.recording = []

    def end_capture(self) -> Any:
        launches, self.recording = self.recording or [], None
        self.events.append(f"capture of {len(launches)}")

        def launch(stream: Stream) -> None:
            self.events.append(f"graph of {len(launches)}")
            for kernel in launches:
                kernel()

        return SimpleNamespace(launch=launch)


class FakeCupy(ModuleType):
    """To be put in ``sys.modules["cupy"]``.

    Parameters
    ----------
    capability : str
        Compute capability: ``"90"``.
    shared_limit : int
        Bytes of shared memory of a block.
    devices : int
        How many GPUs there are.
    emulation : Emulation
        How the shim runs kernels.

    Attributes
    ----------
    events : list of str
        Every launch, transfer and synchronisation.
    used : set of int
        Devices that were the current one of a function or a launch.
    fail : dict
        Kernel or ``"compile"`` or ``"allocate"``: the error to raise there.
    faults : dict
        Kernel or ``"context"``: what becomes of it. ``"nan"``: its results; ``"hang"``; ``"memory"``: there is too little;
        ``"crash"`` of the process; ``"sticky"``: an error after which the context of this process is dead; ``"busy"``: another
        process has the GPU for itself.
    """

    ndarray = ndarray
    isdtype = staticmethod(np.isdtype)
    __version__ = "14.2.0"

    def __init__(
        self,
        capability: str = "90",
        shared_limit: int = 232_448,
        devices: int = 1,
        emulation: Emulation = DEFAULT,
        faults: dict[str, str] | None = None,
    ) -> None:
        super().__init__("cupy")
        self.events: list[str] = []
        self.fail: dict[str, Exception] = {}
        self.faults = faults or {}
        self.dead = False
        self.emulation = emulation
        self.compute_types: dict[str, int] = {}
        self.current_device = 0
        self.used: set[int] = set()
        default = Stream(self.events)
        self.streams = [default]
        fake = self

        class Device:
            def __init__(self, index: int) -> None:
                self.index, self.compute_capability = index, capability
                self.attributes = {"MaxSharedMemoryPerBlockOptin": shared_limit, "MultiProcessorCount": 132}

            def __enter__(self) -> None:
                self.before, fake.current_device = fake.current_device, self.index

            def __exit__(self, *_: object) -> None:
                fake.current_device = self.before

        class OwnStream(Stream):
            def __init__(self, non_blocking: bool = False) -> None:
                super().__init__(fake.events, non_blocking)

            def __enter__(self) -> None:
                fake.streams.append(self)

            def __exit__(self, *_: object) -> None:
                fake.streams.pop()

        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13000,
            getDeviceCount=lambda: devices,
            getDevice=lambda: fake.current_device,
            getDeviceProperties=lambda index: {"name": f"Emulated GPU {index}".encode()},
            memGetInfo=lambda: (3 * GIB, 140 * GIB),
        )
        self.cuda = SimpleNamespace(
            runtime=runtime,
            Device=Device,
            Stream=OwnStream,
            get_current_stream=lambda: self.streams[-1],
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            Event=lambda: SimpleNamespace(record=lambda: None, synchronize=lambda: None),
            get_elapsed_time=lambda start, end: 1.0,
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
            driver=SimpleNamespace(CUDADriverError=CUDADriverError, funcSetAttribute=self._set_attribute),
        )
        self._core = SimpleNamespace(
            get_compute_type=lambda dtype: self.compute_types.get(np.dtype(dtype).name, 1),
            set_compute_type=lambda dtype, kind: self.compute_types.update({np.dtype(dtype).name: kind}),
            _routines_linalg=SimpleNamespace(COMPUTE_TYPE_DEFAULT=1, COMPUTE_TYPE_TF32=7),
        )

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name)
        if isinstance(value, type) or not callable(value):
            return value

        def call(*arguments: Any, **keywords: Any) -> Any:
            if name in ("empty", "zeros") and "allocate" in self.fail:
                raise self.fail["allocate"]
            self.check_context()
            refuse_host_arrays([*arguments, *keywords.values()])
            self.used.add(self.current_device)
            return on_device(value(*arguments, **keywords))

        return call

    def check_context(self) -> None:
        """What every call that needs the context does first."""
        if self.faults.get("context") == "busy":
            raise CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable")
        if self.dead:
            raise CUDARuntimeError(ILLEGAL_ADDRESS)

    def asarray(self, array: Any, dtype: Any = None, copy: bool | None = None) -> Any:
        self.check_context()
        if not isinstance(array, ndarray):
            self.events.append("to device")
        if "allocate" in self.fail:
            raise self.fail["allocate"]
        return on_device(np.array(array, dtype=dtype, copy=True if not isinstance(array, ndarray) else copy))

    def asnumpy(self, array: Any) -> npt.NDArray[Any]:
        self.check_context()
        self.events.append("to host")
        return np.array(array).view(np.ndarray)

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(total_bytes=lambda: 0, free_all_blocks=lambda: None)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        refuse_host_arrays([a, b])
        self.used.add(self.current_device)
        self.events.append(f"product (compute type {self.compute_types.get(a.dtype.name, 1)})")
        return np.matmul(a, b, out=out)

    def RawModule(self, code: str, options: tuple[str, ...], backend: str) -> Any:  # noqa: N802 - CuPy's name
        if "compile" in self.fail:
            raise self.fail["compile"]
        assert backend == "nvrtc"
        program = Program(code, options)
        return SimpleNamespace(get_function=lambda name: RawKernel(self, program, name))

    def _set_attribute(self, function: int, attribute: int, value: int) -> None:
        self.events.append(f"attribute {attribute} = {value}")


class RawKernel:
    """As of CuPy: the size of a grid and of a block, then the arguments."""

    def __init__(self, cp: FakeCupy, program: Program, name: str) -> None:
        self.cp, self.program, self.name = cp, program, name
        self.max_dynamic_shared_size_bytes = 48 * 1024
        self.kernel = SimpleNamespace(ptr=1)

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
        self.cp.check_context()
        if self.name in self.cp.fail:
            raise self.cp.fail[self.name]
        assert shared_mem <= self.max_dynamic_shared_size_bytes, "CUDA_ERROR_INVALID_VALUE"
        refuse_host_arrays(arguments)
        self.cp.used.add(self.cp.current_device)
        for argument in arguments:
            assert not isinstance(argument, np.ndarray) or argument.flags.c_contiguous
        stream = self.cp.streams[-1]

        def launch() -> None:
            if self.name in self.cp.faults:
                self._fail(self.cp.faults[self.name], arguments)
            else:
                self.program.launch(self.name, grid[0], block[0], shared_mem, arguments, self.cp.emulation)

        if stream.recording is not None:
            stream.recording.append(launch)
        else:
            self.cp.events.append(f"launch {self.name}")
            launch()

    def _fail(self, fault: str, arguments: tuple[Any, ...]) -> None:
        if fault == "nan":
            for array in arguments:
                if isinstance(array, np.ndarray) and array.dtype.kind == "f":
                    array[...] = np.nan
        elif fault == "hang":
            time.sleep(3600)
        elif fault == "memory":
            raise OutOfMemoryError("Out of memory allocating 47,040,000 bytes")
        elif fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif fault == "sticky":
            self.cp.dead = True
            raise CUDARuntimeError(ILLEGAL_ADDRESS)


__all__ = ["A100", "H200", "FakeCupy", "OutOfMemoryError"]
