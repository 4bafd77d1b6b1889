"""Paths: the ways in which a backend can train an epoch, and which of them is taken.

A backend lists its paths, fastest first; the loop over `mlp_accel.network.train_step` is the last one everywhere. Each path says of
a task whether it can train it or, if not, why. The first that can is taken; the reasons of those before it are logged and recorded.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation
from mlp_accel.backends.arrays import Array, Params, Slots
from mlp_accel.errors import PathError, SettingError
from mlp_accel.optimizers import Rule

AUTO, LOOP = "auto", "loop"
PATH_VARIABLE = "MLP_ACCEL_PATH"
FORMER_PATH_VARIABLE = "MLP_ACCEL_CUPY_PATH"

SAMPLED_ROWS = 1000
"""About how many samples are looked at to estimate how many values are zero."""

logger = logging.getLogger("mlp_accel")


def sampled_rows(x: Any) -> Any:
    """About `SAMPLED_ROWS` samples from all over `x` ``(n, n_in)``."""
    return x[:: max(1, x.shape[0] // SAMPLED_ROWS), ...]


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
        dtype of the parameters.
    data : str
        dtype of the samples: ``"uint8"``, or that of the parameters.
    density : float
        Share of the samples' values that are not zero, as `sampled_rows` shows it.
    activation : Activation
        Activation of the hidden layers.
    gradient : {"exact", "notebook"}
        See `mlp_accel.backward`.
    rule : Rule
        What the optimiser does with a parameter.
    networks : int
        How many networks are trained at once.
    own_step : bool
        The user has given a step of their own, which only the loop can run.
    sparse : bool
        The samples are a SciPy CSR matrix (``is_sparse``), which stays on the host.
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
    sparse: bool = False

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.layer_sizes))} at batch size {self.batch_size}"


@dataclass
class State:
    """One network: its parameters, and what the optimiser remembers of them, on the host or on a device."""

    params: Params
    slots: Slots


class PathRun(ABC):
    """A training run by one path. From epoch to epoch it keeps parameters and slots in the form that its kernels want."""

    @abstractmethod
    def epoch(self, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]) -> tuple[Array, Array]:
        """Train every network on every minibatch of its order once.

        Parameters
        ----------
        orders : array (networks, n)
            On the host: numbers of the samples in the order of training. They may be fewer than all samples, but are as many in
            every epoch.
        scalars : array (networks, n_batches, n_scalars)
            On the host: the scalars of each step (the learning rate and the like), as `Optimizer.scalars` computes them.

        Returns
        -------
        losses, hits : array (networks, n_batches)
            Arrays of the backend, float64: for each minibatch the sum of the losses and the number of right answers, before its
            update.

        Raises
        ------
        IndexError
            If an order has the number of a sample that there is not.
        """

    def begin(self, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]) -> None:
        """Begin an epoch, which goes on while the caller does something else; here it is all done at once, or on a device."""
        self._sums = self.epoch(orders, scalars)

    def finish(self, following: npt.NDArray[Any] | None = None) -> tuple[Array, Array]:
        """End the epoch that has begun; returns what `epoch` does.

        Parameters
        ----------
        following : array (networks, n), optional
            The orders that the next epoch will begin with, this very array, for a path that can prepare them meanwhile.
        """
        return self._sums

    @abstractmethod
    def states(self) -> list[State]:
        """Parameters and slots of each network as NumPy arrays, in memory that later epochs leave alone."""

    @property
    def rests(self) -> int:
        """How often a thread has rested so far because other processes kept the cores busy."""
        return 0

    @abstractmethod
    def keep(self, networks: Sequence[int]) -> None:
        """Train only these networks from now on, given by their indices in ascending order; drop the others."""


def check_orders(orders: npt.NDArray[Any], n_samples: int) -> None:
    """Refuse orders with the number of a sample that there is not; IndexError. On the host this costs a device no waiting."""
    if orders.size and not 0 <= orders.min() <= orders.max() < n_samples:
        found = f"they hold numbers from {orders.min()} to {orders.max()}"
        raise IndexError(f"orders must hold numbers of the {n_samples} samples, 0 to {n_samples - 1}; {found}")


class EpochPath(ABC):
    """One way to train an epoch.

    Attributes
    ----------
    name : str
        One word, by which results, ``MLP_ACCEL_PATH`` and ``--path`` name the path.
    takes_sparse : bool
        It trains on sparse matrices without making them dense.
    """

    name: ClassVar[str]
    takes_sparse: ClassVar[bool] = False

    @abstractmethod
    def why_not(self, task: Task) -> str | None:
        """Why this path cannot train `task`, or None if it can; fast, and without touching the data."""

    @abstractmethod
    def start(self, task: Task, states: Sequence[State], x: Array, y: Array) -> PathRun:
        """Prepare the data, once, and the networks.

        Parameters
        ----------
        states : sequence of State
            Where each network starts, on the host; not changed.
        x, y : array (n, n_in), array (n,)
            All samples and labels, arrays of the backend; if ``task.sparse``, `x` is a SciPy CSR matrix of the backend's dtype.

        Raises
        ------
        PathError
            If the path cannot train this for a reason that `why_not` could not know, such as a kernel that does not compile. The
            next path is then tried.
        """


@dataclass(frozen=True)
class Taken:
    """The path that was taken, and why not those before it."""

    name: str
    passed_over: tuple[tuple[str, str], ...] = ()
    """The paths that come before it, each with the reason why it was not taken."""

    def __str__(self) -> str:
        return "; ".join([self.name, *(f"not {name}: {reason}" for name, reason in self.passed_over)])


def requested_path(path: str | None = None, source: str = "") -> tuple[str, str]:
    """The name of the path that was asked for, and where it came from.

    Parameters
    ----------
    path : str, optional
        By default ``MLP_ACCEL_PATH``; if that is unset or empty, ``"auto"``.
    source : str
        What messages call the place that `path` came from, such as ``"--path"``. If it is empty, they name the path alone: a
        function that passes on an argument does not know where its caller has it from.

    Raises
    ------
    SettingError
        If ``MLP_ACCEL_CUPY_PATH`` is set, the former name of the variable.
    """
    former = os.environ.get(FORMER_PATH_VARIABLE, "").strip()
    if former:
        raise SettingError(f"{FORMER_PATH_VARIABLE} {is_gone(former)}")
    if path is None:
        path, source = os.environ.get(PATH_VARIABLE, "").strip(), f"the environment variable {PATH_VARIABLE}"
    return (path, source) if path else (AUTO, "default")  # empty means unset


def is_gone(value: str) -> str:
    """What is wrong with ``MLP_ACCEL_CUPY_PATH``, which has this value, and what to set instead; a message begins with its name."""
    return f"is gone; set {PATH_VARIABLE}={LOOP if value == 'ops' else value} instead"


class HasPaths(Protocol):
    """What choosing a path needs to know of a `mlp_accel.backends.base.Backend`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def paths(self) -> Sequence[EpochPath]:
        """Its own paths, fastest first."""

    def path_named(self, name: str) -> EpochPath | None:
        """One of its paths, or None if it has none of that name."""


