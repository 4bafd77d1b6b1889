"""Where the time of an epoch goes: 784-32-10 in batches of 128 on the Numba backend, against what the machine allows.

    python benchmarks/epoch_profile.py    # half a minute

The parts of a step are timed where they are, by a clock around each in the loop of an epoch: on one thread, and on two, for each
of which a part takes the mean of both; what they spend outside of all parts is starting, joining and waiting for each other. The
largest pieces of work are also run by themselves, for as many steps. All is of the fastest of `REPEATS` epochs. Whole epochs are
those of the backend, preparation of its memory included. Written to ``benchmarks/results/epoch_profile.json``.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel import get_backend, init_params, load
from mlp_accel.backends.jit import packing, pixel_epoch
from mlp_accel.backends.jit.addresses import call
from mlp_accel.backends.jit.compiler import MATH, numba
from mlp_accel.backends.jit.memory import table_of
from mlp_accel.backends.jit.pixel_epoch import ERRORS, FORWARD, LOSSES, REST, UPDATE
from mlp_accel.backends.jit.pixel_step import first_layer, softmax_errors, update_first_layer
from mlp_accel.benchmarking.environment import environment
from mlp_accel.benchmarking.roofline import bandwidth, peak_flops
from mlp_accel.files import write_json
from mlp_accel.training import SGDStep

RESULT = Path(__file__).parent / "results" / "epoch_profile.json"
HIDDEN, BATCH, IMAGES, RATE = 32, 128, 60_000, np.float32(0.1)
STEPS = -(-IMAGES // BATCH)
REPEATS = 15

CLOCK, MONOTONIC = ctypes.CDLL(None).clock_gettime, time.CLOCK_MONOTONIC
CLOCK.argtypes = [ctypes.c_int, ctypes.c_void_p]


def timed_epoch(run: int, table: int, n_tasks: int, ns: Any) -> None:
    """`pixel_epoch.loop` for a block to each task; nanoseconds of each task's parts are added to ``ns[task]``."""
    for step in range(STEPS + 1):
        for region in range(2):
            begin, end = (ERRORS, REST) if region == 0 else (REST, REST + 1)
            for task in numba.prange(n_tasks):
                now = np.empty(4, np.int64)
                for part in range(begin, end):
                    batch = step - 1 if part < FORWARD else step
                    if 0 <= batch < STEPS:
                        CLOCK(MONOTONIC, now.ctypes)
                        call(run, (part, np.int64(task), table, batch, BATCH, RATE, 1, 0))
                        CLOCK(MONOTONIC, now[2:].ctypes)
                        ns[task, part] += (now[2] - now[0]) * 1_000_000_000 + now[3] - now[1]
        if step < STEPS:
            call(run, (LOSSES, 0, table, step, BATCH, RATE, 1, 0))


