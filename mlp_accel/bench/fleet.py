"""The same benchmark on every machine of a Dask cluster: ``mlp-accel bench`` as a process of its own beside idle workers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlp_accel.exit_codes import DIFFERENT, UNAVAILABLE

Place = tuple[str, str]
"""Host name, and what ``CUDA_VISIBLE_DEVICES`` says there."""

WORTH_KEEPING = (0, DIFFERENT, UNAVAILABLE)
"""Exit codes of ``bench`` with which it writes a file."""

LOOK = 2.0
"""Seconds between two looks at who is still there."""


@dataclass(frozen=True)
class Measured:
    """What came of the benchmark on one machine.

    Attributes
    ----------
    label : str
        Host name, with the GPU where workers of one host have one each.
    result : dict or None
        The object of the result file, with the label.
    problem : str or None
        Why there is none.
    """

    label: str
    result: dict[str, Any] | None
    problem: str | None = None


def machines(client: Any) -> dict[str, str]:
    """A worker's address for each host of the cluster, and for each GPU where workers have one each, by label."""
    places: dict[Place, str] = {}
    for address, place in sorted(client.run(place_of_worker).items()):
        places.setdefault(place, address)
    hosts = [host for host, _ in places]
    return {host if hosts.count(host) == 1 else f"{host}-gpu{gpu}": address for (host, gpu), address in places.items()}


def place_of_worker() -> Place:
    """In a worker: where it is."""
    return socket.gethostname(), os.environ.get("CUDA_VISIBLE_DEVICES", "")


def measure(options: Sequence[str]) -> tuple[int, str | None, str]:
    """In a worker: run the benchmark; its exit code, its file and its last words."""
    with tempfile.TemporaryDirectory(prefix="mlp-accel-fleet.") as folder:
        file = Path(folder) / "bench.json"
        command = [sys.executable, "-m", "mlp_accel", "bench", *options, "--json", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        content = file.read_text(encoding="utf-8") if file.exists() else None
        return done.returncode, content, done.stderr.strip()[-500:]


def measure_fleet(client: Any, options: Sequence[str], listen: Callable[[Measured], object]) -> list[Measured]:
    """Run the benchmark on every machine: hosts at the same time, the GPUs of a host one after another.

    Parameters
    ----------
    client : distributed.Client
    options : sequence of str
        Of ``mlp-accel bench``.
    listen : callable
        Called with each `Measured` as soon as it is there.
    """
    by_host: dict[str, list[tuple[str, str]]] = {}
    for label, address in machines(client).items():
        by_host.setdefault(label.partition("-gpu")[0], []).append((label, address))
    found: list[Measured] = []
    running: dict[str, tuple[str, str, Any]] = {}
    while by_host:
        for host, waiting in by_host.items():
            if host not in running:
                label, address = waiting[0]
                task = client.submit(measure, list(options), workers=[address], allow_other_workers=False, pure=False)
                running[host] = label, address, task
        time.sleep(LOOK)
        there = client.nthreads()
        for host, (label, address, task) in list(running.items()):
            if not task.done() and address in there:
                continue
            measured = _outcome(label, task) if task.done() else Measured(label, None, f"its worker {address} was lost")
            task.cancel()
            found.append(measured)
            listen(measured)
            del running[host]
            by_host[host] = by_host[host][1:]
        by_host = {host: waiting for host, waiting in by_host.items() if waiting}
    return found


def _outcome(label: str, task: Any) -> Measured:
    if task.status != "finished":
        return Measured(label, None, f"{task.status}: {task.exception()}")
    code, content, words = task.result()
    if content is None or code not in WORTH_KEEPING:
        return Measured(label, None, f"bench ended with exit code {code}: {words}")
    return Measured(label, {**json.loads(content), "label": label})
