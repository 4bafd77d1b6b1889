"""Numba's paths and NumPy's loop against the peers, by kind of data, network and minibatch.

    python benchmarks/cpu_study.py    # about 20 minutes; --only "table 32" measures the cells of that name anew

Each cell is a run of `mlp-accel bench` with the peers that can be fastest, all engines taking turns epoch by epoch. The results
stand in ``benchmarks/results/cpu_study.json``, or where ``--output`` says, and are written after each cell. The kinds of data:

- ``mnist``: the images as they are, uint8, of which one value in five is not zero;
- ``mnist-float32``: the same divided by 255, as users of scikit-learn and Keras have them;
- ``half``: uint8 images of which half is not zero, as in Fashion-MNIST: MNIST with noise in some of its black pixels;
- ``table``: 100,000 samples of 54 floats, 7 classes;
- ``wide``: 20,000 samples of 2,000 floats, 10 classes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from records import say

from mlp_accel.backends.threads import default_threads
from mlp_accel.bench.config import Config
from mlp_accel.bench.evidence import ratio_interval
from mlp_accel.bench.protocol import run_benchmark
from mlp_accel.bench.results import Result
from mlp_accel.datasets import load
from mlp_accel.files import write_json

RESULT = Path(__file__).parent / "results" / "cpu_study.json"
KINDS = ("mnist", "mnist-float32", "half", "table", "wide")
PEERS = ("scikit-learn", "pytorch", "pytorch-handwritten", "jax", "numpy-handwritten")
FASTEST_PEERS = PEERS[2:]
"""For all cells but the smallest networks: scikit-learn and autograd are never the fastest."""

WIDE = 512
"""From this width on fewer epochs are measured."""


class Cell(NamedTuple):
    """A training that is measured."""

    kind: str
    hidden: tuple[int, ...]
    batch_size: int
    threads: int = default_threads()
    activation: str = "tanh"
    path: str | None = None
    """The path of all backends; None for the loop and the fastest."""
    optimizer: str = "sgd"

    def __str__(self) -> str:
        name = f"{self.kind} {'-'.join(map(str, self.hidden))} {self.activation}/{self.batch_size}/{self.threads}"
        return " ".join([name, *([self.path] if self.path else []), *([self.optimizer] if self.optimizer != "sgd" else [])])


GRID = [Cell(kind, (hidden,), batch) for kind in KINDS for hidden in (32, 128, 512) for batch in (32, 128, 1024)]
CELLS = [
    *(Cell(kind, (32,), 128, 1) for kind in KINDS),
    *GRID,
    Cell("mnist", (256, 128), 128, activation="relu"),
    Cell("table", (64, 64), 128, activation="relu"),
    Cell("mnist-float32", (128,), 128, path="dense"),
    Cell("mnist-float32", (256,), 1024, path="dense"),
    *(Cell(kind, (32,), 128, optimizer=optimizer) for kind in ("mnist", "table") for optimizer in ("momentum", "adamw")),
]


def data_of(kind: str, folder: Path) -> str:
    """The data in the form that `datasets.load` takes."""
    if kind == "mnist":
        return kind
    file = folder / f"{kind}.npz"
    if not file.exists():
        arrays: dict[str, Any] = arrays_of(kind)
        np.savez(file, **arrays)
    return str(file)


def arrays_of(kind: str) -> dict[str, Any]:
    """Training and test samples, and labels."""
    rng, mnist = np.random.default_rng(0), load("mnist")
    if kind in ("table", "wide"):
        n, n_in, n_classes = (100_000, 54, 7) if kind == "table" else (20_000, 2000, 10)
        x, weights = rng.normal(size=(n + 1000, n_in)).astype(np.float32), rng.normal(size=(n_in, n_classes))
        y = (x @ weights + 5 * rng.normal(size=(n + 1000, n_classes))).argmax(axis=1)
        return {"x_train": x[:n], "y_train": y[:n], "x_test": x[n:], "y_test": y[n:]}
    labels = {"y_train": mnist.y_train, "y_test": mnist.y_test}
    images = {"x_train": mnist.x_train, "x_test": mnist.x_test}
    if kind == "mnist-float32":
        return {name: (x / np.float32(255)).astype(np.float32) for name, x in images.items()} | labels
    noise = {name: rng.integers(1, 60, x.shape, dtype=np.uint8) * (rng.random(x.shape) < 0.38) for name, x in images.items()}
    return {name: np.maximum(x, noise[name].astype(np.uint8)) for name, x in images.items()} | labels


def measure_cell(cell: Cell, folder: Path) -> Result:
    """All engines on one network; the learning rate is small enough for all of them."""
    peers = PEERS if (cell.hidden, cell.batch_size) == ((32,), 128) else FASTEST_PEERS
    data = data_of(cell.kind, folder)
    loaded = load(data)
    config = Config(
        activation=cell.activation,
        batch_size=cell.batch_size,
        layer_sizes=(loaded.x_train.shape[1], *cell.hidden, int(loaded.y_train.max()) + 1),
        optimizer=cell.optimizer,
        learning_rate=0.05 if cell.optimizer == "sgd" else 0.001,
        momentum=0.9 if cell.optimizer == "momentum" else None,
        threads=cell.threads,
        path=cell.path,
        data=data,
        n_train=len(loaded.y_train),
        epochs=11 if max(cell.hidden) < WIDE else 7,
    )
    return run_benchmark(["numba", *([] if cell.path else ["numpy"]), *peers], config, say)


def ratios(result: Result) -> dict[str, Any]:
    """How many times faster ours are: Numba than the fastest peer and than NumPy, NumPy than the loop written by hand."""
    times = [(run, run.epoch_seconds) for run in result.results if run.epoch_seconds]
    samples = {run.label: seconds.samples for run, seconds in times}
    _, fastest = min((seconds.median, run.name) for run, seconds in times if run.kind == "peer")
    _, numba, path = min((seconds.median, run.label, run.path) for run, seconds in times if run.name == "numba")
    pairs = {"numba_against_fastest_peer": (fastest, numba), "numba_against_numpy": ("numpy loop", numba)}
    pairs["numpy_against_numpy_by_hand"] = ("numpy-handwritten", "numpy loop")
    found: dict[str, Any] = {"fastest_peer": fastest, "path": path}
    for name, (slow, quick) in pairs.items():
        if slow in samples and quick in samples:
            ratio = float(np.median(samples[slow]) / np.median(samples[quick]))
            found[name] = {"ratio": ratio, "interval": ratio_interval(samples[quick], samples[slow])}
    return found


def measure_cells(cells: Sequence[Cell], file: Path) -> None:
    """Measure these cells, and keep the others in the file as they are."""
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if results.get("schema") != 2:
        results = {"schema": 2, "cells": {}}
    with tempfile.TemporaryDirectory() as folder:
        for cell in cells:
            say(str(cell))
            result = measure_cell(cell, Path(folder))
            results["cells"][str(cell)] = {**ratios(result), **result.to_dict()}
            say(f"{cell}: {results['cells'][str(cell)]['numba_against_fastest_peer']}")
            write_json(str(file), results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", help="only the cells whose name contains it")
    parser.add_argument("--output", type=Path, default=RESULT, help="the result file, such as that of another machine")
    options = parser.parse_args()
    measure_cells([cell for cell in CELLS if options.only is None or options.only in str(cell)], options.output)
