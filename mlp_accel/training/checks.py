"""Whether samples, labels, networks and settings fit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import SettingError

Networks = Sequence[Sequence[tuple[Any, Any]]]
"""For each network its parameters: ``(weights, bias)`` for each layer."""


def check_networks(networks: Networks) -> list[int]:
    """The layer sizes that all networks have; ValueError if they differ, or if layers do not fit together."""
    sizes = [check_params(params) for params in networks]
    if not sizes or any(other != sizes[0] for other in sizes):
        kinds = len({tuple(layer_sizes) for layer_sizes in sizes})
        raise ValueError(f"the networks must be one or more, all of the same layer sizes; got {len(networks)} of {kinds} kinds")
    return sizes[0]


def check_params(params: Sequence[tuple[Any, Any]]) -> list[int]:
    """The layer sizes of a network; ValueError if its layers do not fit together."""
    if not params:
        raise ValueError("a network has at least one layer; got none")
    sizes = [params[0][0].shape[0]]
    for layer, (weights, bias) in enumerate(params, start=1):
        if weights.shape != (sizes[-1], *bias.shape) or len(weights.shape) != 2:
            expected = f"({sizes[-1]}, n) and (n,)"
            raise ValueError(f"layer {layer} must have weights and bias of shape {expected}; got {weights.shape} and {bias.shape}")
        sizes.append(weights.shape[1])
    return sizes


def one_for_each(values: Any, count: int, what: str) -> list[Any]:
    """A value for each of `count` networks, from one for all (or None) or from a sequence of so many.

    Raises
    ------
    SettingError
        For a sequence of another length; names it by `what`.
    """
    if values is None or np.ndim(values) == 0:
        return [values] * count
    if len(values) != count:
        raise SettingError(f"there must be one of the {what} for each of the {count} networks; got {len(values)}")
    return list(values)


def check_rows(rows: Sequence[Any], count: int, n_samples: int) -> list[npt.NDArray[np.int64]]:
    """The numbers of the samples of each of `count` networks.

    Raises
    ------
    SettingError
        If they are not given for each network.
    ValueError
        If those of a network are no numbers of samples, or name one twice.
    """
    if len(rows) != count:
        raise SettingError(f"there must be rows for each of the {count} networks; got {len(rows)}")
    found = []
    for network, numbers in enumerate(rows):
        own = np.asarray(numbers)
        if own.ndim != 1 or not own.size or not np.issubdtype(own.dtype, np.integer):
            raise ValueError(
                f"the rows of network {network} must be numbers of samples, one or more; got {own.dtype} of shape {own.shape}"
            )
        if own.min() < 0 or own.max() >= n_samples:
            raise ValueError(
                f"the rows of network {network} go from {own.min()} to {own.max()}; the samples are 0 to {n_samples - 1}"
            )
        if np.bincount(own).max() > 1:
            raise ValueError(f"the rows of network {network} name sample {np.bincount(own).argmax()} more than once")
        found.append(own.astype(np.int64, copy=False))
    return found


def check_labels(y: npt.NDArray[Any], n_samples: int, n_classes: int) -> None:
    """Refuse labels that do not fit the samples or the network; ValueError."""
    if n_samples == 0 or y.shape != (n_samples,):
        raise ValueError(f"y must hold one label for each of the {n_samples} samples of x, at least one; its shape is {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"y must be integer labels; its dtype is {y.dtype}")
    if y.min() < 0 or y.max() >= n_classes:
        raise ValueError(f"y has labels from {y.min()} to {y.max()}; the network knows 0 to {n_classes - 1}")
