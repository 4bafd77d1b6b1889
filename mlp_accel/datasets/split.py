"""Choosing a share of the samples, the same of every class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import SettingError


def stratified_share(y: npt.NDArray[Any], share: float, seed: int) -> npt.NDArray[np.bool]:
    """Choose a share of the samples at random, the same share of every class up to rounding.

    Parameters
    ----------
    y : array (n,)
        Labels of any kind.
    share : float
        Between 0 and 1.
    seed : int
        Another stream than those of `init_params` and of the order of the samples.

    Returns
    -------
    array (n,)
        Whether each sample is chosen. ``share * n`` of them are, rounded; of every class one at least is not.

    Raises
    ------
    SettingError
        If the share is no number between 0 and 1, or so small or large that nothing is left on one side.
    """
    if not (isinstance(share, float | int | np.number) and 0 < share < 1):
        raise SettingError(f"a share of the samples must be a number between 0 and 1; got {share!r}")
    _, classes, counts = np.unique(y, return_inverse=True, return_counts=True)
    exact = share * counts
    numbers = np.floor(exact).astype(np.int64)
    missing = round(share * len(y)) - int(numbers.sum())
    numbers[np.argsort(numbers - exact, kind="stable")[: max(0, missing)]] += 1
    numbers = np.minimum(numbers, counts - 1)
    if not numbers.any():
        raise SettingError(f"a share of {share:g} of {len(y)} samples of {len(counts)} classes is none of them")
    rng, chosen = np.random.default_rng([seed, 2]), np.zeros(len(y), bool)
    for number, rows in zip(numbers, np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1]), strict=True):
        chosen[rng.permutation(rows)[:number]] = True
    return chosen
