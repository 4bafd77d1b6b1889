"""The times of the ops of a step, and the limits of the device that they are compared with; measured in the worker.

The roofline of Williams, Waterman and Patterson ("Roofline: an insightful visual performance model for multicore architectures",
2009): an op does at most as many operations a second as the peak, and at most its operations per byte times the bandwidth. Peak and
bandwidth are measured here, with the threads that the ops have, by a large product and a large copy.

A path does a whole step at once, so that is timed as one op, in epochs of the training itself; for the loop too, to compare them.
Its operations are those that no path can avoid: products with zeros of the data do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np

from mlp_accel.activations import find_activation
from mlp_accel.backends import Backend
from mlp_accel.backends.memory import Arena
from mlp_accel.bench.config import Config
from mlp_accel.bench.results import Op
from mlp_accel.optimizers import Rule, find_optimizer

PEAK_SIZE = 2048
"""Rows and columns of the product that the peak is taken from."""

COPY_BYTES = 2**28
"""Of the copy that the bandwidth is taken from: more than caches hold."""

SHORTEST = 0.02
"""Seconds that a sample lasts at least."""

SAMPLES = 7


def limits(backend: Backend, threads: int) -> dict[str, float]:
    """``peak_flops`` and ``bandwidth``."""
    return {"peak_flops": peak_flops(backend), "bandwidth": bandwidth(backend, threads)}


def op_times(backend: Backend, config: Config) -> list[dict[str, Any]]:
    """The ops of a step, each timed by itself."""
    return [
        Op(op=name, flops=flops, bytes=size, seconds=seconds_per_call(backend, call)).to_dict()
        for name, flops, size, call in step_ops(backend, config)
    ]


def whole_step(config: Config, density: float, item: int, seconds: float) -> dict[str, Any]:
    """A step as one op.

    Parameters
    ----------
    density : float
        Share of the samples' values that are not zero.
    item : int
        Bytes of one of these values, as they are kept.
    seconds : float
        Of a step, the mean over an epoch.
    """
    n = min(config.batch_size, config.n_train)
    n_in, *widths = config.layer_sizes
    first = 2 * 2.0 * n * n_in * widths[0] * density  # forward, and the gradient of the weights
    above = sum(3 * 2.0 * n * below * width for below, width in pairwise(widths))  # the delta of the layer below too
    weights = sum(below * width for below, width in pairwise(config.layer_sizes))
    size = n * n_in * item + 2 * weights * np.dtype(config.dtype).itemsize
    return Op(op="whole step", flops=first + above, bytes=float(size), seconds=seconds).to_dict()


def step_ops(backend: Backend, config: Config) -> list[tuple[str, float, float, Callable[[], Any]]]:
    """Name, operations, bytes and call of each op of a step; an exponential or a tanh is counted as one operation."""
    rng = np.random.default_rng(0)
    n_in, width, n_out = config.layer_sizes[:3]
    n = min(config.batch_size, config.n_train)
    item = np.dtype(config.dtype).itemsize
    activation, rule, scalars = find_activation(config.activation), *_rule(backend, config)
    pixels = backend.asarray(rng.integers(0, 256, (4 * n, n_in), dtype=np.uint8))
    labels, rows = backend.asarray(rng.integers(0, n_out, 4 * n)), backend.asarray(rng.permutation(4 * n)[:n])
    x, y, logits = backend.asarray(rng.random((n, n_in))), labels[:n], backend.asarray(rng.normal(size=(n, n_out)))
    params = backend.asarray(rng.normal(size=(n_in, width)) / n_in), backend.asarray(np.zeros(width))
    slots = [(backend.asarray(np.zeros((n_in, width))), backend.asarray(np.zeros(width))) for _ in range(rule.n_slots)]
    above, slope_input = backend.asarray(rng.normal(size=(width, n_out))), backend.asarray(rng.random((n, width)))
    error, delta = backend.asarray(rng.normal(size=(n, n_out))), backend.asarray(1e-6 * rng.normal(size=(n, width)))
    arena = Arena()

    def in_place(op: Callable[[], Any]) -> Callable[[], Any]:
        """In memory that is there already, as in training."""

        def call() -> Any:
            arena.restart()
            with backend.reusing(arena):
                return op()

        return call

    products, weights = 2.0 * n * n_in * width, n_in * width
    ops: list[tuple[str, float, float, Callable[[], Any]]] = [
        ("minibatch", n * n_in, n * n_in * (1 + item), lambda: backend.minibatch(pixels, labels, rows)),
        ("dense", products + 2 * n * width, item * (n * n_in + weights + n * width), lambda: backend.dense(x, *params, activation)),
        ("classify", 6 * n * n_out, 2 * item * n * n_out, lambda: backend.classify(logits, y, config.gradient)),
        (
            "hidden_delta",
            2 * n * width * n_out + 3 * n * width,
            item * (n * n_out + width * n_out + 2 * n * width),
            lambda: backend.hidden_delta(error, above, slope_input, activation),
        ),
        (
            "update",
            products + n * width + (1 + len(rule.record.assignments)) * weights,
            item * (n * n_in + n * width + 2 * (1 + rule.n_slots) * weights),
            lambda: backend.update(params, slots, x, delta, rule, scalars),
        ),
    ]
    return [(name, flops, size, in_place(op)) for name, flops, size, op in ops]


def _rule(backend: Backend, config: Config) -> tuple[Rule, Any]:
    """The rule of the optimiser, and the scalars of a step at learning rate 1.

    A backend may multiply the delta by the rate in place; at rate 1 it stays as it is, however often the op is called.
    """
    optimizer = find_optimizer(config.optimizer, momentum=config.momentum, weight_decay=config.weight_decay)
    rule = optimizer.record_for([optimizer])
    return rule, backend.scalar_rows(optimizer.scalars(rule, np.ones(1), 1))[0]


def seconds_per_call(backend: Backend, call: Callable[[], Any]) -> float:
    """Median over samples of many calls in a row, the device synchronised around each sample."""

    def sample(calls: int) -> float:
        backend.synchronize()
        start = perf_counter()
        for _ in range(calls):
            call()
        backend.synchronize()
        return perf_counter() - start

    calls = 1
    while (seconds := sample(calls)) < SHORTEST:
        calls = max(2 * calls, int(calls * SHORTEST / max(seconds, 1e-9)))
    return float(np.median([sample(calls) / calls for _ in range(SAMPLES)]))


def peak_flops(backend: Backend) -> float:
    """Operations a second of a large product."""
    square = backend.asarray(np.random.default_rng(0).random((PEAK_SIZE, PEAK_SIZE)))
    return 2.0 * PEAK_SIZE**3 / seconds_per_call(backend, lambda: square @ square)


def bandwidth(backend: Backend, threads: int) -> float:
    """Bytes a second that a large copy reads and writes; on the host every thread copies a part of it."""
    items = COPY_BYTES // np.dtype(backend.dtype).itemsize
    source, target = backend.asarray(np.ones(items)), backend.asarray(np.zeros(items))

    parts = threads if isinstance(source, np.ndarray) else 1  # a device has threads of its own
    ends = [items * part // parts for part in range(parts + 1)]
    slices = [slice(start, end) for start, end in pairwise(ends)]

    def copy(part: slice) -> None:
        target[part] = source[part]

    with ThreadPoolExecutor(len(slices)) as pool:  # NumPy lets other threads run while it copies
        return 2.0 * COPY_BYTES / seconds_per_call(backend, lambda: list(pool.map(copy, slices)))
