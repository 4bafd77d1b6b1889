"""A training run in compiled code, of one network or of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.arrays import Array
from mlp_accel.backends.base import Backend
from mlp_accel.backends.numba.compiler import usable_threads
from mlp_accel.backends.numba.emit.product import address_of_product
from mlp_accel.backends.numba.generated import ActivationAddresses, activation_addresses, rule_address
from mlp_accel.backends.numba.paths.shared import epoch, packing
from mlp_accel.backends.numba.paths.shared.memory import EpochInput, Network, Rules, Scratch, table_of
from mlp_accel.backends.numba.team import HAS_CLOCK, Team
from mlp_accel.backends.paths import EpochPath, PathRun, State, Task, check_orders

Functions = tuple[Callable[..., int] | None, Callable[..., int], Callable[..., int]]


class Samples(ABC):
    """The samples of a training run, in the form that the functions of the first layer know.

    Attributes
    ----------
    functions : tuple of functions
        ``prepare``, ``first_layer`` and ``update_first_layer`` of `Rules`; the first is None if there is nothing to prepare.
    division : int
        What the threads divide among them: `UNITS`, `INPUTS` or `SAMPLES`.
    numbers : array (n, k)
        int64, for each sample what the kernels know it by.
    segments : array (n_segments + 1,)
        Where each segment of the inputs begins, so that they are equal work, and at the end the number of inputs.
    """

    functions: Functions
    division: int
    numbers: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]

    @abstractmethod
    def memory(self, batch_size: int) -> Any:
        """What each network needs for its minibatches."""

    @abstractmethod
    def in_order(self, numbers: npt.NDArray[np.int64], memory: Any) -> tuple[Any, ...]:
        """The tuple that the kernels unpack, from `numbers` in the order of training."""


class CompiledPath(EpochPath):
    """Trains whole epochs in compiled code."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def why_not(self, task: Task) -> str | None:
        return None if HAS_CLOCK else "its threads need the clock of POSIX systems"

    @abstractmethod
    def samples(self, x: npt.NDArray[Any], task: Task) -> Samples:
        """The samples in the form of this path."""

    def start(self, task: Task, states: Sequence[State], x: Array, y: Array) -> PathRun:
        return CompiledRun(self.backend, task, states, self.samples(x, task), y)


class _Room(NamedTuple):
    """The numbers of the samples, as `Samples.numbers` has them, and their labels, in the order of an epoch."""

    numbers: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


class _Trainee:
    """One network, and the memory to train it."""

    def __init__(self, task: Task, state: State, samples: Samples, n_threads: int) -> None:
        n, k = samples.numbers.shape
        self.network: Network = packing.pack_network(state, task.batch_size, samples.division, len(samples.segments) - 1, n_threads)
        self.scratch: Scratch = packing.allocate_scratch(
            self.network, task.batch_size, -(-n // task.batch_size), task.activation.of_input
        )
        self.memory = samples.memory(task.batch_size)
        self.rooms = [_Room(np.empty((n, k), np.int64), np.empty(n, np.int64)) for _ in range(2 if task.networks == 1 else 1)]
        """What is gathered comes into the first one. A single network has another, for the next epoch."""
        self.team = Team(n_threads, packing.n_blocks(self.network) * self.network.shares)

    def gather(self, numbers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], order: npt.NDArray[Any]) -> None:
        """Put the numbers of the samples, and their labels, into the order of an epoch."""
        self.rooms.reverse()
        self.gathered = _Room(*(array[: len(order)] for array in self.rooms[0]))
        np.take(numbers, order, axis=0, out=self.gathered.numbers, mode="clip")
        np.take(labels, order, out=self.gathered.labels, mode="clip")


