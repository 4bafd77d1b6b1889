"""The Numba backend and the NumPy backend against the peers, network by network.

    python benchmarks/cpu_study.py    # about 20 minutes; --only 784-32-10 measures the cells of that name anew

Each cell is a run of `mlp-accel bench` with the peers that can be fastest, all engines taking turns epoch by epoch. The results
stand in ``benchmarks/results/cpu_study.json``, which is written after each cell.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mlp_accel.backends.threads import default_threads
from mlp_accel.bench.comparison import ratio_interval
from mlp_accel.bench.config import Config
from mlp_accel.bench.protocol import run_benchmark
from mlp_accel.bench.results import Result
from mlp_accel.files import write_json

RESULT = Path(__file__).parent / "results" / "cpu_study.json"
PEERS = ("scikit-learn", "pytorch", "pytorch-handwritten", "jax", "numpy-handwritten")
WIDE = 512
"""From this width on scikit-learn and autograd are left out: they are never the fastest, and slow."""

GRID = [((hidden,), "tanh", batch_size, default_threads()) for hidden in (32, 128, 512, 2048) for batch_size in (32, 128, 1024)]
CELLS = [((32,), "tanh", 128, 1), *GRID, ((256, 128), "relu", 128, default_threads())]

Cell = tuple[tuple[int, ...], str, int, int]


def say(line: str) -> None:
    """A line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def name_of(cell: Cell) -> str:
    """As in the result file."""
    hidden, activation, batch_size, threads = cell
    sizes = "-".join(str(size) for size in (784, *hidden, 10))
    return f"{sizes} {activation}/{batch_size}/{threads}"


def measure_cell(cell: Cell) -> Result:
    """All engines on one network; the learning rate is small enough for all of them."""
    hidden, activation, batch_size, threads = cell
    peers = PEERS if max(hidden) < WIDE else PEERS[2:]
    config = Config(
        activation=activation,
        batch_size=batch_size,
        layer_sizes=(784, *hidden, 10),
        learning_rate=0.1,
        threads=threads,
        epochs=15 if max(hidden) < WIDE else 9,
    )
    return run_benchmark(["numba", "numpy", *peers], config, say)


def ratios(result: Result) -> dict[str, Any]:
    """How many times faster ours are: Numba than the fastest peer and than NumPy, NumPy than the loop written by hand."""
    times = [(run, run.epoch_seconds) for run in result.results if run.epoch_seconds]
    samples = {run.label: seconds.samples for run, seconds in times}
    _, fastest = min((seconds.median, run.name) for run, seconds in times if run.kind == "peer")
    _, numba = min((seconds.median, run.label) for run, seconds in times if run.name == "numba")
    pairs = {"numba_against_fastest_peer": (fastest, numba), "numba_against_numpy": ("numpy loop", numba)}
    pairs["numpy_against_numpy_by_hand"] = ("numpy-handwritten", "numpy loop")
    found: dict[str, Any] = {"fastest_peer": fastest}
    for name, (slow, quick) in pairs.items():
        if slow in samples and quick in samples:
            ratio = float(np.median(samples[slow]) / np.median(samples[quick]))
            found[name] = {"ratio": ratio, "interval": ratio_interval(samples[quick], samples[slow])}
    return found


def measure_cells(only: str | None) -> None:
    """Measure every cell, or those whose name contains `only`."""
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"schema": 1, "cells": {}}
    for cell in CELLS:
        if only is None or only in name_of(cell):
            say(name_of(cell))
            result = measure_cell(cell)
            results["cells"][name_of(cell)] = {**ratios(result), **result.to_dict()}
            write_json(str(RESULT), results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", help="only the cells whose name contains it")
    measure_cells(parser.parse_args().only)
