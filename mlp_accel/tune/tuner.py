"""The search: tasks go out to workers, results come back into the file, and what was lost goes out again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlp_accel import datasets
from mlp_accel.backends import get_backend
from mlp_accel.backends.threads import thread_count
from mlp_accel.environment import gpus
from mlp_accel.errors import SettingError
from mlp_accel.training.history import INTERRUPTED
from mlp_accel.training.recipes import Recipe
from mlp_accel.training.validation import EarlyStopping
from mlp_accel.tune.data import Arrays, Split, UnfitWorkerError, shared
from mlp_accel.tune.executors import ClusterLostError, Pending, Pool, WorkerLostError, Workers
from mlp_accel.tune.journal import Journal, Row, key
from mlp_accel.tune.plan import Network, Plan, Task
from mlp_accel.tune.ranking import Tuning
from mlp_accel.tune.space import Settings, recipes_of
from mlp_accel.tune.study import Asked, Ranges
from mlp_accel.tune.worker import FAILED, Answer, Job, failed, identity, train, versions

MAX_LOSSES = 3
"""A task that was lost with its worker runs again at most so often."""

TASK_TIMEOUT = 900.0
"""Seconds after which a task counts as hung."""

LOOK = 1.0
"""Seconds between two looks at what hangs and who is there."""


@dataclass
class Progress:
    """How far a search is.

    Attributes
    ----------
    done, wanted : int
        Networks.
    new : sequence of dict
        The results that have just come.
    workers : int
        How many there are now.
    lost : int
        How often a worker was lost.
    rate : float
        Networks a second, since the search began.
    seconds_left : float or None
        As the plan expects it; None before the first task.
    """

    done: int
    wanted: int
    new: Sequence[Row] = ()
    workers: int = 0
    lost: int = 0
    rate: float = 0.0
    seconds_left: float | None = None


Listener = Callable[[Progress], object]


def tune(
    space: Iterable[Settings] | Ranges,
    data: datasets.Dataset | Arrays | str | Path | None = None,
    *,
    seeds: int | Iterable[int] = 1,
    validation: float | None = 0.1,
    folds: int | None = None,
    split_seed: int = 0,
    monitor: str = "loss",
    patience: int | None = None,
    min_delta: float = 0.0,
    base: Recipe | None = None,
    sampler: Any = None,
    trials: int = 100,
    at_once: int = 10,
    backend: str | None = None,
    path: str | None = None,
    executor: Executor | Workers | None = None,
    workers: int | None = None,
    threads: int | None = None,
    results: str | Path | None = None,
    timeout: float = TASK_TIMEOUT,
    listen: Listener = lambda _: None,
) -> Tuning:
    """Train networks with all settings of a space, and see which are the best.

    Parameters
    ----------
    space : iterable of mapping
        Settings by name, as from `grid` and `sample`. With a `sampler` a mapping: for each setting a `Range`, or a sequence of
        values.
    data : Dataset, (x, y), str or path, optional
        Samples and labels to train on, or what `load` takes. Of a data set the test set is not touched.
    seeds : int or iterable of int
        So many networks with each of the settings, or one with each of these seeds, of initial weights and sample order.
    validation : float
        The share of the samples, of each class alike, that networks are not trained on and are judged by.
    folds : int, optional
        In place of that: each network is trained so many times, each time judged by another part of the samples.
    split_seed : int
        Seed of that choice.
    patience : int, optional
        End the training of a network after so many epochs in a row without progress on the samples that judge it. What is recorded
        is then how good it was after its best epoch; without it, after its last one.
    monitor, min_delta : str, float
        What progress is: see `mini_batch_sgd`.
    base : Recipe, optional
        The settings that the space does not say.
    sampler : optuna.Study, optional
        Who says which settings are tried: a study that maximises, and is told the mean accuracy of each. Settings of which a
        network diverged are a pruned trial of it. Trials that were ended early go on if Optuna keeps the study and `results` is
        the same; a study in memory asks for the same settings again if its sampler has a seed, and is told what `results` has.
    trials : int
        How many trials the study shall have in the end.
    at_once : int
        How many settings the study is asked for at a time, so that their networks can share launches.
    backend, path : str, optional
        As for `mini_batch_sgd`.
    executor : Executor, optional
        Who trains: any executor of `concurrent.futures`, ``client.get_executor()`` of Dask among them. By default spawned
        processes of this host: one for each GPU, else one for all cores.
    workers : int, optional
        How many processes, or how many tasks an executor of one's own runs at once.
    threads : int, optional
        CPU threads of each worker.
    results : str or path, optional
        A file to which each result is appended as a line of JSON. Results that it has already are not computed again.
    timeout : float
        Seconds after which a task of a few networks counts as hung.
    listen : callable
        Called with a `Progress` whenever there is one.

    Returns
    -------
    Tuning
        Ctrl-C, or the loss of all workers, ends the search with what there is; ``interrupted`` says why.

    Raises
    ------
    SettingError
        If a setting is unknown or out of range.
    StudyError
        If the study minimises, or has several objectives.
    UnfitWorkerError
        If a worker has other versions or other data.
    JournalError, OutputError
        If the file of results is something else, or cannot be written.
    """
    all_seeds = list(range(seeds) if isinstance(seeds, int) else seeds)
    if not all_seeds or min(all_seeds) < 0:
        raise SettingError(f"seeds must be one or more, and none negative; got {seeds}")
    if not timeout > 0:
        raise SettingError(f"the timeout must be a positive number of seconds; got {timeout:g}")
    split, file = Split(validation, folds, split_seed), None if results is None else Path(results)
    stopping = EarlyStopping(monitor, patience, min_delta)
    if patience is None and stopping != EarlyStopping():
        raise SettingError("monitor and min_delta are those of early stopping: give patience, such as patience=3")

    def networks_of(space: Iterable[Settings]) -> list[Network]:
        recipes = recipes_of(space, base or Recipe())
        return [Network(replace(recipe, seed=seed), part) for recipe in recipes for part in split.parts for seed in all_seeds]

    if isinstance(space, Mapping) != (sampler is not None):
        raise SettingError(
            "the space must be settings, one after another, as grid() and sample() make them; for a sampler, a mapping of ranges"
        )
    asked = Asked(sampler, space, trials, at_once, file) if isinstance(space, Mapping) else None
    networks = [] if isinstance(space, Mapping) else networks_of(space)
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(file))
        source = stack.enter_context(shared(data))
        job = Job(source, split, backend, path, versions(), threads, None if patience is None else stopping)
        search = Search(job, networks, journal, listen, timeout)
        if asked is None and not search.missing:
            return search.outcome()
        used = stack.enter_context(_workers(executor, workers, backend))
        if threads is None and isinstance(used, Pool):
            search.job = replace(job, threads=max(1, thread_count() // used.slots))
        return search.run(used) if asked is None else _ask(asked, search, used, networks_of, len(all_seeds) * len(split.parts))


def _ask(
    asked: Asked, search: Search, workers: Workers, networks_of: Callable[[Iterable[Settings]], list[Network]], per_trial: int
) -> Tuning:
    """Train what a study asks for, some trials at a time, and tell it how good they were."""
    for settings in asked.finished():
        search.add(networks_of([settings]), known=True)
    search.expected = asked.trials * per_trial
    for trials in asked.rounds():
        networks = {number: networks_of([settings]) for number, settings in trials}
        for of_trial in networks.values():
            search.add(of_trial)
        found = search.run(workers)
        if found.interrupted:
            return found
        for number, of_trial in networks.items():
            asked.tell(number, search.rows_of(of_trial), len(of_trial))
    search.expected = 0
    return search.outcome()


def _workers(executor: Executor | Workers | None, count: int | None, backend: str | None) -> Workers:
    if isinstance(executor, Workers):
        return executor
    if executor is not None:
        client = getattr(executor, "_client", None)  # of Dask's executor
        if client is None:
            return Workers(executor, count)
        from mlp_accel.tune.cluster import DaskWorkers

        return DaskWorkers(client)
    get_backend(backend)  # an error before processes are started
    devices = [str(number) for number in range(len(gpus()))]
    return Pool(count or len(devices) or 1, devices)


class Search:
    """A search that is going on.

    Parameters
    ----------
    job : Job
    networks : sequence of Network
        All of them; those that `journal` has are not trained again.
    journal : Journal
    listen : callable
        Called with a `Progress` whenever there is one.
    timeout : float
        Seconds after which a task counts as hung.

    Attributes
    ----------
    expected : int
        How many networks it will have in the end, if more than now: others are added later.
    """

    def __init__(
        self,
        job: Job,
        networks: Iterable[Network],
        journal: Journal,
        listen: Listener = lambda _: None,
        timeout: float = TASK_TIMEOUT,
    ) -> None:
        self.job, self.journal, self.listen, self.timeout, self.expected = job, journal, listen, timeout, 0
        self.wanted: dict[str, Network] = {}
        self._running: dict[Pending, tuple[Task, float]] = {}
        self._failed: dict[str, Row] = {}
        self._lost, self._at_once, self._seconds = 0, 1, 0.0
        self.add(networks)

    def add(self, networks: Iterable[Network], known: bool = False) -> None:
        """More networks to train; with `known` only if there are results of all of them."""
        new = dict(zip(self._names(networks := list(networks)), networks, strict=True))
        if not known or new.keys() <= self.journal.rows.keys():
            self.wanted |= new

    def _names(self, networks: Iterable[Network]) -> list[str]:
        return [key(identity(self.job, network)) for network in networks]

    def rows_of(self, networks: Iterable[Network]) -> list[Row]:
        """The results that there are of these networks."""
        return [self.journal.rows[name] for name in self._names(networks) if name in self.journal.rows]

    @property
    def missing(self) -> list[Network]:
        """The networks that are still to be trained."""
        ended = self.journal.rows.keys() | self._failed.keys()
        return [network for name, network in self.wanted.items() if name not in ended]

    def outcome(self, interrupted: str | None = None) -> Tuning:
        """What there is now."""
        rows = [self.journal.rows[name] for name in self.wanted if name in self.journal.rows]
        return Tuning(rows, max(self.expected, len(self.wanted)), list(self._failed.values()), interrupted, self._seconds)

    def run(self, workers: Workers) -> Tuning:
        """Train what is missing; ends early by Ctrl-C, or if there is nobody left who could."""
        self.workers = workers
        plan = Plan(self.missing, *self.job.source.shape, self.job.source.n_classes)
        start, wanted, interrupted = workers.now(), max(self.expected, len(self.wanted)), None
        begun = done = len(self.wanted) - len(plan)
        self.listen(Progress(done, wanted, workers=workers.slots))
        try:
            while plan or self._running:
                new = self._step(plan)
                done += len(new)
                rate = (done - begun) / max(workers.now() - start, 1e-9)
                left = None if plan.seconds_left is None else plan.seconds_left / max(1, workers.slots)
                self.listen(Progress(done, wanted, new, workers.slots, self._lost, rate, left))
        except KeyboardInterrupt:
            interrupted = "Ctrl-C"
        except ClusterLostError as error:
            interrupted = str(error)
        self._seconds += workers.now() - start
        return self.outcome(interrupted)

    def _step(self, plan: Plan) -> list[Row]:
        """Give every free worker a task, wait for some that end, and keep what they have found."""
        while plan and len(self._running) < self.workers.slots:
            task = plan.next(self.workers.slots, self._at_once)
            pending = self.workers.submit(train, self.job, task.networks)
            self._running[pending] = task, self.workers.now() + self.timeout
        found = [row for pending in self.workers.wait(LOOK) for row in self._take(pending, plan)]
        self._end_hung(plan)
        return self.journal.append(found)

    def _take(self, pending: Pending, plan: Plan) -> list[Row]:
        """The results of a task that has ended."""
        task, _ = self._running.pop(pending, (None, 0.0))
        if task is None:  # it was given up before it came back after all
            return []
        try:
            answer: Answer = self.workers.result(pending)
        except WorkerLostError as error:
            self._lose(task, plan, str(error), error.final)
            return []
        except (UnfitWorkerError, ClusterLostError):
            raise
        except Exception as error:  # of a worker: no more than what it was asked to do is lost
            self._fail(failed(self.job, network, f"{type(error).__name__}: {error}") for network in task.networks)
            return []
        plan.took(task, answer.seconds)
        self._at_once = answer.at_once
        self._fail(row for row in answer.rows if row["status"] == FAILED)
        return [row for row in answer.rows if row["status"] not in (FAILED, INTERRUPTED)]

    def _fail(self, rows: Iterable[Row]) -> None:
        self._failed |= {key(row): row for row in rows}

    def _lose(self, task: Task, plan: Plan, reason: str, final: bool = False) -> None:
        """A task whose worker is lost runs again, unless it was lost too often."""
        self._lost += 1
        if final or task.losses == MAX_LOSSES:
            text = f"{reason}, after it was tried {task.losses + 1} times" if task.losses else reason
            self._fail(failed(self.job, network, text) for network in task.networks)
        else:
            plan.again(replace(task, losses=task.losses + 1))

    def _end_hung(self, plan: Plan) -> None:
        """End the workers of tasks that take too long; those that have been out longest stand first."""
        while self._running:
            pending, (_, deadline) = next(iter(self._running.items()))
            if self.workers.now() <= deadline:
                return
            task, _ = self._running.pop(pending)
            if not self.workers.end(pending):
                raise ClusterLostError(f"a task has hung for {self.timeout:g} s, and this executor cannot end it")
            self._lose(task, plan, f"it hung for {self.timeout:g} s")
