"""Where the time of an epoch goes: the parts of a step of Numba's sparse and dense paths, against what the machine allows.

    python benchmarks/epoch_profile.py    # two minutes

Each part is a kernel of the path, timed by itself on one thread over the minibatches of an epoch; each figure is the fastest of
`REPEATS` such epochs. Whole epochs are those of a training, on one thread and on all, and include drawing the order of the samples.
Updates that are timed by themselves have a learning rate of 0 and read samples that are not in the cache, as they are in an epoch,
so they may take longer than there. Written to ``benchmarks/results/epoch_profile.json``.
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
from mlp_accel.backends.numba.compiler import MATH, numba
from mlp_accel.backends.numba.emit.addresses import call
from mlp_accel.backends.numba.paths.shared import backward, forward
from mlp_accel.backends.numba.paths.shared.memory import EpochInput, table_of, unpack
from mlp_accel.backends.numba.paths.shared.run import CompiledRun
from mlp_accel.backends.threads import available_cores
from mlp_accel.bench.engines.op_times import bandwidth, peak_flops
from mlp_accel.environment import environment
from mlp_accel.files import write_json
from mlp_accel.training.trainer import Trainer

RESULT = Path(__file__).parent / "results" / "epoch_profile.json"
HIDDEN, BATCH, ONE = 32, 128, np.float32(1)
REPEATS = 15

Part = Callable[..., None]


def first_layer(inputs: Any, rules: Any, network: Any, scratch: Any, table: int, batch: int) -> None:
    """The sums of the first layer."""
    for segment in range(inputs.segments.shape[0] - 1):
        call(rules.first_layer, (table, batch, 0, segment, 0, BATCH, ONE))


def second_layer(inputs: Any, rules: Any, network: Any, scratch: Any, table: int, batch: int) -> None:
    """The activation of the first layer, and the sums of the second."""
    forward.partial_sums(rules, network, scratch, 0, 0, BATCH)
    forward.add_partial_sums(network, scratch, 0, BATCH)


def softmax(inputs: Any, rules: Any, network: Any, scratch: Any, table: int, batch: int) -> None:
    """Softmax, losses and deltas at the logits."""
    forward.output_deltas(inputs, rules, network, scratch, batch * BATCH, 0, BATCH, BATCH)
    forward.sum_losses(scratch, batch, BATCH)


def first_deltas(inputs: Any, rules: Any, network: Any, scratch: Any, table: int, batch: int) -> None:
    """Deltas of the first layer."""
    backward.first_deltas(rules, network, scratch, 0, 0, BATCH)


def update_first_layer(inputs: Any, rules: Any, network: Any, scratch: Any, table: int, batch: int) -> None:
    """Gradient and update of the weights of the first layer."""
    for segment in range(inputs.segments.shape[0] - 1):
        call(rules.update_first_layer, (table, batch, 0, segment, ONE))


def update_above(inputs: Any, rules: Any, network: Any, scratch: Any, table: int, batch: int) -> None:
    """Gradients and updates of everything else."""
    for share in range(network.shares):
        backward.update_weights_above(inputs, rules, network, scratch, batch, BATCH, 0, share)
        backward.update_biases(inputs, rules, network, scratch, batch, BATCH, 0, share)


PARTS: dict[str, Part] = {
    "first layer": first_layer,
    "its activation, second layer": second_layer,
    "softmax, loss, deltas at the logits": softmax,
    "deltas of the first layer": first_deltas,
    "gradient and update of the first layer": update_first_layer,
    "of the second layer and the biases": update_above,
}


def seconds_of(part: Part, table: int, n_batches: int) -> float:
    """Seconds that a part takes for so many minibatches; `table` is the address of an epoch's table."""
    inlined = numba.njit(inline="always")(part)

    def epoch(table: int, n_batches: int, one: Any) -> int:
        inputs, rules, network, scratch = unpack(table, one)
        for batch in range(n_batches):
            inlined(inputs, rules, network, scratch, table, batch)
        return 0

    i = numba.int64
    # Compiled for this process alone: called by a benchmark, a kernel is not worth keeping on disk.
    compiled = numba.cfunc(i(i, i, numba.float32), fastmath=MATH, error_model="numpy", _nrt=False)(epoch)
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_float)(compiled.address)
    return fastest(lambda: function(table, n_batches, 1.0))


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest call, after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def profile(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> dict[str, Any]:
    """Parts, whole epochs and what both products of the first layer would take at the peak of one thread."""
    backend, n_classes = get_backend("numba"), int(y.max()) + 1
    networks = [init_params([x.shape[1], HIDDEN, n_classes], 0)]

    def trainer(threads: int) -> Trainer:
        return Trainer(x, y, networks, backend, batch_size=BATCH, learning_rates=0.1, threads=threads)

    whole = {}
    for threads in sorted({1, available_cores()}):
        with backend.limit_threads(threads):
            whole[f"{threads} thread{'s' if threads > 1 else ''}"] = fastest(trainer(threads).epoch)
    with backend.limit_threads(1):
        training = trainer(1)
        training.epoch()
        run = training._groups[0].run
        assert isinstance(run, CompiledRun)
        trainee, n_batches = run.trainees[0], len(y) // BATCH
        numbers, labels = trainee.rooms[0]
        samples = run.samples.in_order(numbers, trainee.memory)
        of_samples = table_of(samples)
        scalars = np.zeros(n_batches * run.rules.n_scalars, np.float32)
        inputs = EpochInput(of_samples.ctypes.data, labels, run.samples.segments, scalars)
        table = table_of(inputs, run.rules, trainee.network, trainee.scratch)
        parts = {name: seconds_of(part, table.ctypes.data, n_batches) for name, part in PARTS.items()}
    used = int(np.count_nonzero(x)) if training.taken.name == "sparse" else x.size
    numpy = get_backend("numpy")
    with numpy.limit_threads(1):
        peak, memory = peak_flops(numpy), bandwidth(numpy, 1)
    read = used * (8 if training.taken.name == "sparse" else x.itemsize)
    floors = {"products of the first layer at the peak": 4 * used * HIDDEN / peak, "reading the samples once": read / memory}
    return {"path": training.taken.name, "epoch": whole, "parts": parts, "floors": floors}


def main() -> None:
    """Measure, print and write."""
    report, mnist, rng = environment(), load("mnist"), np.random.default_rng(0)
    cases = {
        "MNIST, uint8": (mnist.x_train, mnist.y_train),
        "100,000 × 54 floats": (rng.normal(size=(100_000, 54)).astype(np.float32), rng.integers(0, 7, 100_000)),
        "20,000 × 2,000 floats": (rng.normal(size=(20_000, 2000)).astype(np.float32), rng.integers(0, 10, 20_000)),
    }
    found = {}
    for case, data in cases.items():
        found[case] = profile(*data)
        sys.stdout.write(f"{case}, {HIDDEN} units, batch {BATCH}: the path {found[case]['path']}\n")
        for kind in ("epoch", "parts", "floors"):
            for name, seconds in found[case][kind].items():
                sys.stdout.write(f"    {kind:7} {name:45} {seconds * 1e3:7.2f} ms\n")
    write_json(str(RESULT), {"schema": 2, "environment": report, "hidden": HIDDEN, "batch_size": BATCH, "cases": found})


if __name__ == "__main__":
    main()
