"""What a worker does: train the networks of a task, launch by launch, and say of each how good it is."""

from __future__ import annotations

import functools
import math
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

import mlp_accel
from mlp_accel import get_backend
from mlp_accel.activations import find_activation
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import to_backend
from mlp_accel.backends.threads import thread_count
from mlp_accel.errors import BackendUnavailableError, MlpAccelError
from mlp_accel.network import layer_outputs
from mlp_accel.training.history import DIVERGED, DONE, History
from mlp_accel.training.recipes import Recipe
from mlp_accel.training.train import train_many
from mlp_accel.training.trainer import indices_by_value
from mlp_accel.training.validation import HELD_OUT, EarlyStopping
from mlp_accel.tune.data import Source, Split, UnfitWorkerError, find
from mlp_accel.tune.plan import Network, launch_of

FAILED = "failed"
"""The status of a network that could not be trained; it is not written to the file of results."""

MEMORY_SHARE = 0.25
"""The networks of a launch may take this share of the memory that is free."""

PIECE = 1000
"""Samples that are judged at once."""

_training = threading.Lock()
"""One task at a time in a process: a worker of Dask may have several threads, each training has all of them."""


@dataclass(frozen=True)
class Job:
    """What is the same for all tasks of a search.

    Attributes
    ----------
    backend, path : str or None
        As for `mini_batch_sgd`.
    versions : mapping
        That of every package that must be the same everywhere.
    threads : int or None
        CPU threads of a worker; None for what was granted to it.
    stopping : EarlyStopping or None
        When a training ends early, by the samples that judge it, and which epoch then counts; None: all end with their last one.
    """

    source: Source
    split: Split
    backend: str | None
    path: str | None
    versions: Mapping[str, str]
    threads: int | None = None
    stopping: EarlyStopping | None = None


@dataclass(frozen=True)
class Answer:
    """What a worker found out.

    Attributes
    ----------
    rows : list of dict
        For each network what stands in the file of results, `FAILED` ones too.
    seconds : float
        What the task took.
    at_once : int
        How many networks the worker trains side by side.
    """

    rows: list[dict[str, Any]]
    seconds: float
    at_once: int


def versions() -> dict[str, str]:
    """The versions that results, or their transport, depend on."""
    packages = {name: metadata.version(name) for name in ("numpy", "numba")}
    return {"python": ".".join(platform.python_version_tuple()[:2]), "mlp_accel": mlp_accel.__version__, **packages}


def check_versions(expected: Mapping[str, str]) -> None:
    """UnfitWorkerError if this process has other versions; names them."""
    found = versions()
    different = [
        f"{name} {found.get(name)} in place of {version}" for name, version in expected.items() if found.get(name) != version
    ]
    if different:
        raise UnfitWorkerError(f"the worker {worker_name()} has {', '.join(different)}: install the same versions everywhere")


def train(job: Job, networks: Sequence[Network]) -> Answer:
    """Train networks and judge them by the samples that were kept out.

    Raises
    ------
    UnfitWorkerError
        If this worker has other versions, other data, or no such backend or path.
    """
    start = time.perf_counter()
    check_versions(job.versions)
    with _training:
        try:
            threads = _threads(job)
            rows: list[dict[str, Any]] = []
            for _, launch in groupby(networks, launch_of):
                rows += _train_launch(job, list(launch), threads)
        except BackendUnavailableError as error:
            raise UnfitWorkerError(f"the worker {worker_name()}: {error}") from None  # its own class cannot be sent
        except UnfitWorkerError as error:
            raise UnfitWorkerError(f"the worker {worker_name()}: {error}") from None
    return Answer(rows, time.perf_counter() - start, threads)


