"""A training run, epoch by epoch, of one network or of several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation, find_activation
from mlp_accel.backends import GRADIENTS
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import LoopPath, Step
from mlp_accel.backends.paths import PathRun, State, Taken, Task, requested_path, start_path
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.optimizers import Optimizer, find_optimizer
from mlp_accel.schedules import Schedule
from mlp_accel.training.checks import Networks, check_labels, check_networks

LOSS_AVERAGES = ("samples", "notebook")
NOTEBOOK_LEARNING_RATE = 0.01
"""The default rate of plain SGD by the notebook's gradient, which is a sum over the minibatch and not a mean."""

LOOKED_AT = 1000
"""Samples that are looked at to see how many values are zero."""


@dataclass(frozen=True)
class EpochResult:
    """Loss, accuracy and duration of an epoch, for each network.

    Attributes
    ----------
    losses, accuracies : list of float
        Means over the samples, each before the update by its own minibatch. A loss may be NaN or infinite.
    seconds : float
        Duration of the epoch of all networks together, the device synchronised.
    """

    losses: list[float]
    accuracies: list[float]
    seconds: float


@dataclass
class Group:
    """Networks that are trained together, by one `PathRun`.

    A setting of the optimiser that is 0 is left out of the recorded rule. Networks in which other settings are 0 have another rule,
    so they are another group; that way each gets the bits that it would get alone.

    Attributes
    ----------
    places : list of int
        Which networks of the trainer they are.
    """

    places: list[int]
    task: Task
    run: PathRun
    taken: Taken


class Trainer:
    """A training run: data, parameters and what the optimiser remembers stay on the device between epochs.

    Parameters
    ----------
    networks : sequence of list of (weights, bias)
        Where each network starts, all of the same layer sizes; not changed.
    optimizers : sequence of Optimizer
        One for each network, or one for all; they may differ in their settings.
    learning_rates, seeds : sequence of number
        One for each network, or one for all.
    epochs : int
        How many epochs there will be: a schedule needs to know.

    The others are those of `mini_batch_sgd`, which is the simple way to use this.

    Attributes
    ----------
    task : Task
        What the choice of the path depended on, for the first network and those that are trained with it.
    taken : Taken
        The path of the first network, and why not those before it; `taken_by` knows that of each.

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
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        networks: Networks,
        backend: Backend,
        *,
        batch_size: int = 128,
        activation: str | Activation = "tanh",
        gradient: str = "exact",
        optimizers: Sequence[Optimizer] | None = None,
        learning_rates: Sequence[float | None] = (None,),
        schedule: Schedule | None = None,
        epochs: int = 1,
        seeds: Sequence[int] = (0,),
        path: str | None = None,
        step: Step | None = None,
        threads: int = 1,
        loss_average: str = "samples",
    ) -> None:
        if batch_size < 1:
            raise SettingError(f"the batch size must be at least 1; got {batch_size}")
        self.loss_average = check_choice("loss average", loss_average, LOSS_AVERAGES)
        check_choice("gradient", gradient, GRADIENTS)
        layer_sizes = check_networks(networks)
        check_labels(y, x.shape[0], layer_sizes[-1])
        self.backend, self.schedule, self.epochs, self._threads = backend, schedule or Schedule(), epochs, threads
        self.batch_size = min(batch_size, x.shape[0])
        count = len(networks)
        self.optimizers = for_each(optimizers or [find_optimizer("sgd")], count, "optimizers")
        rates = for_each(learning_rates, count, "learning rates")
        self.learning_rates = [learning_rate(rate, own, gradient) for rate, own in zip(rates, self.optimizers, strict=True)]
        self._generators = [order_generator(seed) for seed in for_each(seeds, count, "seeds")]
        self.x = backend.asarray(x)
        self.y = backend.asarray(np.array(y, np.int64))  # a copy, since its owner could change the labels after they were checked
        backend.check_input(self.x, layer_sizes[0])
        task = Task(
            tuple(layer_sizes),
            self.batch_size,
            backend.dtype,
            self.x.dtype.name if hasattr(self.x.dtype, "name") else str(self.x.dtype),
            density(x),
            find_activation(activation),
            gradient,
            Optimizer.record_for(self.optimizers),
            own_step=step is not None,
        )
        self._epoch = 0
        self._orders = self._draw()
        self._groups = [
            self._start(places, task, networks, LoopPath(backend, step), requested_path(path))
            for places in places_of_each([optimizer.zeros for optimizer in self.optimizers])
        ]
        self.task, self.taken = self._groups[0].task, self._groups[0].taken
        backend.synchronize()

    def _start(self, places: list[int], task: Task, networks: Networks, loop: LoopPath, asked: tuple[str, str]) -> Group:
        rule = Optimizer.record_for([self.optimizers[place] for place in places])
        task = replace(task, rule=rule, networks=len(places))
        states = [initial_state(networks[place], rule.n_slots) for place in places]
        return Group(places, task, *start_path(self.backend, loop, task, states, self.x, self.y, asked))

    def epoch(self) -> EpochResult:
        """Train every network on every sample once, each in a fresh random order of its own."""
        start = time.perf_counter()
        factors = self._factors()
        sums = [group.run.epoch(self._orders[group.places], self._scalars(group, factors)) for group in self._groups]
        self._epoch += 1
        self._orders = self._draw()  # of the next epoch, while a GPU still works on this one
        losses, hits = self._means([own for own, _ in sums]), self._means([own for _, own in sums])
        self.backend.synchronize()
        return EpochResult(losses, hits, time.perf_counter() - start)

    def _means(self, sums: Sequence[Any]) -> list[float]:
        """The mean over the epoch for each network, from the sums over minibatches of each group."""
        means = {}
        for group, own in zip(self._groups, sums, strict=True):
            for place, of_batches in zip(group.places, self.backend.to_numpy(own), strict=True):
                means[place] = epoch_mean(of_batches, self.x.shape[0], self.batch_size, self.loss_average)
        return [means[place] for place in sorted(means)]

    def states(self) -> list[State]:
        """Parameters and slots of each network as NumPy arrays."""
        states = {place: state for group in self._groups for place, state in zip(group.places, group.run.states(), strict=True)}
        return [states[place] for place in sorted(states)]

    def taken_by(self, network: int) -> Taken:
        """The path of one of the networks, and why not those before it."""
        return next(group.taken for group in self._groups if network in group.places)

    def params(self, network: int = 0) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """The parameters of a network as NumPy arrays."""
        return self.states()[network].params

    def keep(self, networks: Sequence[int]) -> None:
        """Go on with these networks alone, given in ascending order by their places among those that are still trained."""
        left = [(group, [at for at, place in enumerate(group.places) if place in networks]) for group in self._groups]
        self._groups = [group for group, kept in left if kept]
        for group, kept in left:
            if kept:
                group.run.keep(kept)
                group.places = [networks.index(group.places[at]) for at in kept]
        self.optimizers = [self.optimizers[place] for place in networks]
        self.learning_rates = [self.learning_rates[place] for place in networks]
        self._generators = [self._generators[place] for place in networks]
        self._orders = self._orders[list(networks)]

    def _factors(self) -> npt.NDArray[np.float64]:
        """The factor of the learning rate at each step of this epoch."""
        n_batches = -(-self.x.shape[0] // self.batch_size)
        return self.schedule.rates(1.0, self._epoch, max(self.epochs, self._epoch + 1), n_batches)

    def _scalars(self, group: Group, factors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The uniform numbers of each step of this epoch, for each network of a group."""
        first = self._epoch * len(factors) + 1
        rule = group.task.rule
        return np.stack([self.optimizers[i].scalars(rule, self.learning_rates[i] * factors, first) for i in group.places])

    def _draw(self) -> npt.NDArray[np.int64]:
        """The order of the samples for each network. NumPy releases Python's lock while it draws, so threads help."""
        n = self.x.shape[0]
        if len(self._generators) == 1:
            return self._generators[0].permutation(n)[None]
        with ThreadPoolExecutor(self._threads) as pool:
            return np.stack(list(pool.map(lambda generator: generator.permutation(n), self._generators)))


