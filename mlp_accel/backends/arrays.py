"""The types of arrays, parameters and optimiser slots, as annotations name them."""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of the backend's own library."""

Params: TypeAlias = list[tuple[Array, Array]]
"""``(weights (n_in, n_out), bias (n_out,))`` for each layer."""

Slots: TypeAlias = list[list[tuple[Array, Array]]]
"""For each layer what the optimiser remembers: for each of its slots a pair in the shapes of the layer's parameters."""
