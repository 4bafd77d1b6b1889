"""Dividing samples in two parts, each with every class in its share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import SettingError


def stratified_split(
    classes: npt.NDArray[np.int64], share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Divide samples so that each class has the same share in both parts, as far as whole samples allow.

    Parameters
    ----------
    classes : array (n,)
        The class of each sample, 0 or more.
    share : float
        Of the samples in the second part, above 0 and below 1.
    seed : int

    Returns
    -------
    rest, part : array
        Numbers of the samples, in ascending order. A class keeps at least one sample in the first part.

    Raises
    ------
    SettingError
        If the share is out of range, or so small that the second part would be empty.
    """
    if not 0 < share < 1:
        raise SettingError(f"a share of the samples must be above 0 and below 1; got {share}")
    order = np.random.default_rng([seed, 2]).permutation(len(classes))
    counts = np.bincount(classes)
    wanted = np.minimum(counts * share, np.maximum(counts - 1, 0))
    taken = np.floor(wanted).astype(np.int64)
    # What rounding down left out goes to the classes that lost most by it.
    left = min(round(len(classes) * share), int(np.maximum(counts - 1, 0).sum())) - int(taken.sum())
    for index in np.argsort(taken - wanted, kind="stable")[: max(0, left)]:
        taken[index] += taken[index] < counts[index] - 1
    if not taken.any():
        raise SettingError(f"a share of {share} of {len(classes)} samples is none: give more samples or a larger share")
    by_class = order[np.argsort(classes[order], kind="stable")]
    starts = np.cumsum(counts) - counts
    part = np.sort(np.concatenate([by_class[start : start + n] for start, n in zip(starts, taken, strict=True)]))
    return np.setdiff1d(np.arange(len(classes)), part), part
