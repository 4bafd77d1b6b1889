"""A small task for the protocol, and workers with something planted in them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 900)
    x = rng.normal(size=(900, 8)) + 3 * np.eye(3, 8)[y]
    path = tmp_path_factory.mktemp("data") / "clouds.npz"
    np.savez(path, x_train=x[:800], y_train=y[:800], x_test=x[800:], y_test=y[800:])
    return {
        "layer_sizes": [8, 6, 3],
        "activation": "tanh",
        "gradient": "exact",
        "dtype": "float32",
        "batch_size": 16,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "momentum": None,
        "weight_decay": 0.0,
        "seed": 0,
        "threads": 1,
        "path": "loop",
        "data": str(path),
        "n_train": 800,
    }


@pytest.fixture
def both(config: dict[str, Any]) -> dict[str, Any]:
    """The same task, for the loop of each backend and its fastest path."""
    return {**config, "path": None}


def worker(behaviour: str) -> list[str]:
    """A worker that behaves as the real one, except for what `behaviour` (Python) plants in it."""
    code = f"from mlp_accel.bench.engines import worker\nfrom mlp_accel.bench.engines.worker import *\n{behaviour}\nworker.main()"
    return [sys.executable, "-c", code]
