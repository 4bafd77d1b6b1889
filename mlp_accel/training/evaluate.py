"""Loss and accuracy of a network on a whole data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mlp_accel.activations import Activation, find_activation
from mlp_accel.backends import get_backend
from mlp_accel.backends.arrays import Array, Params, is_sparse
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import to_backend
from mlp_accel.backends.threads import thread_count
from mlp_accel.errors import SettingError
from mlp_accel.inputs import as_labels, as_samples
from mlp_accel.network import layer_outputs
from mlp_accel.training.checks import check_labels, check_params


def evaluate(
    backend: Backend | str | None,
    params: Sequence[tuple[Any, Any]],
    x: Any,
    y: Any,
    activation: str | Activation,
    batch_size: int = 1000,
    threads: int | None = None,
) -> tuple[float, float]:
    """Mean loss and accuracy of a network on a whole data set, `batch_size` samples at a time.

    Parameters
    ----------
    activation : str or Activation
        That which the network was trained with: the parameters do not tell.
    threads : int, optional
        CPU threads; by default ``MLP_ACCEL_NUM_THREADS``, else the cores granted to the process.

    Returns
    -------
    loss, accuracy : float

    Raises
    ------
    SettingError
        If the batch size is below 1, the activation unknown, or there are not so many threads.
    ValueError
        If data and parameters do not fit together.
    """
    if batch_size < 1:
        raise SettingError(f"the batch size must be at least 1; got {batch_size}")
    activation = find_activation(activation)
    used = backend if isinstance(backend, Backend) else get_backend(backend)
    sizes = check_params(params)
    x, y = on_device(used, x, y, sizes)
    with used.limit_threads(thread_count(threads)):
        return mean_loss(used, to_backend(used, params), pieces(used, x, y, batch_size), activation)


def on_device(backend: Backend, x: Any, y: Any, layer_sizes: Sequence[int]) -> tuple[Any, Array]:
    """Samples, as `as_samples` returns them, and their labels; ValueError if they do not fit together or do not fit the network."""
    x, y = as_samples(x, backend, layer_sizes[0]), as_labels(y)
    check_labels(y, x.shape[0], layer_sizes[-1])
    return x, backend.asarray(np.array(y, np.int64))


def pieces(backend: Backend, x: Any, y: Array, batch_size: int = 1000) -> Iterator[tuple[Array, Array]]:
    """Samples and labels, as `on_device` returns them, `batch_size` at a time; those of a sparse matrix become dense here."""
    for start in range(0, x.shape[0], batch_size):
        part = x[start : start + batch_size, ...]
        yield backend.asarray(part.toarray()) if is_sparse(x) else part, y[start : start + batch_size]


def mean_loss(
    backend: Backend, params: Params, samples: Iterable[tuple[Array, Array]], activation: Activation
) -> tuple[float, float]:
    """Mean loss and accuracy of a network on a device, on samples and labels that come in `pieces`."""
    loss = hits = 0.0
    n = 0
    for x, y in samples:
        outputs, _ = layer_outputs(backend, params, backend.scale_pixels(x), activation)
        _, piece_loss, piece_hits = backend.classify(outputs[-1], y, "exact")
        loss += float(piece_loss)
        hits += float(piece_hits)
        n += x.shape[0]
    return loss / n, hits / n
