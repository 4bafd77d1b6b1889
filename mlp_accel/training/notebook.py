"""The notebook this project grew from: its layout of parameters and the learning curve it printed."""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def from_notebook(w: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """``(weights (n_in, n_out), bias (n_out,))`` from the notebook's ``w (n_out, n_in + 1)``, whose column 0 is the bias."""
    return np.ascontiguousarray(w[:, 1:].T), w[:, 0].copy()


def to_notebook(weights: npt.NDArray[Any], bias: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The notebook's ``w (n_out, n_in + 1)``; the inverse of `from_notebook`. Gradients have the same layout."""
    return np.hstack([bias[:, None], weights.T])


@functools.cache
def printed_curve() -> dict[int, tuple[float, float]]:
    """Loss and accuracy that the notebook printed for each epoch of its run on MNIST (epoch 48 is missing in the print-out)."""
    with (Path(__file__).parent / "notebook_curve.csv").open(newline="") as file:
        return {int(row["epoch"]): (float(row["loss"]), float(row["accuracy"])) for row in csv.DictReader(file)}
