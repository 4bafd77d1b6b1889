"""Rows on the GPU itself: what it is, what a launch costs, and what it costs blocks to wait for each other."""

from __future__ import annotations

import shutil
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gpu_stages.rows import Effort, UnavailableError
from gpu_stages.timing import clocks, warm_up
from mlp_accel.backends import unavailable
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.backends.cupy.source import BASICS, DEVICE, WARP, defines, source

PORTABLE_CLUSTER = 8
NON_PORTABLE_CLUSTER = 14
"""``CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`` of the CUDA driver API."""

THREADS = 512
SHARED_BYTES = 1024
"""More than ``struct Mail`` of ``sends.cu`` takes for the largest cluster."""

ROUNDS, FEW = 5_000, 10
"""Rounds for each second of effort, and by what share fewer there are in a second launch: the difference of the two is free of what
a launch costs."""

LAUNCHES = 500
"""For each second of effort."""

REPEATS = 5

SENDS = "sends"

PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "numpy", "numba", "torch", "triton", "jax", "jaxlib", "nvidia-cuda-nvrtc", "pytest")
TOOLS = ("compute-sanitizer", "ncu", "nvidia-smi", "nvcc", "cuobjdump")


def gpu_backend(tf32: bool = False) -> CupyBackend:
    """A CuPy backend."""
    problem = unavailable("cupy")
    if problem is not None:
        raise UnavailableError(problem.reason)
    return CupyBackend(tf32=tf32)


def describe(effort: Effort) -> dict[str, Any]:
    """Name, versions, properties and clocks, idle and after a second of products; which packages and tools are there."""
    idle = clocks()
    backend = gpu_backend()
    gpu = backend.gpu
    attributes = gpu.cp.cuda.Device(gpu.index).attributes
    wanted = ("MultiProcessorCount", "ClockRate", "MemoryClockRate", "MaxSharedMemoryPerBlockOptin", "L2CacheSize", "ComputeMode")
    free, total = gpu.memory()
    square = backend.asarray(np.ones((1024, 1024), np.float32))

    def product() -> None:
        gpu.matmul(square, square, backend.empty(square.shape))
        backend.synchronize()

    warm = warm_up(product, effort.seconds / 2)
    return {
        "device": backend.device,
        "versions": backend.versions(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "tools": {name: found for name in TOOLS if (found := shutil.which(name))},
        "compute_capability": ".".join(map(str, gpu.capability)),
        "memory_bytes": {"free": free, "total": total},
        "attributes": {name: int(attributes[name]) for name in wanted if name in attributes},
        "clocks": {"idle": idle, "busy": clocks(), "warm_up_seconds": warm},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def launches(effort: Effort) -> dict[str, Any]:
    """Seconds for a launch: of many, by the clock of the device; one, until the host knows its end; a node of a CUDA graph."""
    backend = gpu_backend()
    gpu, cp = backend.gpu, backend.xp
    kernel, out, count = _kernel(backend, "nothing", 1), cp.zeros(1, np.int32), max(1, int(LAUNCHES * effort.seconds))
    launch = partial(kernel, (1,), (WARP,), (out,))
    waits = []

    def wait() -> None:
        start = time.perf_counter()
        launch()
        backend.synchronize()
        waits.append(time.perf_counter() - start)

    warm_up(wait, effort.seconds / 2)
    fields: dict[str, Any] = {"launch_and_wait_seconds": float(np.median(waits))}
    fields["launch_seconds"] = _device_seconds(backend, lambda: [launch() for _ in range(count)]) / count
    with gpu.training_stream():
        stream = cp.cuda.get_current_stream()
        stream.begin_capture()
        for _ in range(count):
            launch()
        graph = stream.end_capture()
        fields["graph_node_seconds"] = _device_seconds(backend, lambda: graph.launch(stream)) / count
    return fields


def exchange(what: str, cluster: int, effort: Effort) -> dict[str, Any]:
    """Seconds for one barrier of a cluster or of a block, or for 16 bytes from every block of a cluster to every other.

    In one cluster alone, and with as many as the GPU has multiprocessors for.
    """
    backend = gpu_backend()
    if cluster > 1 and backend.gpu.capability < (9, 0):
        raise UnavailableError(f"clusters need compute capability 9.0, this GPU has {backend.gpu.capability}")
    kernel, out = _kernel(backend, what, cluster), backend.xp.zeros(1, np.int32)
    attributes = backend.xp.cuda.Device(backend.gpu.index).attributes
    blocks = {"alone": cluster, "everywhere": cluster * max(1, int(attributes.get("MultiProcessorCount", cluster)) // cluster)}
    rounds = max(2 * FEW, int(ROUNDS * effort.seconds))
    fields: dict[str, Any] = {"blocks": blocks, "rounds": rounds}

    def launch(count: int, number: int) -> None:
        kernel((count,), (THREADS,), (out, np.int32(number)), shared_mem=SHARED_BYTES)

    def launch_and_wait() -> None:
        launch(cluster, rounds)
        backend.synchronize()

    warm_up(launch_and_wait, effort.seconds / 4)
    for where, count in blocks.items():
        few, many = (_device_seconds(backend, partial(launch, count, number)) for number in (rounds // FEW, rounds))
        fields[f"{where}_seconds"] = (many - few) / (rounds - rounds // FEW)
    result = int(backend.to_numpy(out)[0])
    fields["clocks"] = clocks()
    return {"mismatch": None if result == rounds else f"{rounds} rounds end with {result}", **fields}


def _kernel(backend: CupyBackend, name: str, cluster: int) -> Any:
    """A kernel of ``barriers.cu``, or that of ``sends.cu``."""
    if name == SENDS and "store_async" not in source(DEVICE):
        raise UnavailableError(f"{DEVICE} has no store_async")
    file = Path(__file__).with_name("sends.cu" if name == SENDS else "barriers.cu")
    code = source(DEVICE, BASICS) + file.read_text(encoding="utf-8")
    kernel = backend.gpu.module(code, defines({"WARP": WARP, "CLUSTER": cluster})).get_function(name)
    if cluster > PORTABLE_CLUSTER:
        backend.xp.cuda.driver.funcSetAttribute(kernel.kernel.ptr, NON_PORTABLE_CLUSTER, 1)
    return kernel


def _device_seconds(backend: CupyBackend, launch: Any) -> float:
    """Median time of some repeats between two events around the launch."""
    cuda = backend.xp.cuda
    times = []
    for _ in range(REPEATS):
        start, end = cuda.Event(), cuda.Event()
        start.record()
        launch()
        end.record()
        end.synchronize()
        times.append(cuda.get_elapsed_time(start, end) / 1000)
    return float(np.median(times))
