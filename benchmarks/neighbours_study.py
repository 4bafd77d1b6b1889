"""How epochs fare beside other processes that compute: each engine alone, beside one busy neighbour and beside two.

    python benchmarks/neighbours_study.py    # about three minutes

Each engine trains in a process of its own, on all cores; a neighbour is a process that counts. Quoted are the median epoch over its
own median alone, and the longest. Written to ``benchmarks/results/neighbours_study.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mlp_accel import get_backend, init_params, load
from mlp_accel.backends.threads import default_threads
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.peers import peer_class
from mlp_accel.environment import environment
from mlp_accel.files import write_json
from mlp_accel.training.trainer import Trainer

RESULT = Path(__file__).parent / "results" / "neighbours_study.json"
ENGINES = ("numba sparse", "numba dense", "numba loop", "numpy loop", "jax")
NEIGHBOURS = (0, 1, 2)
SECONDS, FEWEST, MOST = 6.0, 10, 200
"""How long an engine trains each time, and between how many epochs."""

WARM_UP = 3


def train(engine: str) -> list[float]:
    """Seconds of epochs of 784-32-10 on MNIST in batches of 128."""
    threads, mnist = default_threads(), load("mnist")
    if engine == "jax":
        peer = peer_class("jax")(Config(threads=threads, learning_rate=0.1))
        peer.warm_up()
        peer.load()
        return timed(peer.epoch)
    name, path = engine.split()
    backend = get_backend(name)
    with backend.limit_threads(threads):
        options: dict[str, Any] = {"learning_rates": 0.1, "path": path, "threads": threads}
        trainer = Trainer(mnist.x_train, mnist.y_train, [init_params([784, 32, 10])], backend, **options)
        return timed(trainer.epoch)


def timed(epoch: Any) -> list[float]:
    """Seconds of as many epochs as there is time for."""
    for _ in range(WARM_UP):
        epoch()
    seconds: list[float] = []
    while len(seconds) < FEWEST or (sum(seconds) < SECONDS and len(seconds) < MOST):
        start = perf_counter()
        epoch()
        seconds.append(perf_counter() - start)
    return seconds


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Measure, print and write."""
    found: dict[str, Any] = {}
    report = environment()
    for engine in ENGINES:
        found[engine] = {}
        for count in NEIGHBOURS:
            with busy(count):
                command = [sys.executable, __file__, engine]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds = json.loads(output)
            found[engine][str(count)] = seconds
            alone = float(np.median(found[engine]["0"]))
            line = f"{np.median(seconds) / alone:.2f} times alone, the longest {max(seconds) / alone:.1f}, of {len(seconds)}"
            sys.stdout.write(f"{engine:13} {count} neighbours: median {np.median(seconds) * 1e3:7.1f} ms, {line}\n")
            sys.stdout.flush()
    write_json(str(RESULT), {"schema": 1, "environment": report, "threads": default_threads(), "seconds": found})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(train(sys.argv[1])))
    else:
        main()
