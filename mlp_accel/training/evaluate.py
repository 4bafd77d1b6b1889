"""Loss and accuracy of a network on a whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation, find_activation
from mlp_accel.backends import get_backend
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import to_backend
from mlp_accel.backends.threads import thread_count
from mlp_accel.errors import SettingError
from mlp_accel.network import layer_outputs
from mlp_accel.training.checks import check_labels, check_params


def evaluate(
    backend: Backend | str | None,
    params: Sequence[tuple[Any, Any]],
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
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
    check_labels(y, len(x), sizes[-1])
    loss = hits = 0.0
    with used.limit_threads(thread_count(threads)):
        on_device = to_backend(used, params)
        for start in range(0, len(x), batch_size):
            part = used.asarray(x[start : start + batch_size])
            used.check_input(part, sizes[0])
            outputs, _ = layer_outputs(used, on_device, used.scale_pixels(part), activation)
            labels = used.asarray(np.array(y[start : start + batch_size], np.int64))
            _, part_loss, part_hits = used.classify(outputs[-1], labels, "exact")
            loss += float(part_loss)
            hits += float(part_hits)
    return loss / len(x), hits / len(x)
