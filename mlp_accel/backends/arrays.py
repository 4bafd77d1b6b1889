"""The types of arrays, parameters and optimiser slots, as annotations name them, and a check that shapes fit together."""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of the backend's own library."""

Params: TypeAlias = list[tuple[Array, Array]]
"""``(weights (n_in, n_out), bias (n_out,))`` for each layer."""

Slots: TypeAlias = list[list[tuple[Array, Array]]]
"""For each layer what the optimiser remembers: for each of its slots a pair in the shapes of the layer's parameters."""


def is_sparse(x: Any) -> bool:
    """Whether `x` is a sparse matrix or a sparse array of SciPy."""
    return hasattr(x, "tocsr")


def check_shapes(fit: bool, problem: str, *arrays: Array) -> None:
    """Raise ValueError unless the shapes fit: the kernels do not check the bounds of what they read and write.

    Parameters
    ----------
    fit : bool
    problem : str
        What does not fit; the message adds the shapes of `arrays`.
    """
    if not fit:
        raise ValueError(f"{problem}: shapes {', '.join(str(array.shape) for array in arrays)}")
