"""A network between two epochs of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp_accel.backends.arrays import Slots
from mlp_accel.backends.paths import State


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A network between two epochs of its training: all that another trainer needs to go on as if nothing had been in between.

    Attributes
    ----------
    params : list of (weights, bias)
    slots : list of list of (weights, bias), optional
        For each layer what the optimiser remembers; without it every slot is 0.
    epochs, steps : int
        How many epochs and minibatches it has been trained for. Schedules go on from the first number, rules that count their steps
        from the second.
    order : dict, optional
        The state of the generator of the order of the samples, as NumPy's ``bit_generator.state``; without it the seed counts.
    """

    params: Sequence[tuple[Any, Any]]
    slots: Slots | None = None
    epochs: int = 0
    steps: int = 0
    order: Mapping[str, Any] | None = None

    def state(self, n_slots: int) -> State:
        """Parameters and slots, of a rule with so many slots; ValueError if the slots are not of such a rule."""
        if self.slots is None:
            return initial_state(self.params, n_slots)
        shapes = [[[array.shape for array in pair] for pair in slots] for slots in self.slots]
        expected = [[[array.shape for array in pair]] * n_slots for pair in self.params]
        if shapes != expected:
            raise ValueError(
                f"the snapshot must hold {n_slots} slots of the optimiser for each parameter; their shapes are {shapes}"
            )
        return State(list(self.params), self.slots)


def initial_state(params: Sequence[tuple[Any, Any]], n_slots: int) -> State:
    """A network at the start of its training: every slot of the optimiser is 0."""
    zeros = [[(np.zeros_like(weights), np.zeros_like(bias)) for _ in range(n_slots)] for weights, bias in params]
    return State(list(params), zeros)


def order_generator(seed: int, state: Mapping[str, Any] | None = None) -> np.random.Generator:
    """The generator of the order of the samples, at its start or in a later state: another stream than that of `init_params`."""
    generator = np.random.default_rng([seed, 1])
    if state is not None:
        generator.bit_generator.state = dict(state)
    return generator