def first_products(data: Any, network: Any, scratch: Any) -> None:
    """The products with the weights of the first layer."""
    for step in range(IMAGES // BATCH):
        first_layer(data, network, scratch, step * BATCH, 0, 0, BATCH)


def softmaxes(data: Any, network: Any, scratch: Any) -> None:
    """Softmax, what the loss is made of, and the errors at the logits."""
    for step in range(IMAGES // BATCH):
        softmax_errors(data, network, scratch, step * BATCH, 0, BATCH, BATCH, False)


def first_updates(data: Any, network: Any, scratch: Any) -> None:
    """The updates of the first layer, on lists of the same few images, which are in the cache as they are in an epoch."""
    for _ in range(IMAGES // BATCH):
        update_first_layer(data, network, scratch, 0, BATCH, 0, 0, np.float32(0))


def compiled(function: Callable[..., None], parallel: Any = False) -> Any:
    """For this run only: with a clock inside, or the calls of a benchmark around it, nothing is worth keeping."""
    return numba.njit(parallel=parallel, fastmath=MATH, error_model="numpy", nogil=True)(function)


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest call, after one that compiles."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Measure, print and write."""
    report, data = environment(), load("mnist")
    params = [(w.astype(np.float32), b.astype(np.float32)) for w, b in init_params([784, HIDDEN, 10], 0)]
    lists = packing.list_pixels(data.x_train)
    assert lists is not None
    rng, y = np.random.default_rng(0), data.y_train

    def timed(n_threads: int) -> tuple[float, npt.NDArray[np.float64]]:
        """Seconds of the fastest epoch, and of its parts."""
        network = packing.pack_network(params, BATCH, n_threads)
        scratch, run = packing.allocate_scratch(network, BATCH, STEPS), pixel_epoch.address_of_run_part("float32")
        kernel = compiled(timed_epoch, {"fusion": False} if n_threads > 1 else False)
        found = []
        for _ in range(1 + REPEATS):  # the first one compiles
            inputs = packing.pack_data(lists, y, rng.permutation(IMAGES), network, n_threads)
            ns = np.zeros((n_threads, 8), np.int64)  # tasks do not write to each other's cache lines
            table = table_of(inputs, network, scratch)
            start = time.perf_counter()
            kernel(run, table.ctypes.data, n_threads, ns)
            found.append((time.perf_counter() - start, ns.mean(axis=0) / 1e9))
        return min(found[1:], key=lambda pair: pair[0])

    def alone(part: Callable[[Any, Any, Any], None]) -> float:
        network = packing.pack_network(params, BATCH, 1)
        inputs = packing.pack_data(lists, y, rng.permutation(IMAGES), network, 1)
        scratch = packing.allocate_scratch(network, BATCH, STEPS)
        pixel_epoch.train_epoch(inputs, network, scratch, BATCH, RATE, 1, False)  # there must be numbers in the scratch
        kernel = compiled(part)
        return fastest(lambda: kernel(inputs, network, scratch))

    def whole(n_threads: int) -> float:
        with get_backend("numba").limit_threads(n_threads):
            step = SGDStep(float(RATE))
            return fastest(lambda: packing.train_epoch(step, params, lists, y, rng.permutation(IMAGES), BATCH, n_threads))

    products, softmax, updates = alone(first_products), alone(softmaxes), alone(first_updates)
    columns: dict[str, dict[str, float]] = {}
    for n_threads in (1, 2) if numba.config.NUMBA_NUM_THREADS > 1 else (1,):
        with get_backend("numba").limit_threads(n_threads):
            seconds, parts = timed(n_threads)
        columns[f"{n_threads} thread{'s' if n_threads > 1 else ''}"] = {
            "forward: first layer, its activation, partial sums of the second": parts[FORWARD],
            "the rest forward, softmax, and back to the errors of the second layer": parts[REST],
            "errors of the first layer": parts[ERRORS],
            "gradients and updates": parts[UPDATE],
            "starting, joining, waiting, sums of the losses": seconds - parts.sum(),
            "whole epoch of the backend, its order and its memory prepared": whole(n_threads),
        }
    used = int((lists.stops - lists.starts).sum())
    numpy = get_backend("numpy")
    with numpy.limit_threads(1):
        peak, memory = peak_flops(numpy), bandwidth(numpy)
    floors = {
        "arithmetic of both big products at the peak of one thread": 2 * 2 * used * HIDDEN / peak,
        "reading the lists once at the bandwidth of one thread": 4 * used / memory,
    }
    inside = {
        "products of the first layer": products,
        "softmax and loss": softmax,
        "gradient and update of the first layer": updates,
    }
    content = {
        "schema": 1,
        "environment": report,
        "pixels_not_zero": used,
        "seconds": columns,
        "by_themselves_on_1_thread": inside,
        "floors_seconds": floors,
        "peak_flops": peak,
        "bandwidth_bytes_per_second": memory,
    }
    write_json(str(RESULT), content)
    rows = [(f"{name}, {column}", value) for column, part in columns.items() for name, value in part.items()]
    for name, value in [*rows, *inside.items(), *floors.items()]:
        sys.stdout.write(f"{name:85} {value * 1e3:7.2f} ms\n")


if __name__ == "__main__":
    main()
