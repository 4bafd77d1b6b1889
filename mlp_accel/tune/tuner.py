"""The search: tasks go out to workers, results come back into the file, and what was lost goes out again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mlp_accel import datasets
from mlp_accel.backends import get_backend
from mlp_accel.backends.threads import thread_count
from mlp_accel.environment import gpus
from mlp_accel.errors import SettingError
from mlp_accel.training.recipes import Recipe
from mlp_accel.tune.data import Arrays, Split, UnfitWorkerError, shared
from mlp_accel.tune.executors import ClusterLostError, Pending, Pool, WorkerLostError, Workers
from mlp_accel.tune.journal import Journal, Row, key
from mlp_accel.tune.plan import Network, Plan, Task
from mlp_accel.tune.ranking import Tuning
from mlp_accel.tune.space import Settings, recipes_of
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
    space: Iterable[Settings],
    data: datasets.Dataset | Arrays | str | Path | None = None,
    *,
    seeds: int | Iterable[int] = 1,
    validation: float | None = 0.1,
    folds: int | None = None,
    split_seed: int = 0,
    base: Recipe | None = None,
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
        Settings by name, as from `grid` and `sample`.
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
    base : Recipe, optional
        The settings that the space does not say.
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
    recipes = recipes_of(space, base or Recipe())
    split = Split(validation, folds, split_seed)
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(None if results is None else Path(results)))
        source = stack.enter_context(shared(data))
        job = Job(source, split, backend, path, versions(), threads)
        networks = [Network(replace(recipe, seed=seed), part) for recipe in recipes for part in split.parts for seed in all_seeds]
        search = Search(job, networks, journal, listen, timeout)
        if not search.missing:
            return search.outcome()
        used = stack.enter_context(_workers(executor, workers, backend))
        if threads is None and isinstance(used, Pool):
            search.job = replace(job, threads=max(1, thread_count() // used.slots))
        return search.run(used)


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
    """

    def __init__(
        self,
        job: Job,
        networks: Iterable[Network],
        journal: Journal,
        listen: Listener = lambda _: None,
        timeout: float = TASK_TIMEOUT,
    ) -> None:
        self.job, self.journal, self.listen, self.timeout = job, journal, listen, timeout
        self.wanted = {key(identity(job, network)): network for network in networks}
        self._running: dict[Pending, tuple[Task, float]] = {}
        self._failed: list[Row] = []
        self._lost, self._at_once = 0, 1

    @property
    def missing(self) -> list[Network]:
        """The networks without a result."""
        return [network for name, network in self.wanted.items() if name not in self.journal.rows]

    def outcome(self, interrupted: str | None = None, seconds: float = 0.0) -> Tuning:
        """What there is now."""
        rows = [self.journal.rows[name] for name in self.wanted if name in self.journal.rows]
        return Tuning(rows, len(self.wanted), self._failed, interrupted, seconds)

    def run(self, workers: Workers) -> Tuning:
        """Train what is missing; ends early by Ctrl-C, or if there is nobody left who could."""
        self.workers = workers
        plan = Plan(self.missing, *self.job.source.shape, self.job.source.n_classes)
        start, wanted, interrupted = workers.now(), len(self.wanted), None
        begun = done = wanted - len(plan)
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
        return self.outcome(interrupted, workers.now() - start)

    def _step(self, plan: Plan) -> list[Row]:
        """Give every free worker a task, wait for some that end, and keep what they have found."""
        while plan and len(self._running) < self.workers.slots:
            task = plan.next(self.workers.slots, self._at_once)
            pending = self.workers.submit(train, self.job, task.networks)
            self._running[pending] = task, self.workers.now() + self.timeout
        found = [row for pending in self.workers.wait(LOOK) for row in self._take(pending, plan)]
        self._end_hung(plan)
        return found

    def _take(self, pending: Pending, plan: Plan) -> list[Row]:
        """What has come of a task."""
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
            self._failed += [failed(self.job, network, f"{type(error).__name__}: {error}") for network in task.networks]
            return []
        plan.took(task, answer.seconds)
        self._at_once = answer.at_once
        self._failed += [row for row in answer.rows if row["status"] == FAILED]
        return self.journal.append(row for row in answer.rows if row["status"] not in (FAILED, "interrupted"))

    def _lose(self, task: Task, plan: Plan, reason: str, final: bool = False) -> None:
        """A task whose worker is lost runs again, unless it was lost too often."""
        self._lost += 1
        if final or task.losses == MAX_LOSSES:
            text = f"{reason}, after it was tried {task.losses + 1} times" if task.losses else reason
            self._failed += [failed(self.job, network, text) for network in task.networks]
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
