"""How far the main ops are from what the device can do.

The roofline of Williams, Waterman and Patterson ("Roofline: an insightful visual performance model for multicore architectures",
2009): an op does at most as many operations a second as the peak, and at most its operations per byte times the bandwidth. Peak and
bandwidth are measured here, with the threads that the ops have, by a large product and a large copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from mlp_accel.backends import Backend
from mlp_accel.benchmarking.engine import CALL_TIMEOUT, EngineError
from mlp_accel.benchmarking.runs import Listener, Run, attempt, start

PEAK_SIZE = 2048
"""Rows and columns of the product that the peak is taken from."""

COPY_BYTES = 2**28
"""Of the copy that the bandwidth is taken from: more than caches hold."""

SHORTEST = 0.02
"""Seconds that a sample lasts at least."""

SAMPLES = 7


def measure_roofline(backend: Backend, config: dict[str, Any]) -> dict[str, Any]:
    """Time the main ops of a step, and the two limits.

    Parameters
    ----------
    backend : Backend
    config : dict
        As in the result file: the shapes are those of its first layer.

    Returns
    -------
    dict
        ``peak_flops`` (operations a second), ``bandwidth`` (bytes a second) and ``ops``: for each its ``flops``, the ``bytes`` that
        it must read and write at least once, and ``seconds``.
    """
    ops = [
        {"op": name, "flops": flops, "bytes": size, "seconds": seconds_per_call(backend, call)}
        for name, flops, size, call in main_ops(backend, config)
    ]
    return {"peak_flops": peak_flops(backend), "bandwidth": bandwidth(backend), "ops": ops}


def main_ops(backend: Backend, config: dict[str, Any]) -> list[tuple[str, float, float, Callable[[], Any]]]:
    """Name, operations, bytes and call of each; an exponential or a tanh is counted as one operation."""
    rng = np.random.default_rng(0)
    n_in, width = config["layer_sizes"][:2]
    n = min(config["batch_size"], config["n_train"])
    item = np.dtype(config["dtype"]).itemsize
    pixels = backend.asarray(rng.integers(0, 256, (4 * n, n_in), dtype=np.uint8))
    labels, rows = backend.asarray(rng.integers(0, width, 4 * n)), backend.asarray(rng.permutation(4 * n)[:n])
    x, hidden = backend.asarray(rng.random((n, n_in))), backend.asarray(rng.normal(size=(n, width)))
    weights, bias = backend.asarray(rng.normal(size=(n_in, width)) / n_in), backend.asarray(np.zeros(width))
    grad = (backend.empty((n_in, width)), backend.empty((width,)))
    batch, output = backend.empty((n, n_in)), backend.empty((n, width))
    products = 2.0 * n * n_in * width
    through = item * (n * n_in + n_in * width + n * width)
    return [
        ("minibatch", n * n_in, n * n_in * (1 + item), lambda: backend.minibatch(pixels, labels, rows, out=batch)),
        ("dense", products + 2 * n * width, through, lambda: backend.dense(x, weights, bias, config["activation"], out=output)),
        ("softmax", 5 * n * width, 2 * item * n * width, lambda: backend.softmax(hidden, out=output)),
        ("dense_gradient", products + n * width, through, lambda: backend.dense_gradient(x, hidden, out=grad)),
        (
            "sgd_update",
            2 * n_in * width,
            3 * item * n_in * width,
            lambda: backend.sgd_update(weights, grad[0], 1e-30, out=weights),
        ),
    ]


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


def bandwidth(backend: Backend) -> float:
    """Bytes a second that a large copy reads and writes."""
    items = COPY_BYTES // np.dtype(backend.dtype).itemsize
    source, target = backend.asarray(np.ones(items)), backend.asarray(np.zeros(items))

    def copy() -> None:
        target[...] = source

    return 2.0 * COPY_BYTES / seconds_per_call(backend, copy)


def run_roofline(
    rows: Sequence[dict[str, Any]], config: dict[str, Any], listen: Listener = lambda _: None, timeout: float = CALL_TIMEOUT
) -> list[dict[str, Any]]:
    """The roofline of every backend in `rows` whose training was right; ``name``, and what `measure_roofline` gives."""
    found = []
    for row in rows:
        run = Run.of(row["name"])
        if row["status"] != "ok" or run.kind != "backend":
            continue
        try:
            attempt(run, listen, lambda run: start(run, config, timeout, listen))
            if run.engine is not None:
                found.append({"name": run.name, **run.engine.call("roofline")})
        except EngineError as error:
            listen(f"{run.name}: no roofline: {error}")
        finally:
            run.close()
    return found
