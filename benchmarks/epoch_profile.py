"""Where the time of an epoch goes: 784-32-10 in batches of 128 on Numba's sparse path, against what the machine allows.

    python benchmarks/epoch_profile.py    # half a minute

The phases of a step are timed by a clock around each in the loop of an epoch, on one thread and on two, where the time of a phase
is the mean of both. What the threads spend outside of all phases is starting, joining and waiting for each other. The largest
pieces of work are also timed by themselves, for as many steps. Each figure is the fastest of `REPEATS` epochs. Whole epochs are
those of a training by that path, and include drawing the order of the samples. Written to
``benchmarks/results/epoch_profile.json``.
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
from mlp_accel.activations import find_activation
from mlp_accel.backends.numba.backend import NumbaBackend
from mlp_accel.backends.numba.compiler import MATH, numba
from mlp_accel.backends.numba.emit.addresses import call
from mlp_accel.backends.numba.paths.sparse import epoch as sparse_epoch
from mlp_accel.backends.numba.paths.sparse import lists
from mlp_accel.backends.numba.paths.sparse.backward import update_first_layer
from mlp_accel.backends.numba.paths.sparse.epoch import DELTAS, FORWARD, LOSSES, REST, UPDATE
from mlp_accel.backends.numba.paths.sparse.forward import first_layer, output_deltas
from mlp_accel.backends.numba.paths.sparse.memory import EpochInput, table_of
from mlp_accel.backends.numba.paths.sparse.path import SparsePath, SparseRun
from mlp_accel.backends.paths import State, Task
from mlp_accel.bench.engines.op_times import bandwidth, peak_flops
from mlp_accel.datasets import Dataset
from mlp_accel.environment import environment
from mlp_accel.files import write_json
from mlp_accel.optimizers import OPTIMIZERS, Optimizer
from mlp_accel.training.trainer import Trainer

RESULT = Path(__file__).parent / "results" / "epoch_profile.json"
HIDDEN, BATCH, SAMPLES, RATE, ONE = 32, 128, 60_000, 0.1, np.float32(1)
STEPS = -(-SAMPLES // BATCH)
REPEATS = 15

CLOCK, MONOTONIC = ctypes.CDLL(None).clock_gettime, time.CLOCK_MONOTONIC
CLOCK.argtypes = [ctypes.c_int, ctypes.c_void_p]


def timed_epoch(address: int, table: int, n_jobs: int, ns: Any) -> None:
    """`sparse_epoch.loop` with one block for each job; the nanoseconds of each job's phases are added to ``ns[job]``."""
    for step in range(STEPS + 1):
        for region in range(2):
            begin, end = (DELTAS, REST) if region == 0 else (REST, REST + 1)
            for job in numba.prange(n_jobs):
                now = np.empty(4, np.int64)
                for phase in range(begin, end):
                    batch = step - 1 if phase < FORWARD else step
                    if 0 <= batch < STEPS:
                        CLOCK(MONOTONIC, now.ctypes)
                        call(address, (phase, np.int64(job), table, batch, BATCH, ONE))
                        CLOCK(MONOTONIC, now[2:].ctypes)
                        ns[job, phase] += (now[2] - now[0]) * 1_000_000_000 + now[3] - now[1]
        if step < STEPS:
            call(address, (LOSSES, 0, table, step, BATCH, ONE))


