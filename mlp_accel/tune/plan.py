"""The plan: which networks a task trains, so that a task takes seconds and the longest come first."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

from mlp_accel.training.recipes import Recipe

TASK_SECONDS = 4.0
"""What a task should take: long beside what it costs to send, short beside what is lost with a worker."""

SHORTEST_TASK = 0.25
"""Towards the end tasks become shorter, so that all workers are busy to the last; not shorter than this."""

FIRST_SPEED = 1e11
"""Multiplications a second, until the first task has shown how fast the workers are: few cores without a faster path."""

STEP_COST = 1e6
"""What a step costs beside its products, in multiplications."""


class Network(NamedTuple):
    """A network to be trained: its settings with its seed, and the fold that judges it."""

    recipe: Recipe
    part: int | None = None


OWN = frozenset({"learning_rate", "momentum", "weight_decay", "seed", "weight_scale", "random_bias"})
"""The settings that each network of a launch has for itself."""

IN_COMMON = attrgetter(*(field.name for field in fields(Recipe) if field.name not in OWN))


def launch_of(network: Network) -> tuple[Any, ...]:
    """What networks must have in common to be trained in one launch: all but their seeds, rates, initial weights and folds."""
    common: tuple[Any, ...] = IN_COMMON(network.recipe)
    return common


def cost(recipe: Recipe, n_samples: int, n_in: int, n_classes: int) -> float:
    """About how many multiplications it takes to train a network: three products with all weights for each sample."""
    sizes = (n_in, *recipe.hidden, n_classes)
    weights = sum(a * b for a, b in pairwise(sizes))
    return recipe.epochs * (3.0 * weights * n_samples + STEP_COST * -(-n_samples // recipe.batch_size))


@dataclass(frozen=True)
class Task:
    """Networks that one worker trains, and how often they were lost with a worker before."""

    networks: Sequence[Network]
    losses: int = 0


class Plan:
    """The networks that are still to be trained.

    Parameters
    ----------
    networks : iterable of Network
    n_samples, n_in, n_classes : int
        Of the data.
    """

    def __init__(self, networks: Iterable[Network], n_samples: int, n_in: int, n_classes: int) -> None:
        launches: dict[tuple[Any, ...], list[Network]] = {}
        for network in networks:
            launches.setdefault(launch_of(network), []).append(network)
        costs = [(cost(launch[0].recipe, n_samples, n_in, n_classes), launch) for launch in launches.values()]
        costs.sort(key=lambda entry: -entry[0])  # all networks of a launch cost the same, and stay neighbours
        self._networks = [network for _, launch in costs for network in launch]
        self._costs = [cost for cost, launch in costs for _ in launch]
        self._next = 0
        self._again: deque[Task] = deque()
        self._size = (n_samples, n_in, n_classes)
        self._cost_left = sum(self._costs)
        self._speed = FIRST_SPEED
        self._measured = False

    def __len__(self) -> int:
        return len(self._networks) - self._next + sum(len(task.networks) for task in self._again)

    def next(self, workers: int = 1, at_once: int = 1) -> Task:
        """The next task, for one of so many workers, each of which trains `at_once` networks side by side."""
        if self._again:
            return self._again.popleft()
        seconds = min(TASK_SECONDS if self._measured else SHORTEST_TASK, self._cost_left / self._speed / (2 * max(1, workers)))
        budget, first = max(seconds, SHORTEST_TASK) * self._speed, self._next
        while self._next < len(self._networks) and (budget > 0 or (self._next - first) % at_once):
            budget -= self._costs[self._next]
            self._cost_left -= self._costs[self._next]
            self._next += 1
        return Task(self._networks[first : self._next])

    def took(self, task: Task, seconds: float) -> None:
        """Learn from a task that a worker has trained how fast workers are."""
        speed = sum(cost(network.recipe, *self._size) for network in task.networks) / max(seconds, 1e-6)
        compiled_before = self._measured and speed < 2 * self._speed  # the first tasks of a worker compile
        self._speed = (self._speed + speed) / 2 if compiled_before else speed
        self._measured = True

    def again(self, task: Task) -> None:
        """Put back a task that was lost with its worker: whole at first, then in small parts, at last each network alone.

        If one network is what takes workers down, it is the only one that is lost in the end.
        """
        count = len(task.networks)
        size = {1: count, 2: math.isqrt(count - 1) + 1}.get(task.losses, 1)
        for first in range(0, count, size):
            self._again.append(Task(task.networks[first : first + size], task.losses))

    def rest(self) -> list[Network]:
        """All networks that no worker has."""
        return [*self._networks[self._next :], *(network for task in self._again for network in task.networks)]

    @property
    def seconds_left(self) -> float | None:
        """How long one worker would take for what no worker has; None before the first task."""
        return self._cost_left / self._speed if self._measured else None