def worker_name() -> str:
    """Where this process is: host and process id, as the tools of a system know it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _threads(job: Job) -> int:
    """CPU threads: what the search says, else what Dask has granted to its worker, else the cores of the process."""
    if job.threads is None and "distributed" in sys.modules:
        from distributed import get_worker

        try:
            return min(int(get_worker().state.nthreads), thread_count())
        except ValueError:  # not a worker of Dask
            pass
    return thread_count(job.threads)


def _train_launch(job: Job, networks: list[Network], threads: int) -> list[dict[str, Any]]:
    """Rows of networks that can share a launch; where memory does not suffice, in two launches of half as many."""
    most = _most_networks(job, networks[0].recipe)
    rows: list[dict[str, Any]] = []
    for first in range(0, len(networks), most):
        some = networks[first : first + most]
        try:
            rows += _trained(job, some, threads)
        except MemoryError as error:
            if len(some) == 1:
                rows.append(failed(job, some[0], f"out of memory: {error}"))
                continue
            half = len(some) // 2
            rows += _train_launch(job, some[:half], threads) + _train_launch(job, some[half:], threads)
        except (UnfitWorkerError, BackendUnavailableError):
            raise
        except (MlpAccelError, ValueError) as error:
            rows += [failed(job, network, str(error)) for network in some]
    return rows


def _trained(job: Job, networks: Sequence[Network], threads: int) -> list[dict[str, Any]]:
    """Train networks in one launch, and judge each."""
    recipe, recipes = networks[0].recipe, [network.recipe for network in networks]
    x, y = find(job.source)
    rows = [_rows(job.source, job.split, network.part) for network in networks]
    backend = get_backend(job.backend, recipe.dtype)
    start = time.perf_counter()
    histories = train_many(
        *(x, y, [own.initial_params(job.source.shape[1], job.source.n_classes) for own in recipes]),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rates=[own.find_rate() for own in recipes],
        activation=recipe.activation,
        gradient=recipe.gradient,
        optimizer=recipe.optimizer,
        momentum=_one_for_each([own.momentum for own in recipes]),
        weight_decay=_one_for_each([own.weight_decay for own in recipes]),
        schedule=recipe.schedule,
        warmup=recipe.warmup,
        step_epochs=recipe.step_epochs,
        gamma=recipe.gamma,
        seeds=[own.seed for own in recipes],
        backend=backend,
        threads=threads,
        path=job.path,
        loss_average=recipe.loss_average,
        rows=[train_rows for train_rows, _ in rows],
        **({"validation": HELD_OUT, **vars(job.stopping)} if job.stopping else {}),
    )
    if job.stopping:
        judged = [_at_best_epoch(history) for history in histories]
    else:
        with backend.limit_threads(threads), np.errstate(all="ignore"):
            judged = judge(backend, histories, x, y, [judge_rows for _, judge_rows in rows], recipe)
    seconds = (time.perf_counter() - start) / len(networks)
    each = zip(networks, histories, judged, strict=True)
    return [_row(job, network, history, found, seconds) for network, history, found in each]


def judge(
    backend: Backend, histories: Sequence[History], x: Any, y: Any, rows: Sequence[npt.NDArray[np.int64]], recipe: Recipe
) -> list[tuple[float, float]]:
    """Mean loss and accuracy of each network on the rows that judge it.

    Networks with the same array of rows are judged together, and each piece of them is put on the device once.
    """
    activation = find_activation(recipe.activation)
    params = [to_backend(backend, history.params) for history in histories]
    means = np.zeros((len(params), 2))
    for indices in indices_by_value([id(own) for own in rows]):
        own = rows[indices[0]]
        for start in range(0, len(own), PIECE):
            numbers = own[start : start + PIECE]
            piece = backend.scale_pixels(backend.asarray(np.ascontiguousarray(x[numbers])))
            labels = backend.asarray(np.array(y[numbers], np.int64))
            for index in indices:
                outputs, _ = layer_outputs(backend, params[index], piece, activation)
                _, loss, hits = backend.classify(outputs[-1], labels, "exact")
                means[index] += float(loss), float(hits)
        means[indices] /= len(own)
    return [(loss, accuracy) for loss, accuracy in means.tolist()]


def _at_best_epoch(history: History) -> tuple[float, float]:
    """Loss and accuracy on the samples that judge a network, after the epoch whose parameters it has; NaN if it has none."""
    if history.best_epoch is None:
        return math.nan, math.nan
    return history.validation_loss[history.best_epoch - 1], history.validation_accuracy[history.best_epoch - 1]


def identity(job: Job, network: Network) -> dict[str, Any]:
    """What tells the result of a network from all others, as it stands in the file of results."""
    settings = {**vars(network.recipe), "hidden": list(network.recipe.hidden)}
    seed = settings.pop("seed")
    judged_by = {"folds": job.split.folds} if job.split.folds else {"validation": job.split.validation}
    fold = {"fold": network.part} if job.split.folds else {}
    by = {"split_seed": job.split.seed, "data": job.source.fingerprint}
    stopping = {"early_stopping": vars(job.stopping)} if job.stopping else {}
    return {"settings": settings, "seed": seed, **fold, **judged_by, **by, **stopping}


def failed(job: Job, network: Network, reason: str) -> dict[str, Any]:
    """The row of a network that could not be trained."""
    return {**identity(job, network), "status": FAILED, "reason": reason}


def _row(job: Job, network: Network, history: History, judged: tuple[float, float], seconds: float) -> dict[str, Any]:
    loss, accuracy = judged
    status, reason = history.status, history.reason
    if status == DONE and not math.isfinite(loss):
        status, reason = DIVERGED, f"the loss is {loss} on the samples that judge it"
    good = status != DIVERGED
    return {
        **identity(job, network),
        "status": status,
        "reason": reason,
        "accuracy": accuracy if good else None,
        "loss": loss if good else None,
        "train_accuracy": history.accuracy[-1] if history.accuracy else None,
        "train_loss": history.loss[-1] if history.loss else None,
        "epochs": len(history),
        **({"best_epoch": history.best_epoch} if job.stopping else {}),
        "seconds": round(seconds, 6),
        "backend": history.backend,
        "path": history.path,
        "worker": worker_name(),
    }


@functools.lru_cache(maxsize=32)
def _rows(source: Source, split: Split, part: int | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The numbers of the samples to train on, and of those to judge by; of some folds they stay in memory."""
    return split.rows(find(source)[1], part)


def _one_for_each(values: list[float | None]) -> list[float] | None:
    """Values of a setting, or None where the optimiser does not have it."""
    return None if None in values else [float(value) for value in values if value is not None]


def _most_networks(job: Job, recipe: Recipe) -> int:
    """How many networks of a kind fit into the memory that is free, with parameters, slots, orders and scratch."""
    sizes = (job.source.shape[1], *recipe.hidden, job.source.n_classes)
    weights = sum(a * b for a, b in pairwise(sizes))
    own = 8 * 6 * weights + 8 * 4 * recipe.batch_size * sum(sizes) + 8 * 4 * job.source.shape[0]
    return max(1, int(MEMORY_SHARE * get_backend(job.backend).free_memory() / own))