def first_products(inputs: Any, rules: Any, network: Any, scratch: Any) -> None:
    """The products with the weights of the first layer."""
    for step in range(SAMPLES // BATCH):
        first_layer(inputs, network, scratch, step * BATCH, 0, 0, BATCH)


def softmaxes(inputs: Any, rules: Any, network: Any, scratch: Any) -> None:
    """Softmax, what the loss is made of, and the deltas at the logits."""
    for step in range(SAMPLES // BATCH):
        output_deltas(inputs, rules, network, scratch, step * BATCH, 0, BATCH, BATCH)


def first_updates(inputs: Any, rules: Any, network: Any, scratch: Any) -> None:
    """The updates of the first layer, on the lists of the same few samples: they are in the cache, as in an epoch."""
    for _ in range(SAMPLES // BATCH):
        update_first_layer(inputs, rules, network, scratch, 0, 0, BATCH, 0, 0)


def compiled(function: Callable[..., None], parallel: Any = False) -> Any:
    """Compiled for this process alone: with a clock inside, or called by a benchmark, a kernel is not worth keeping on disk."""
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


def sparse_run(mnist: Dataset) -> SparseRun:
    """A training by the sparse path, on as many threads as are granted now."""
    rule = Optimizer.record_for([OPTIMIZERS["sgd"]])
    task = Task((784, HIDDEN, 10), BATCH, "float32", "uint8", 0.2, find_activation("tanh"), "exact", rule)
    states = [State(list(init_params(task.layer_sizes, 0)), [[] for _ in range(2)])]
    run = SparsePath(NumbaBackend()).start(task, states, mnist.x_train, mnist.y_train.astype(np.int64))
    assert isinstance(run, SparseRun)
    return run


def epoch_inputs(run: SparseRun, order: npt.NDArray[Any], rate: float) -> EpochInput:
    """What an epoch in this order trains on."""
    trainee = run.trainees[0]
    assert lists.follow_order(order, run.lists.starts, run.lists.stops, run.y, 10, trainee.in_order)
    starts, stops, labels = trainee.in_order
    return EpochInput(run.lists.entries, starts, stops, labels, run.values, run.shares, np.full(STEPS, rate, np.float32))


def main() -> None:
    """Measure, print and write."""
    report, mnist = environment(), load("mnist")
    rng = np.random.default_rng(0)

    def timed(n_threads: int) -> tuple[float, npt.NDArray[np.float64]]:
        """Seconds of the fastest epoch, and of its parts."""
        run, address = sparse_run(mnist), sparse_epoch.address_of_phase("float32")
        kernel = compiled(timed_epoch, {"fusion": False} if n_threads > 1 else False)
        found = []
        for _ in range(1 + REPEATS):  # the first one compiles
            inputs = epoch_inputs(run, rng.permutation(SAMPLES), RATE)
            ns = np.zeros((n_threads, 8), np.int64)  # the cache lines that jobs write to are apart
            table = table_of(inputs, run.rules, run.trainees[0].network, run.trainees[0].scratch)
            start = time.perf_counter()
            kernel(address, table.ctypes.data, n_threads, ns)
            found.append((time.perf_counter() - start, ns.mean(axis=0) / 1e9))
        return min(found[1:], key=lambda pair: pair[0])

    def alone(part: Callable[[Any, Any, Any, Any], None]) -> float:
        with get_backend("numba").limit_threads(1):
            run = sparse_run(mnist)
            order, trainee = rng.permutation(SAMPLES), run.trainees[0]
            memory = run.rules, trainee.network, trainee.scratch
            sparse_epoch.train_epoch(epoch_inputs(run, order, RATE), *memory, BATCH)  # there must be numbers in the scratch
            inputs, kernel = epoch_inputs(run, order, 0.0), compiled(part)
            return fastest(lambda: kernel(inputs, *memory))

    def whole(n_threads: int) -> float:
        numba_backend = get_backend("numba")
        with numba_backend.limit_threads(n_threads):
            trainer = Trainer(
                *(mnist.x_train, mnist.y_train, [init_params([784, HIDDEN, 10], 0)], numba_backend),
                batch_size=BATCH,
                learning_rates=[RATE],
                path=SparsePath.name,
                threads=n_threads,
            )
            return fastest(trainer.epoch)

    products, softmax, updates = alone(first_products), alone(softmaxes), alone(first_updates)
    columns: dict[str, dict[str, float]] = {}
    for n_threads in (1, 2) if numba.config.NUMBA_NUM_THREADS > 1 else (1,):
        with get_backend("numba").limit_threads(n_threads):
            seconds, parts = timed(n_threads)
        columns[f"{n_threads} thread{'s' if n_threads > 1 else ''}"] = {
            "forward: first layer, its activation, partial sums of the second": parts[FORWARD],
            "the rest forward, softmax, and back to the errors of the second layer": parts[REST],
            "errors of the first layer": parts[DELTAS],
            "gradients and updates": parts[UPDATE],
            "starting, joining, waiting, sums of the losses": seconds - parts.sum(),
            "whole epoch of a training, with the order of the samples": whole(n_threads),
        }
    used = int(np.count_nonzero(mnist.x_train))
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