def _not_for(path: EpochPath, task: Task) -> str | None:
    """What keeps every path but the loop from a task, or all but those that say that they can."""
    if task.own_step:
        return "a step of your own runs in the loop"
    if task.sparse and not path.takes_sparse:
        return "it takes no sparse matrices"
    return None


def start_path(
    backend: HasPaths, loop: EpochPath, task: Task, states: Sequence[State], x: Array, y: Array, requested: tuple[str, str]
) -> tuple[PathRun, Taken]:
    """Start the first path that can train `task`, or the one that was asked for.

    Parameters
    ----------
    loop : EpochPath
        The last path of every backend.
    requested : (str, str)
        The path that was asked for and where it came from, as `requested_path` returns them.

    Raises
    ------
    SettingError
        For a path that the backend does not have; names the value, where it came from (if that is known) and the choices.
    PathError
        If a path was asked for by name and cannot train `task`; gives the reason.
    """
    name, source = requested
    what = f"{name!r}, asked for by {source}," if source else f"{name!r}"
    candidates: Sequence[EpochPath] = (*backend.paths, loop)
    if name != AUTO:
        named = loop if name == LOOP else backend.path_named(name)
        if named is None:
            choices = ", ".join((AUTO, *(path.name for path in candidates)))
            raise SettingError(f"the backend {backend.name} has no path {what.rstrip(',')}; choose one of {choices}")
        candidates = (named,)
    passed_over: list[tuple[str, str]] = []
    for path in candidates:
        reason = path.why_not(task) if path is loop else _not_for(path, task) or path.why_not(task)
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
    raise PathError(f"the path {what} cannot be taken for {task}: {passed_over[-1][1]}")