class CompiledRun(PathRun):
    """Networks that are trained on all threads, one after another, or on one thread each."""

    def __init__(self, backend: Backend, task: Task, states: Sequence[State], samples: Samples, y: Array) -> None:
        self.backend, self.task, self.samples = backend, task, samples
        self.dtype = np.dtype(task.dtype)
        n, n_classes = len(samples.numbers), task.layer_sizes[-1]
        if len(y) != n or (n and not 0 <= y.min() <= y.max() < n_classes):
            raise IndexError(f"there must be a label for each of the {n} samples, the number of one of the {n_classes} classes")
        self.y = y
        rule, hidden = task.rule, len(task.layer_sizes) > 2
        prepare, first_layer, update = (epoch.first_layer_address(function, task.dtype) for function in samples.functions)
        addresses = activation_addresses(task.activation, task.dtype) if hidden else ActivationAddresses()
        rate_index = -1 if rule.rate_index is None else rule.rate_index
        notebook = int(task.gradient == "notebook")
        numbers = rule.n_scalars, rate_index, notebook
        self.rules = Rules(
            prepare, first_layer, update, address_of_product(task.dtype), *addresses, rule_address(rule, task.dtype), *numbers
        )
        threads = threads_for(task)
        self.trainees = [_Trainee(task, _as_type(state, self.dtype), samples, threads) for state in states]
        self._ahead: npt.NDArray[Any] | None = None

    def epoch(self, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]) -> tuple[Array, Array]:
        self.begin(orders, scalars)
        return self.finish()

    def begin(self, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]) -> None:
        check_orders(orders, len(self.y))
        gathered, self._ahead, self._n_batches = orders is self._ahead, None, scalars.shape[1]
        each = list(zip(self.trainees, [None] if gathered else orders, scalars.astype(self.dtype), strict=True))
        if len(each) == 1:
            self._begin(*each[0])
        self._left = [partial(self._train, *of_network) for of_network in each] if len(each) > 1 else [each[0][0].team.finish]

    def finish(self, following: npt.NDArray[Any] | None = None) -> tuple[Array, Array]:
        try:
            if following is not None and self.task.networks == 1:  # for many networks, memory is worth more
                self.trainees[0].gather(self.samples.numbers, self.y, following[0])
                self._ahead = following
        finally:
            self.backend.spread(self._left)
        scratches, batches = [trainee.scratch for trainee in self.trainees], slice(self._n_batches)
        losses, hits = zip(*((scratch.batch_losses[batches], scratch.batch_hits[batches]) for scratch in scratches), strict=True)
        return np.stack(losses), np.stack(hits)

    def _train(self, trainee: _Trainee, order: npt.NDArray[Any], scalars: npt.NDArray[Any]) -> None:
        self._begin(trainee, order, scalars)
        trainee.team.finish()

    def _begin(self, trainee: _Trainee, order: npt.NDArray[Any] | None, scalars: npt.NDArray[Any]) -> None:
        """Begin an epoch of a network; without an order the samples have been gathered already."""
        if order is not None:
            trainee.gather(self.samples.numbers, self.y, order)
        numbers, labels = trainee.gathered
        samples = self.samples.in_order(numbers, trainee.memory)
        table = table_of(samples)
        inputs = EpochInput(table.ctypes.data, labels, self.samples.segments, np.ascontiguousarray(scalars).reshape(-1))
        epoch.begin_epoch(inputs, self.rules, trainee.network, trainee.scratch, trainee.team, (table, samples))

    def states(self) -> list[State]:
        return [packing.unpack_network(trainee.network) for trainee in self.trainees]

    @property
    def rests(self) -> int:
        return sum(trainee.team.waits.rests for trainee in self.trainees)

    def keep(self, networks: Sequence[int]) -> None:
        self.trainees = [self.trainees[i] for i in networks]


def threads_for(task: Task) -> int:
    """Threads that train a network: one where several networks are trained."""
    return 1 if task.networks > 1 else usable_threads()


def _as_type(state: State, dtype: np.dtype[Any]) -> State:
    """The state in the dtype that the task computes in."""

    def converted(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return [(np.asarray(weights, dtype), np.asarray(bias, dtype)) for weights, bias in pairs]

    return State(converted(state.params), [converted(slots) for slots in state.slots])
