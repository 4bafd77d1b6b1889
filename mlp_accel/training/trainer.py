"""A training run, epoch by epoch, of one network or of several."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation, find_activation
from mlp_accel.backends import GRADIENTS
from mlp_accel.backends.arrays import is_sparse
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import LoopPath, Step
from mlp_accel.backends.paths import PathRun, State, Taken, Task, requested_path, sampled_rows, start_path
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.inputs import as_labels, as_samples
from mlp_accel.optimizers import Optimizer, find_optimizer
from mlp_accel.schedules import Schedule
from mlp_accel.training.checks import check_labels, check_networks, one_for_each
from mlp_accel.training.snapshot import Snapshot, order_generator

T = TypeVar("T")

LOSS_AVERAGES = ("samples", "notebook")
NOTEBOOK_LEARNING_RATE = 0.01
"""The default rate of plain SGD by the notebook's gradient, which is a sum over the minibatch and not a mean."""


@dataclass(frozen=True)
class EpochResult:
    """Loss, accuracy and duration of an epoch, for each network.

    Attributes
    ----------
    losses, accuracies : list of float
        Means over the samples, each evaluated before the update by its own minibatch. A loss may be NaN or infinite.
    seconds : float
        Duration of the epoch of all networks together, the device synchronised.
    """

    losses: list[float]
    accuracies: list[float]
    seconds: float


@dataclass
class Group:
    """Networks that are trained together, by one `PathRun`: equally many samples, and optimisers with the same recorded rule.

    What is multiplied by a setting that is 0 is left out when a rule is recorded. So the rule of a network without weight decay is
    another one than that of a network with weight decay, and each trains in a group of its own. By the other's rule the first
    network would be computed in another form than when it is trained alone, and its results might differ in the last bit.

    Attributes
    ----------
    indices : list of int
        The indices of these networks among those of the trainer.
    n : int
        How many samples each of them visits in an epoch.
    step : int
        How many minibatches they have been trained for.
    orders : array (networks, n)
        The order of the samples in the next epoch.
    """

    indices: list[int]
    n: int
    step: int
    task: Task
    run: PathRun
    taken: Taken
    orders: npt.NDArray[np.int64] = field(init=False)

    @property
    def batch_sizes(self) -> npt.NDArray[np.int64]:
        """The number of samples in each minibatch of an epoch."""
        return batch_sizes(self.n, self.task.batch_size)


