"""Slowdowns of a known size, for the studies: a copy of the package whose epochs take longer by a share of their time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SLOWED_EPOCH = """

def _longer(epoch, share):
    def longer_epoch(self):
        start = time.perf_counter()
        found = epoch(self)
        end = time.perf_counter()
        end += share * (end - start)
        while time.perf_counter() < end:
            pass
        return found
    return longer_epoch


Trainer.epoch = _longer(Trainer.epoch, {share})
"""
"""It computes on, and what the training computes stays as it is."""


def slow_down(source: Path, share: float) -> None:
    """Plant a slowdown in the sources of a package: 0.05 makes an epoch 5 % longer. Several multiply."""
    with (source / "mlp_accel" / "training" / "trainer.py").open("a") as file:
        file.write(SLOWED_EPOCH.format(share=share))


MORE_SAMPLES = """

import numpy
from mlp_accel.backends import paths as _paths

_start_path = _paths.start_path


def start_path(backend, loop, task, states, x, y, requested):
    more = int(x.shape[0] * {share})
    longer = [backend.xp.concat([array, array[:more]]) for array in (x, y)]
    run, taken = _start_path(backend, loop, task, states, *longer, requested)
    begin, finish, extended, n_batches = run.begin, run.finish, {{}}, 0

    def extend(orders):
        n = orders.shape[1]
        return numpy.concatenate([orders, numpy.tile(numpy.arange(n, n + more), (len(orders), 1))], 1)

    def begin_longer(orders, scalars):
        nonlocal n_batches
        n_batches = scalars.shape[1]
        rest = -(-(orders.shape[1] + more) // task.batch_size) - n_batches
        known, expected = extended.get("orders", (None, None))
        begin(expected if known is orders else extend(orders), numpy.concatenate([scalars, scalars[:, :rest]], 1))

    def finish_longer(following=None):
        if following is not None:
            extended["orders"] = following, extend(following)
        losses, hits = finish(None if following is None else extended["orders"][1])
        return losses[:, :n_batches], hits[:, :n_batches]

    run.begin, run.finish = begin_longer, finish_longer
    return run, taken


_paths.start_path = start_path
"""
"""More work in the same kernels, and in the same call of them. Goes to the end of ``mlp_accel/backends/__init__.py``, before
anybody has taken `start_path` from its module."""

LONGER = """
import functools
import time

began, depth = time.perf_counter(), 0


def begin():
    global began
    began = time.perf_counter()


def compute_on():
    end = time.perf_counter()
    end += {share} * (end - began)
    while time.perf_counter() < end:
        pass
    begin()


def at_its_start(function):
    @functools.wraps(function)
    def with_start(*arguments, **named):
        begin()
        return function(*arguments, **named)
    return with_start


def at_its_end(function):
    @functools.wraps(function)
    def with_end(*arguments, **named):
        global depth
        depth += 1
        try:
            return function(*arguments, **named)
        finally:
            depth -= 1
            if depth == 0:
                compute_on()
    return with_end
"""
"""The module ``mlp_accel/planted.py`` of a copy: at the end of a function it computes on for a share of the time since the start,
which is that of the process, that of another function, or the last such end. So what is measured as a whole takes longer by that
share, and all of it is spent in the function."""

FROM_THE_START = {"mlp_accel/__init__.py": "import mlp_accel.planted\n"}

OPS = """
from mlp_accel import planted

for _name in ("minibatch", "dense", "classify", "hidden_delta", "update"):
    setattr(NumpyBackend, _name, planted.at_its_end(getattr(NumpyBackend, _name)))
"""

LISTS = """
from mlp_accel import planted

list_samples = planted.at_its_end(list_samples)
"""

COMPILATION = """
from mlp_accel import planted
from numba.core.dispatcher import Dispatcher

Dispatcher.compile = planted.at_its_end(Dispatcher.compile)
"""

IMPORT = """
from mlp_accel import planted

planted.compute_on()
"""


def _start_of(owner: str, function: str) -> str:
    return f"\nfrom mlp_accel import planted\n\n{owner}.{function} = planted.at_its_start({owner}.{function})\n"


@dataclass(frozen=True)
class Place:
    """Where a slowdown is planted, and what must find it.

    Attributes
    ----------
    backend, measure : str
        Of ``mlp-accel ab``.
    options : tuple of str
        More options of it.
    appended : dict
        What goes to the end of files; ``{share}`` stands for the share.
    """

    backend: str
    measure: str
    appended: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


PLACES = {
    "kernels": Place("numba", "epoch", {"mlp_accel/backends/__init__.py": MORE_SAMPLES}),
    "ops": Place(
        "numpy",
        "epoch",
        {"mlp_accel/backends/loop.py": _start_of("LoopRun", "epoch"), "mlp_accel/backends/numpy/backend.py": OPS},
        ("--path", "loop"),
    ),
    "lists": Place(
        "numba",
        "transfer",
        {
            "mlp_accel/training/trainer.py": _start_of("Trainer", "__init__"),
            "mlp_accel/backends/numba/paths/sparse/lists.py": LISTS,
        },
        ("--path", "sparse"),
    ),
    "compilation": Place(
        "numba", "first-start", {**FROM_THE_START, "mlp_accel/backends/numba/compiler.py": COMPILATION}, ("--rounds", "1")
    ),
    "import": Place("numpy", "import", {**FROM_THE_START, "mlp_accel/backends/numpy/backend.py": IMPORT}),
}


def plant(source: Path, place: str, share: float) -> None:
    """Plant a slowdown of a share in one of `PLACES` of the sources of a package."""
    (source / "mlp_accel" / "planted.py").write_text(LONGER.replace("{share}", str(share)))
    for name, code in PLACES[place].appended.items():
        with (source / name).open("a") as file:
            file.write(code.replace("{share}", str(share)))
