"""Files of trained parameters: a ``.npz`` with ``weights_1``, ``bias_1``, ``weights_2`` and so on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.datasets.npz import read_npz
from mlp_accel.errors import ParameterFileError
from mlp_accel.files import write_atomically


def save_params(path: str | os.PathLike[str], params: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> None:
    """Write parameters (NumPy arrays) to a ``.npz`` file, whole or not at all.

    Raises
    ------
    ParameterFileError
        If they are what `load_params` would refuse: no floating arrays, or layers that do not fit together. Nothing is written.
    OutputError
        If the file cannot be written.
    """
    checked = [(np.asarray(weights), np.asarray(bias)) for weights, bias in params]
    _check(path, checked)
    arrays: dict[str, Any] = {}
    for layer, (weights, bias) in enumerate(checked, start=1):
        arrays[f"weights_{layer}"], arrays[f"bias_{layer}"] = weights, bias
    write_atomically(Path(path), lambda file: np.savez(file, **arrays))


def load_params(path: str | os.PathLike[str]) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Read parameters that `save_params` or ``mlp-accel train --save`` wrote.

    Returns
    -------
    list of (weights, bias)
        ``(n_in, n_out)`` and ``(n_out,)`` for each layer.

    Raises
    ------
    ParameterFileError
        If the file is missing or malformed, or its layers do not fit together.
    """
    arrays = read_npz(Path(path), ParameterFileError)
    layers = len(arrays) // 2
    names = [f"{kind}_{layer}" for layer in range(1, layers + 1) for kind in ("weights", "bias")]
    if not layers or set(names) != set(arrays):
        raise ParameterFileError(f"{path}: holds {', '.join(arrays) or 'nothing'}, not weights_1, bias_1, weights_2 and so on")
    params = [(arrays[f"weights_{layer}"], arrays[f"bias_{layer}"]) for layer in range(1, layers + 1)]
    _check(path, params)
    return params


def _check(path: str | os.PathLike[str], params: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> None:
    """Raise ParameterFileError if the parameters, read from `path` or to be written to it, are no network."""
    if not params:
        raise ParameterFileError(f"{path}: a network has at least one layer; there is none")
    n_in: int | None = None
    for layer, (weights, bias) in enumerate(params, start=1):
        if weights.ndim != 2 or bias.shape != weights.shape[1:] or n_in not in (None, weights.shape[0]):
            shapes = f"weights_{layer} {weights.shape}, bias_{layer} {bias.shape}"
            raise ParameterFileError(f"{path}: {shapes} do not fit together or do not follow the layer before")
        if not (np.issubdtype(weights.dtype, np.floating) and np.issubdtype(bias.dtype, np.floating)):
            raise ParameterFileError(f"{path}: layer {layer} is not floating: {weights.dtype}, {bias.dtype}")
        n_in = weights.shape[1]
