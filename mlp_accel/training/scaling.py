"""Scaling of the inputs, learned from the training samples and applied to all others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import check_choice

SCALINGS = ("none", "standard", "minmax")


def _nothing() -> npt.NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is done to samples before the network sees them: ``(x - shift) / scale``, feature by feature.

    Attributes
    ----------
    kind : {"none", "standard", "minmax"}
        ``"standard"`` gives the training samples mean 0 and standard deviation 1, ``"minmax"`` takes them to 0 ... 1; ``"none"``
        leaves values as they are, and takes uint8 for pixels, which are scaled by 1/255 as in training.
    shift, scale : float64 array (n_in,)
        Empty for ``"none"``. The scale of a feature that is constant is 1.
    """

    kind: str = "none"
    shift: npt.NDArray[np.float64] = field(default_factory=_nothing)
    scale: npt.NDArray[np.float64] = field(default_factory=_nothing)

    @staticmethod
    def fit(kind: str, x: npt.NDArray[Any]) -> Scaling:
        """The scaling of that kind for training samples `x` ``(n, n_in)``.

        Raises
        ------
        SettingError
            For an unknown kind.
        """
        if check_choice("scaling", kind, SCALINGS) == "none":
            return Scaling()
        low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
        if kind == "minmax":
            shift, scale = low, high - low
        else:
            shift, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        return Scaling(kind, shift, np.where((low == high) | (scale == 0), 1.0, scale))

    def apply(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The samples as the network is to see them: float64, or `x` itself if there is nothing to do."""
        if self.kind == "none":
            return x
        scaled: npt.NDArray[np.float64] = (x - self.shift) / self.scale
        return scaled