def places_of_each(kinds: Sequence[Any]) -> list[list[int]]:
    """For each kind the places at which it stands, in the order in which the kinds first occur."""
    return [[place for place, own in enumerate(kinds) if own == kind] for kind in dict.fromkeys(kinds)]


def for_each(values: Sequence[Any], count: int, what: str) -> list[Any]:
    """A value for each of `count` networks, from that many or from one for all; SettingError for another number."""
    if len(values) not in (1, count):
        raise SettingError(f"there must be one of the {what} for each of the {count} networks; got {len(values)}")
    return list(values) if len(values) == count else [values[0]] * count


def learning_rate(rate: float | None, optimizer: Optimizer, gradient: str) -> float:
    """The learning rate if one is given, else the default of the optimiser; SettingError if it is no positive number."""
    if rate is None:
        rate = NOTEBOOK_LEARNING_RATE if (gradient, optimizer.name) == ("notebook", "sgd") else optimizer.learning_rate
    if rate is None:
        raise SettingError(f"the rule {optimizer.name} has no default for its rate: give a learning rate")
    if not (np.isfinite(rate) and rate > 0):
        raise SettingError(f"the learning rate must be a positive number; got {rate}")
    return float(rate)


def initial_state(params: Sequence[tuple[Any, Any]], n_slots: int) -> State:
    """A network at the start of its training: every slot of the optimiser is 0."""
    zeros = [[(np.zeros_like(weights), np.zeros_like(bias)) for _ in range(n_slots)] for weights, bias in params]
    return State(list(params), zeros)


def density(x: Any) -> float:
    """Share of the values that are not zero, in some samples from all over `x`; 1 for floating ones, whose zeros no path skips."""
    if x.dtype != np.uint8:
        return 1.0
    some = np.asarray(x[:: max(1, x.shape[0] // LOOKED_AT)])
    return float(np.count_nonzero(some) / max(1, some.size))


def order_generator(seed: int) -> np.random.Generator:
    """The generator of the order of the samples: another stream than the one that `init_params` draws from."""
    return np.random.default_rng([seed, 1])


def epoch_mean(batch_sums: npt.NDArray[np.float64], n: int, batch_size: int, loss_average: str) -> float:
    """The mean over an epoch of `n` samples from the sums of its minibatches; `loss_average` as in `mini_batch_sgd`."""
    if loss_average == "samples":
        return float(batch_sums.sum() / n)
    sizes = np.full(len(batch_sums), batch_size)
    sizes[-1] = n - batch_size * (len(batch_sums) - 1)
    return float((batch_sums / sizes).sum() / (n // batch_size))  # the notebook does not count the last, shorter minibatch
