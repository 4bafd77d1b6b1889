"""Paths: the ways in which a backend can train an epoch, and which of them is taken.

A backend lists its paths, fastest first; the loop over `mlp_accel.network.train_step` is the last one everywhere. A path accepts
the tasks that it knows; anything else is a reason, which is said, and the next path is asked.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation
from mlp_accel.errors import PathError, SettingError
from mlp_accel.optimizers import Rule

if TYPE_CHECKING:
    from mlp_accel.backends.base import Array, Backend, Params, Slots

AUTO, LOOP = "auto", "loop"
PATH_VARIABLE = "MLP_ACCEL_PATH"
FORMER_PATH_VARIABLE = "MLP_ACCEL_CUPY_PATH"

logger = logging.getLogger("mlp_accel")


@dataclass(frozen=True)
class Task:
    """All that the choice of a path depends on.

    Attributes
    ----------
    layer_sizes : tuple of int
        Inputs, units of each hidden layer, classes.
    batch_size : int
        Samples in a minibatch; the last one of an epoch takes what remains.
    dtype : str
        Of parameters.
    data : str
        dtype of the samples: ``"uint8"``, or that of the parameters.
    density : float
        Share of the samples' values that are not zero, from a look at some of them.
    activation : Activation
        Of the hidden layers.
    gradient : {"exact", "notebook"}
        See `mlp_accel.network.backward`.
    rule : Rule
        What the optimiser does with a parameter.
    networks : int
        How many are trained at once.
    own_step : bool
        The step is one of the user's own.
    """

    layer_sizes: tuple[int, ...]
    batch_size: int
    dtype: str
    data: str
    density: float
    activation: Activation
    gradient: str
    rule: Rule
    networks: int = 1
    own_step: bool = False

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.layer_sizes))} at batch size {self.batch_size}"


@dataclass
class State:
    """One network: its parameters, and what the optimiser remembers of them, on the host or on a device."""

    params: Params
    slots: Slots


class PathRun(ABC):
    """A training run by one path. It holds parameters and slots, in whatever form the path likes, from epoch to epoch."""

    @abstractmethod
    def epoch(self, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]) -> tuple[Array, Array]:
        """Train every network on every minibatch of its order once.

        Parameters
        ----------
        orders : array (networks, n)
            On the host: numbers of the samples in the order of training.
        scalars : array (networks, n_batches, n_scalars)
            On the host: the uniform numbers of each step, as the rule orders them.

        Returns
        -------
        losses, hits : array (networks, n_batches)
            Of the backend: for each minibatch the sum of the losses and the number of right answers, before its update; float64.
        """

    @abstractmethod
    def states(self) -> list[State]:
        """Parameters and slots of each network as NumPy arrays, in memory that later epochs leave alone."""

    @abstractmethod
    def keep(self, networks: Sequence[int]) -> None:
        """Go on with these networks alone, given by their places; the others are done with."""


class EpochPath(ABC):
    """One way to train an epoch.

    Attributes
    ----------
    name : str
        As in results, in ``MLP_ACCEL_PATH`` and ``--path``; one word.
    """

    name: ClassVar[str]

    @abstractmethod
    def why_not(self, task: Task) -> str | None:
        """Why this path cannot train `task`, or None if it can; fast, and without touching the data."""

    @abstractmethod
    def start(self, task: Task, states: Sequence[State], x: Array, y: Array) -> PathRun:
        """Prepare the data, once, and the networks.

        Parameters
        ----------
        states : sequence of State
            On the host; not changed.
        x, y : array (n, n_in), array (n,)
            All samples and labels, of the backend.

        Raises
        ------
        PathError
            If it turns out only now that the path cannot be taken; the next one is.
        """


@dataclass(frozen=True)
class Taken:
    """The path that was taken, and why not those before it."""

    name: str
    passed_over: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "; ".join([self.name, *(f"not {name}: {reason}" for name, reason in self.passed_over)])


def requested_path(path: str | None = None, source: str = "the argument path") -> tuple[str, str]:
    """The name of the path that was asked for and who asked: the argument, else ``MLP_ACCEL_PATH``, else nobody: ``"auto"``.

    Raises
    ------
    SettingError
        If the variable is set that was there before ``MLP_ACCEL_PATH``.
    """
    former = os.environ.get(FORMER_PATH_VARIABLE, "").strip()
    if former:
        raise SettingError(f"{FORMER_PATH_VARIABLE} {is_gone(former)}")
    if path is None:
        path, source = os.environ.get(PATH_VARIABLE, "").strip(), f"the environment variable {PATH_VARIABLE}"
    return (path, source) if path else (AUTO, "default")  # empty means unset


def is_gone(value: str) -> str:
    """What is wrong with a value of ``MLP_ACCEL_CUPY_PATH``."""
    return f"is gone; set {PATH_VARIABLE}={LOOP if value == 'ops' else value} instead"


def start_path(
    backend: Backend, loop: EpochPath, task: Task, states: Sequence[State], x: Array, y: Array, asked: tuple[str, str]
) -> tuple[PathRun, Taken]:
    """Start the first path that can train `task`, or the one that was asked for.

    Parameters
    ----------
    loop : EpochPath
        The last path of every backend.
    asked : (str, str)
        As `requested_path` returns it.

    Raises
    ------
    SettingError
        For a path that the backend does not have; names the value, where it came from and the choices.
    PathError
        If the path that was asked for cannot train `task`; names the reason.
    """
    name, source = asked
    candidates: Sequence[EpochPath] = (*backend.paths, loop)
    if name != AUTO:
        named = loop if name == LOOP else backend.path_named(name)
        if named is None:
            choices = ", ".join((AUTO, *(path.name for path in candidates)))
            raise SettingError(f"the backend {backend.name} has no path {name!r}, asked for by {source}; choose one of {choices}")
        candidates = (named,)
    passed_over: list[tuple[str, str]] = []
    for path in candidates:
        reason = "a step of your own runs in the loop" if task.own_step and path is not loop else path.why_not(task)
        if reason is None:
            try:
                run = path.start(task, states, x, y)
            except PathError as error:
                reason = str(error)
                logger.warning("the path %s is not taken: %s", path.name, reason)
            else:
                taken = Taken(path.name, tuple(passed_over))
                logger.info("%s trains by %s", task, taken)
                return run, taken
        passed_over.append((path.name, reason))
    raise PathError(f"the path {name!r}, asked for by {source}, cannot be taken for {task}: {passed_over[-1][1]}")
