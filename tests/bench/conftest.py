"""A small task for the protocol, and workers with something planted in them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from mlp_accel.bench.config import Config
from mlp_accel.bench.results import Run, Summary

T = TypeVar("T")


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 900)
    x = rng.normal(size=(900, 8)) + 3 * np.eye(3, 8)[y]
    path = tmp_path_factory.mktemp("data") / "clouds.npz"
    np.savez(path, x_train=x[:800], y_train=y[:800], x_test=x[800:], y_test=y[800:])
    return Config(
        layer_sizes=(8, 6, 3), batch_size=16, learning_rate=0.1, threads=1, path="loop", data=str(path), n_train=800, epochs=5
    )


@pytest.fixture
def both(config: Config) -> Config:
    """The same task, for the loop of each backend and its fastest path."""
    return replace(config, path=None)


def there(value: T | None) -> T:
    """`value`, which must be there."""
    assert value is not None
    return value


def times(run: Run) -> Summary:
    """The epoch times of a run that has some."""
    assert run.epoch_seconds is not None, run.reason
    return run.epoch_seconds


def worker(behaviour: str) -> list[str]:
    """A worker that behaves as the real one, except for what `behaviour` (Python) plants in it."""
    code = f"from mlp_accel.bench.engines import worker\nfrom mlp_accel.bench.engines.worker import *\n{behaviour}\nworker.main()"
    return [sys.executable, "-c", code]


def planted(name: str, behaviour: str) -> list[str]:
    """A worker that behaves so only as the engine `name`."""
    return worker(f"""
honest_create = worker.create
def create(kind, name, *arguments):
    if name == {name!r}:
        exec({behaviour!r}, globals())
    return honest_create(kind, name, *arguments)
worker.create = create""")
