"""Samples and labels as people have them: each kind trains to the same bits as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel import init_params, mini_batch_sgd
from mlp_accel.backends import Backend

LAYERS = [20, 16, 3]


def data() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, LAYERS[0])).astype(np.float32), rng.integers(0, LAYERS[-1], 200)


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def mapped(array: npt.NDArray[Any], folder: Path) -> npt.NDArray[Any]:
    np.save(folder / "array.npy", array)
    result: npt.NDArray[Any] = np.load(folder / "array.npy", mmap_mode="r")
    return result


Kinds = dict[str, Callable[[Any, Path], Any]]

SAMPLES: Kinds = {
    "Fortran order": lambda x, _: np.asfortranarray(x),
    "every second row": lambda x, _: np.repeat(x, 2, axis=0)[::2],
    "read-only": lambda x, _: read_only(x),
    "memory-mapped": mapped,
    "float64": lambda x, _: x.astype(np.float64),
    "big-endian": lambda x, _: x.astype(">f4"),
}
LABELS: Kinds = {
    "int32": lambda y, _: y.astype(np.int32),
    "uint8": lambda y, _: y.astype(np.uint8),
    "big-endian": lambda y, _: y.astype(">i4"),
    "read-only": lambda y, _: read_only(y),
    "memory-mapped": mapped,
    "every second": lambda y, _: np.repeat(y, 2)[::2],
}


def bits(x: Any, y: Any, backend: Backend) -> list[bytes]:
    history_params: list[Any] = init_params(LAYERS)
    history = mini_batch_sgd(x, y, history_params, backend=backend, epochs=2, batch_size=32, learning_rate=0.1)
    return [array.tobytes() for layer in history.params for array in layer]


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_of_any_layout_train_to_the_same_bits(backend: Backend, kind: str, tmp_path: Path) -> None:
    x, y = data()
    assert bits(SAMPLES[kind](x, tmp_path), y, backend) == bits(x, y, backend)


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_layout_train_to_the_same_bits(backend: Backend, kind: str, tmp_path: Path) -> None:
    x, y = data()
    assert bits(x, LABELS[kind](y, tmp_path), backend) == bits(x, y, backend)
