"""Where the time of an epoch goes: 784-32-10 in batches of 128 on the Numba backend, one thread, against what the machine allows.

    python benchmarks/epoch_profile.py    # half a minute

Each part is run by itself for as many steps as an epoch has, the fastest of seven times; an indented part is contained in the one
above. By themselves, parts must fetch from memory what in an epoch the part before has left in the cache. The whole epoch is that
of the backend, preparation of its memory included. Written to ``benchmarks/results/epoch_profile.json``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlp_accel import get_backend, init_params, load
from mlp_accel.backends.jit import packing, pixel_epoch
from mlp_accel.backends.jit.compiler import jit, numba
from mlp_accel.backends.jit.memory import N_GROUPS
from mlp_accel.backends.jit.pixel_lists import find_lists, list_images
from mlp_accel.benchmarking.environment import environment
from mlp_accel.benchmarking.roofline import bandwidth, peak_flops
from mlp_accel.files import write_json
from mlp_accel.training import SGDStep

RESULT = Path(__file__).parent / "results" / "epoch_profile.json"
HIDDEN, BATCH = 32, 128
STEPS = 60_000 // BATCH

first_layer, train_images = pixel_epoch.first_layer, pixel_epoch.train_images
softmax_errors, sum_losses = pixel_epoch.softmax_errors, pixel_epoch.sum_losses
update_first_layer, update_other_layers = pixel_epoch.update_first_layer, pixel_epoch.update_other_layers


@jit()
def finding_lists(data: Any, network: Any, scratch: Any) -> None:
    """Where the lists of each minibatch are."""
    for step in range(STEPS):
        for group in range(N_GROUPS):
            find_lists(data, scratch, step * BATCH, group, 0, BATCH)


@jit()
def first_layer_forward(data: Any, network: Any, scratch: Any) -> None:
    """The product with the weights of the first layer, and finding the lists."""
    for step in range(STEPS):
        for group in range(N_GROUPS):
            first_layer(data, network, scratch, step * BATCH, group, 0, BATCH)


@jit()
def other_layers_and_errors(data: Any, network: Any, scratch: Any) -> None:
    """From the first layer's sums to its errors."""
    for step in range(STEPS):
        train_images(data, network, scratch, step * BATCH, 0, BATCH, BATCH, 1, False)


@jit()
def softmax(data: Any, network: Any, scratch: Any) -> None:
    """Softmax, what the loss is made of, and the error at the logits."""
    for step in range(STEPS):
        softmax_errors(data, network, scratch, step * BATCH, 0, BATCH, BATCH, False)


@jit()
def first_layer_gradient(data: Any, network: Any, scratch: Any) -> None:
    """Finding and turning the lists, and the product with the errors."""
    for step in range(STEPS):
        for group in range(N_GROUPS):
            find_lists(data, scratch, step * BATCH, group, 0, BATCH)
            update_first_layer(data, network, scratch, BATCH, group, 0, np.float32(0))


@jit()
def turning_lists(data: Any, network: Any, scratch: Any) -> None:
    """From the pixels of each image to the images of each pixel."""
    for step in range(STEPS):
        for group in range(N_GROUPS):
            find_lists(data, scratch, step * BATCH, group, 0, BATCH)
            list_images(data, scratch, BATCH, group, 0)


@jit()
def other_layers_gradient(data: Any, network: Any, scratch: Any) -> None:
    """Weights of the second layer, and all biases."""
    for _ in range(STEPS):
        update_other_layers(network, scratch, BATCH, 0, 1, np.float32(0))


@jit()
def summing_losses(data: Any, network: Any, scratch: Any) -> None:
    """Sums of the losses and of the right answers."""
    for _ in range(STEPS):
        sum_losses(scratch, BATCH)


def three_regions(counts: Any) -> None:
    """What a step starts and joins, doing next to nothing."""
    for _ in range(STEPS):
        for thread in numba.prange(2):
            counts[thread * 16] += 1
        for thread in numba.prange(2):
            counts[thread * 16] += 1
        for thread in numba.prange(2):
            counts[thread * 16] += 1


PARTS: dict[str, Callable[[Any, Any, Any], None]] = {
    "first layer, forward": first_layer_forward,
    "  finding the lists": finding_lists,
    "other layers forward and back": other_layers_and_errors,
    "  softmax": softmax,
    "first layer, gradient and update": first_layer_gradient,
    "  turning the lists around": turning_lists,
    "other layers, gradient and update": other_layers_gradient,
    "sums of the losses": summing_losses,
}


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of seven calls, after one that compiles."""
    work()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Measure, print and write."""
    report, data = environment(), load("mnist")
    params = [(w.astype(np.float32), b.astype(np.float32)) for w, b in init_params([784, HIDDEN, 10], 0)]
    order, step = np.random.default_rng(0).permutation(60_000), SGDStep(0.1)
    lists = packing.list_pixels(data.x_train)
    assert lists is not None
    network = packing.pack_network(params, BATCH)
    scratch = packing.allocate_scratch(network, BATCH, 1)
    inputs = packing.pack_data(lists, data.y_train, order, 1, np.float32)
    used = int((lists.stops - lists.starts).sum())

    seconds = {name: fastest(partial(part, inputs, network, scratch)) for name, part in PARTS.items()}
    regions: Any = numba.njit(parallel=True)(three_regions)
    seconds["starting and joining two threads"] = fastest(partial(regions, np.zeros(32)))
    for threads in (1, 2) if numba.config.NUMBA_NUM_THREADS > 1 else (1,):
        with get_backend("numba").limit_threads(threads):
            name = f"whole epoch, {threads} thread{'s' if threads > 1 else ''}"
            seconds[name] = fastest(partial(packing.train_epoch, step, params, lists, data.y_train, order, BATCH, threads))
    numpy = get_backend("numpy")
    with numpy.limit_threads(1):
        peak, memory = peak_flops(numpy), bandwidth(numpy)
    floors = {
        "arithmetic of both big products at the peak of one thread": 2 * 2 * used * HIDDEN / peak,
        "reading the lists once at the bandwidth of one thread": 4 * used / memory,
    }
    write_json(
        str(RESULT),
        {
            "schema": 1,
            "environment": report,
            "pixels_not_zero": used,
            "seconds": seconds,
            "floors_seconds": floors,
            "peak_flops": peak,
            "bandwidth_bytes_per_second": memory,
        },
    )
    for name, value in (seconds | floors).items():
        sys.stdout.write(f"{name:60} {value * 1e3:7.2f} ms\n")


if __name__ == "__main__":
    main()