class Trainer:
    """A training run: data, parameters and what the optimiser remembers stay on the device between epochs.

    Parameters
    ----------
    networks : sequence of list of (weights, bias), or of Snapshot
        Where each network starts, all of the same layer sizes; not changed. Snapshots must be of one epoch.
    optimizers : Optimizer or sequence of Optimizer
        One for all networks, or one for each; they may differ in their settings.
    learning_rates, seeds : number or sequence of number
        One for all networks, or one for each.
    epochs : int
        How many epochs there will be: a schedule needs to know.
    shuffle : bool
        Visit the samples in a fresh random order in every epoch; otherwise in the order in which they are given.
    rows : sequence of array of int, optional
        For each network the numbers of the samples that it is trained on, as `check_rows` returns them; by default all.

    The others are those of `mini_batch_sgd`, which is the simple way to use this.

    Attributes
    ----------
    task : Task
        What the choice of the path depended on, for the first network and those that are trained with it.
    taken : Taken
        The path of the first network, and why not those before it; `taken_by` knows that of each.
    requested_path : (str, str)
        The path that was asked for, and where it came from.

    Raises
    ------
    SettingError
        If a setting is out of range.
    ValueError
        If samples, labels and parameters do not fit together.
    PathError
        If the path that was asked for cannot train this.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        networks: Sequence[Sequence[tuple[Any, Any]] | Snapshot],
        backend: Backend,
        *,
        batch_size: int = 128,
        activation: str | Activation = "tanh",
        gradient: str = "exact",
        optimizers: Optimizer | Sequence[Optimizer] | None = None,
        learning_rates: float | Sequence[float | None] | None = None,
        schedule: Schedule | None = None,
        epochs: int = 1,
        seeds: int | Sequence[int] = 0,
        path: str | None = None,
        step: Step | None = None,
        threads: int = 1,
        loss_average: str = "samples",
        shuffle: bool = True,
        rows: Sequence[npt.NDArray[np.int64]] | None = None,
    ) -> None:
        if batch_size < 1:
            raise SettingError(f"the batch size must be at least 1; got {batch_size}")
        self._shuffle = shuffle
        self.loss_average = check_choice("loss average", loss_average, LOSS_AVERAGES)
        check_choice("gradient", gradient, GRADIENTS)
        starts = [network if isinstance(network, Snapshot) else Snapshot(network) for network in networks]
        layer_sizes = check_networks([start.params for start in starts])
        if len({(start.epochs, start.steps) for start in starts}) > 1:
            raise ValueError("the snapshots must all be of the same epoch")
        x, y = as_samples(x, backend, layer_sizes[0]), as_labels(y)
        check_labels(y, x.shape[0], layer_sizes[-1])
        self.backend, self.schedule, self.epochs, self.threads = backend, schedule or Schedule(), epochs, threads
        self.batch_size = min(batch_size, x.shape[0])
        count = len(networks)
        self._rows = rows
        self.optimizers: list[Optimizer] = one_for_each(optimizers or find_optimizer("sgd"), count, "optimizers")
        pairs = zip(one_for_each(learning_rates, count, "learning rates"), self.optimizers, strict=True)
        self.learning_rates = [learning_rate(rate, optimizer, gradient) for rate, optimizer in pairs]
        self._generators = [
            order_generator(seed, start.order) for seed, start in zip(one_for_each(seeds, count, "seeds"), starts, strict=True)
        ]
        self.x = x
        self.y = backend.asarray(np.array(y, np.int64))  # a copy, since its owner could change the labels after they were checked
        task = Task(
            tuple(layer_sizes),
            self.batch_size,
            backend.dtype,
            self.x.dtype.name if hasattr(self.x.dtype, "name") else str(self.x.dtype),
            density(x if is_sparse(x) else backend.to_numpy(sampled_rows(x))),
            find_activation(activation),
            gradient,
            Optimizer.record_for(self.optimizers),
            own_step=step is not None,
            sparse=is_sparse(x),
        )
        self._order_states: list[Mapping[str, Any]] = []
        self._epoch = starts[0].epochs
        sizes = [x.shape[0]] * count if self._rows is None else [len(own) for own in self._rows]
        kinds = list(zip([optimizer.zeros for optimizer in self.optimizers], sizes, strict=True))
        self.requested_path = requested_path(path)
        self._groups = [
            self._start(indices, task, starts, LoopPath(backend, step), self.requested_path) for indices in indices_by_value(kinds)
        ]
        self._draw()
        self.task, self.taken = self._groups[0].task, self._groups[0].taken
        backend.synchronize()

    def _start(
        self, indices: list[int], task: Task, starts: Sequence[Snapshot], loop: LoopPath, requested: tuple[str, str]
    ) -> Group:
        rule = Optimizer.record_for([self.optimizers[index] for index in indices])
        n = self.x.shape[0] if self._rows is None else len(self._rows[indices[0]])
        task = replace(task, rule=rule, batch_size=min(task.batch_size, n), networks=len(indices))
        states = [starts[index].state(rule.n_slots) for index in indices]
        run, taken = start_path(self.backend, loop, task, states, self.x, self.y, requested)
        return Group(indices, n, starts[0].steps, task, run, taken)

    def epoch(self) -> EpochResult:
        """Train every network on every sample once, each in a fresh random order of its own."""
        start = time.perf_counter()
        factors, sums = self._factors(), []
        for group in self._groups:
            last = group is self._groups[-1]
            group.run.begin(group.orders, self._scalars(group, factors))
            try:
                if last:
                    self._draw()  # of the next epoch, while this one goes on
            finally:
                sums.append(self.backend.join(group.run.finish(group.orders if last else None)))  # as one transfer
            group.step += len(group.batch_sizes)
        self._epoch += 1
        losses, accuracies = self._means(sums)
        self.backend.synchronize()
        return EpochResult(losses, accuracies, time.perf_counter() - start)

    def _means(self, sums: Sequence[Any]) -> tuple[list[float], list[float]]:
        """Mean loss and accuracy of each network over the epoch, from the losses and hits of each group, summed by minibatch."""
        means = {}
        for group, group_sums in zip(self._groups, sums, strict=True):
            size = group.task.batch_size
            for index, *network_sums in zip(group.indices, *self.backend.to_numpy(group_sums), strict=True):
                means[index] = [epoch_mean(batch_sums, group.n, size, self.loss_average) for batch_sums in network_sums]
        losses, accuracies = zip(*(means[index] for index in sorted(means)), strict=True)
        return list(losses), list(accuracies)

    @property
    def epochs_trained(self) -> int:
        """How many epochs the networks have been trained for, those before a `Snapshot` included."""
        return self._epoch

    def states(self) -> list[State]:
        """Parameters and slots of each network as NumPy arrays."""
        return _in_order(
            (index, state) for group in self._groups for index, state in zip(group.indices, group.run.states(), strict=True)
        )

    def snapshots(self) -> list[Snapshot]:
        """Each network as it is now, with all that is needed to go on."""
        steps = _in_order((index, group.step) for group in self._groups for index in group.indices)
        return [
            Snapshot(state.params, state.slots, self._epoch, step, order)
            for state, step, order in zip(self.states(), steps, self._order_states, strict=True)
        ]

    @property
    def rests(self) -> int:
        """How often threads have rested so far because other processes kept the cores busy; they do where a path has its own."""
        return sum(group.run.rests for group in self._groups)

    def taken_by(self, network: int) -> Taken:
        """The path of one of the networks, and why not those before it."""
        return next(group.taken for group in self._groups if network in group.indices)

    def params(self, network: int = 0) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """The parameters of a network as NumPy arrays."""
        return self.states()[network].params

    def keep(self, networks: Sequence[int]) -> None:
        """Train only these networks from now on: their indices among those that are still trained, in ascending order."""
        left = [(group, [i for i, index in enumerate(group.indices) if index in networks]) for group in self._groups]
        self._groups = [group for group, members in left if members]
        for group, members in left:
            if members:
                group.run.keep(members)
                group.indices = [networks.index(group.indices[i]) for i in members]
                group.orders = group.orders[members]
        self.optimizers = [self.optimizers[network] for network in networks]
        self.learning_rates = [self.learning_rates[network] for network in networks]
        self._generators = [self._generators[network] for network in networks]
        self._rows = None if self._rows is None else [self._rows[network] for network in networks]
        self._order_states = [self._order_states[network] for network in networks]

    def _factors(self) -> dict[int, npt.NDArray[np.float64]]:
        """The factors of the learning rate in this epoch, by its number of steps: a schedule of the user's own is asked once."""
        numbers = {len(group.batch_sizes) for group in self._groups}
        return {n: self.schedule.rates(1.0, self._epoch, max(self.epochs, self._epoch + 1), n) for n in numbers}

    def _scalars(self, group: Group, by_steps: Mapping[int, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """The scalars of each step of this epoch, for each network of a group."""
        rule, first, sizes = group.task.rule, group.step + 1, group.batch_sizes
        factors = by_steps[len(sizes)]
        return np.stack([self.optimizers[i].scalars(rule, self.learning_rates[i] * factors, first, sizes) for i in group.indices])

    def _draw(self) -> None:
        """Draw the order of the samples for each network. NumPy releases Python's lock while it draws, so threads help."""
        self._order_states = [generator.bit_generator.state for generator in self._generators]
        n = self.x.shape[0]

        def order(index: int) -> npt.NDArray[np.int64]:
            if not self._shuffle:
                return np.arange(n) if self._rows is None else self._rows[index]
            return self._generators[index].permutation(n if self._rows is None else self._rows[index])

        indices = range(len(self._generators))
        if len(indices) == 1:
            orders = [order(0)]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                orders = list(pool.map(order, indices))
        for group in self._groups:
            group.orders = np.stack([orders[index] for index in group.indices])


def _in_order(numbered: Iterable[tuple[int, T]]) -> list[T]:
    """The values, each of which comes with the index of its network, by that index."""
    by_index = dict(numbered)
    return [by_index[index] for index in sorted(by_index)]


def indices_by_value(values: Sequence[Any]) -> list[list[int]]:
    """For each different value the indices at which it stands, in the order in which the values first occur."""
    return [[i for i, value in enumerate(values) if value == different] for different in dict.fromkeys(values)]


def learning_rate(rate: float | None, optimizer: Optimizer, gradient: str) -> float:
    """The learning rate if one is given, else the default of the optimiser; SettingError if it is no positive number."""
    if rate is None:
        rate = NOTEBOOK_LEARNING_RATE if (gradient, optimizer.name) == ("notebook", "sgd") else optimizer.learning_rate
    if rate is None:
        raise SettingError(f"the rule {optimizer.name} has no default for its rate: give a learning rate")
    if not (np.isfinite(rate) and rate > 0):
        raise SettingError(f"the learning rate must be a positive number; got {rate}")
    return float(rate)


def density(x: Any) -> float:
    """Share of the values that are not zero, in some samples from all over `x`."""
    if is_sparse(x):
        return float(x.nnz / max(1, x.shape[0] * x.shape[1]))
    rows = np.asarray(sampled_rows(x))
    return float(np.count_nonzero(rows) / max(1, rows.size))


def batch_sizes(n: int, batch_size: int) -> npt.NDArray[np.int64]:
    """The number of samples in each minibatch of an epoch of `n` samples; the last one takes what remains."""
    sizes = np.full(-(-n // batch_size), batch_size)
    sizes[-1] = n - batch_size * (len(sizes) - 1)
    return sizes


def epoch_mean(batch_sums: npt.NDArray[np.float64], n: int, batch_size: int, loss_average: str) -> float:
    """The mean over an epoch of `n` samples from the sums of its minibatches; `loss_average` as in `mini_batch_sgd`."""
    if loss_average == "samples":
        return float(batch_sums.sum() / n)
    return float(
        (batch_sums / batch_sizes(n, batch_size)).sum() / (n // batch_size)
    )  # the notebook does not count the last, shorter minibatch
