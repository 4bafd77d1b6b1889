"""The backend ``fastest``: whatever trains this network on these data fastest, backend and path.

It is found out by training some epochs, once, and kept on disk for the same machine, libraries, network and kind of data. What is
trained for this is thrown away: neither parameters nor seeds nor the user's own functions take part in it.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

import mlp_accel
from mlp_accel.backends import BACKENDS, FASTEST, backend_class, get_backend, requested_backend, unavailable
from mlp_accel.backends.base import Backend
from mlp_accel.backends.kept_answers import answer_file, answer_files, keep_answer, read_answer, warn_damaged
from mlp_accel.backends.loop import Step
from mlp_accel.backends.paths import AUTO, LOOP, requested_path
from mlp_accel.environment import HOST_VARIABLE, cpu_model
from mlp_accel.errors import OutputError, PathError, SettingError
from mlp_accel.training.fingerprint import describe_activation
from mlp_accel.training.snapshot import Snapshot
from mlp_accel.training.trainer import Trainer

FOLDER = "fastest"
"""Of the cache, for the measurements."""

EPOCHS, SECONDS = 3, 1.5
"""Epochs that a candidate is timed for, after a first one that compiles; none is begun after so many seconds."""

MOST_PRODUCTS, MOST_STEPS, FEWEST_STEPS = 5e9, 1000, 8
"""Of an epoch that is timed: products of a weight with an input, and minibatches. Of a larger data set only so many samples are
taken, but never fewer minibatches than the last number. A slow core takes half a second for it."""

PATIENCE = 300.0
"""Seconds to wait for another process that is measuring: the two would disturb each other."""

logger = logging.getLogger("mlp_accel")


@dataclass(frozen=True)
class Fastest:
    """The wish for the fastest backend, in the place of a backend.

    Attributes
    ----------
    dtype : {"float32", "float64"}
        Of the backend.
    say : callable
        Is called with a line for whatever is measured, as it happens.
    """

    dtype: str = "float32"
    say: Callable[[str], object] = logger.info

    @staticmethod
    def wished(
        backend: Backend | Fastest | str | None,
        dtype: str = "float32",
        say: Callable[[str], object] = logger.info,
        source: str = "the argument backend",
    ) -> Fastest | None:
        """The wish, if it or ``"fastest"`` is what stands for a backend or, where that is None, in ``MLP_ACCEL_BACKEND``."""
        if isinstance(backend, Backend | Fastest):
            return backend if isinstance(backend, Fastest) else None
        return Fastest(dtype, say) if requested_backend(backend, source)[0] == FASTEST else None


@dataclass(frozen=True)
class Candidate:
    """A backend and one of its paths: the seconds of an epoch, or the problem because of which there are none."""

    backend: str
    path: str
    seconds: float | None = None
    problem: str | None = None

    @property
    def name(self) -> str:
        """Backend and path."""
        return f"{self.backend} {self.path}".strip()


@dataclass(frozen=True)
class Measurement:
    """What was found for a network and a kind of data.

    Attributes
    ----------
    what : str
        The network, in words.
    date : str
    samples : int
        The seconds are those of an epoch of so many samples.
    candidates : tuple of Candidate
        The fastest first; those without a time come last.
    """

    what: str
    date: str
    samples: int
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        """The fastest."""
        return self.candidates[0]

    def verdict(self, samples: int | None = None) -> str:
        """The fastest with the seconds of an epoch of so many samples, and the fastest of each backend beside it."""
        scale = (samples or self.samples) / self.samples
        timed = [candidate for candidate in self.candidates if candidate.seconds is not None]
        others: dict[str, str] = {}
        for candidate in timed[1:]:
            others.setdefault(candidate.backend, f"{candidate.name} {_seconds_of(candidate, scale)}")
        against = f" against {', '.join(others.values())}" if others else ""
        missing = [f"; {candidate.name}: {candidate.problem}" for candidate in self.candidates if not candidate.path]
        return f"{self.best.name}, {_seconds_of(self.best, scale)} s an epoch{against}{''.join(missing)}"

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        return asdict(self)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Measurement:
        """What `to_dict` gave; ValueError, KeyError or TypeError for anything else."""
        rows = [Candidate(**{name: row[name] for name in Candidate.__dataclass_fields__}) for row in content["candidates"]]
        if not rows or rows[0].backend not in BACKENDS or not _is_positive(rows[0].seconds) or not _is_positive(content["samples"]):
            raise ValueError("it names no fastest backend")
        if not all(row.seconds is None or _is_positive(row.seconds) for row in rows):
            raise ValueError("a time is none")
        return Measurement(str(content["what"]), str(content["date"]), content["samples"], tuple(rows))


def resolve(
    backend: Backend | Fastest | str | None,
    path: str | None,
    start: Callable[..., Trainer],
    x: Any,
    y: Any,
    networks: Sequence[Sequence[tuple[Any, Any]] | Snapshot],
    threads: int,
    step: Step | None = None,
    before: str | None = None,
) -> tuple[Backend, str | None]:
    """The backend and the path that a training is to take: those that are asked for or, for ``fastest``, those that it finds.

    Parameters
    ----------
    backend : Backend, Fastest or str, optional
        As for `mini_batch_sgd`.
    path : str, optional
        Then only this path counts.
    start : callable
        `Trainer` with all its settings but backend, path and threads, and without functions that only the user may call.
    x, y, networks : array-like
        As for `Trainer`; not changed.
    threads : int
    step : callable, optional
        A step of the user's own.
    before : str, optional
        The backend of the training that is gone on with: ``fastest`` keeps it.

    Raises
    ------
    SettingError
        If ``fastest`` is wished for with a step of the user's own, which is not run more often than the user asks for.
    PathError
        If no candidate can train this.
    """
    if isinstance(backend, Backend):
        return backend, path
    wish = Fastest.wished(backend)
    if wish is None:
        assert not isinstance(backend, Fastest)
        return get_backend(backend), path
    if step is not None:
        raise SettingError(f"{FASTEST!r} does not measure a step of your own; name a backend: {', '.join(BACKENDS)}")
    if before is not None:
        chosen = get_backend(before, wish.dtype)
        chosen.selection = f"{FASTEST}: that of the training that is gone on with"
        return chosen, path
    described = start(x, y, networks, get_backend("numpy", wish.dtype), path=LOOP, threads=threads)  # and whatever is wrong is said
    requested = requested_path(path)[0]
    question = _question(described, requested)
    file = answer_file(FOLDER, question, "the fastest backend is looked for at every start, because it cannot be kept")
    found, how = _kept(file), "measured before"
    if found is None:
        with _alone(file, wish.say):
            found = _kept(file)  # by the process that was waited for
            if found is None:
                found, how = _measure(start, described, networks, requested, wish), "measured now"
                keep_answer(file, {**found.to_dict(), "question": question}, "which backend is the fastest")
    chosen = get_backend(found.best.backend, wish.dtype)
    kept = f" and kept in {file}" if file else ""
    chosen.selection = f"{FASTEST}: {found.verdict(described.x.shape[0])} ({how}{kept})"
    logger.info(chosen.selection)
    return chosen, found.best.path


def selection(trainer: Trainer) -> str:
    """Why its backend was taken, in words; for ``auto`` also whether a measurement that is kept would have it otherwise."""
    backend = trainer.backend
    if not backend.automatic or trainer.requested_path[0] != AUTO or trainer.task.own_step or not answer_files(FOLDER):
        return backend.selection
    found = _kept(answer_file(FOLDER, _question(trainer, AUTO), "it cannot be looked up which backend is the fastest"))
    if found is None or (found.best.backend, found.best.path) == (backend.name, trainer.taken.name):
        return backend.selection
    note = f"{FASTEST} would take {found.verdict(trainer.x.shape[0])}, as measured on {found.date}"
    logger.info("%s: %s", AUTO, note)
    return f"{backend.selection}; {note}"


def kept() -> dict[Path, str]:
    """The measurements that are kept: for each file the network and what was found."""
    found = {file: _kept(file) for file in answer_files(FOLDER)}
    return {file: "damaged" if answer is None else f"{answer.what}: {answer.verdict()}" for file, answer in found.items()}


def forget() -> list[Path]:
    """Remove all measurements; the files that are gone.

    Raises
    ------
    OutputError
        If one cannot be removed.
    """
    files = answer_files(FOLDER)
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {file}: {error.strerror or error}") from error
    return files


def _question(trainer: Trainer, requested: str) -> dict[str, Any]:
    """All that the answer depends on. Data sets that differ a little, such as the folds of one, are of one kind."""
    task, optimizers = trainer.task, trainer.optimizers
    record = task.rule.record
    usable = {name: unavailable(name) is None for name in BACKENDS}
    return {
        "versions": {"mlp_accel": mlp_accel.__version__, "numpy": np.__version__}
        | {name: get_backend(name).versions() if usable[name] else None for name in BACKENDS},
        "host": os.environ.get(HOST_VARIABLE, "").strip(),
        "cpu": cpu_model(),
        "threads": trainer.threads,
        "layer_sizes": task.layer_sizes,
        "batch_size": task.batch_size,
        "dtype": task.dtype,
        "networks": len(optimizers),
        "rules": len({optimizer.zeros for optimizer in optimizers}),
        "rule": [optimizers[0].name, repr(record.assignments), record.results],
        "activation": describe_activation(task.activation),
        "gradient": task.gradient,
        "data": {"dtype": task.data, "sparse": task.sparse, "density": f"{task.density:.2g}"},
        "samples_from": 1 << (trainer.x.shape[0].bit_length() - 1),
        "path": requested,
    }


def _kept(file: Path | None) -> Measurement | None:
    """What a file holds, if it holds anything; a warning if it is damaged."""
    content = read_answer(file)
    if file is None or content is None:
        return None
    try:
        return Measurement.from_dict(content)
    except (KeyError, TypeError, ValueError) as error:
        warn_damaged(file, error)
        return None


@contextmanager
def _alone(file: Path | None, say: Callable[[str], object]) -> Iterator[None]:
    """Keep other processes from measuring at the same time, as far as they keep their answers in the same folder."""
    if file is None:
        yield
        return
    lock = FileLock(file.with_name(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{FASTEST}: another process is measuring; waiting for it")
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            say(f"{FASTEST}: it is still measuring; not waiting any longer")
    except (OSError, NotImplementedError) as error:  # a file system that knows no locks
        say(f"{FASTEST}: not locked against other processes: {error}")
    try:
        yield
    finally:
        lock.release()


def _measure(
    start: Callable[..., Trainer], described: Trainer, networks: Sequence[Any], requested: str, wish: Fastest
) -> Measurement:
    """Time every backend and path, and say so.

    Raises
    ------
    PathError
        If none can train this.
    """
    n = described.x.shape[0]
    every = -(-n // _samples(described))
    x, y = described.x[::every], described.y[::every]
    what = f"{described.task}, {described.threads} threads, {described.optimizers[0].name}"
    if len(networks) > 1:
        what = f"{len(networks)} networks of {what}"
    of = f"{x.shape[0]} of {n} samples" if every > 1 else f"{n} samples"
    wish.say(f"{FASTEST}: measuring, once, {what}, on {of}")
    candidates = []
    for backend in reversed(BACKENDS):
        error = unavailable(backend)
        paths = (requested,) if requested != AUTO else (*backend_class(backend).path_names, LOOP)
        for path in ("",) if error else paths:
            if error:
                candidate = Candidate(backend, path, problem=error.reason)
            else:
                candidate = _timed(start, x, y, networks, backend, path, wish.dtype, described.threads, n / x.shape[0])
            seconds = f"{_seconds_of(candidate)} s an epoch"
            wish.say(f"  {candidate.name}: {f'left out: {candidate.problem}' if candidate.problem else seconds}")
            candidates.append(candidate)
    candidates.sort(key=lambda candidate: math.inf if candidate.seconds is None else candidate.seconds)
    if candidates[0].seconds is None:
        problems = "; ".join(f"{candidate.name}: {candidate.problem}" for candidate in candidates)
        raise PathError(f"no backend can train this: {problems}")
    kind = "sparse" if described.task.sparse else described.task.data
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Measurement(f"{what}, {kind} of density {described.task.density:.2g}", date, n, tuple(candidates))


def _timed(
    start: Callable[..., Trainer],
    x: Any,
    y: Any,
    networks: Sequence[Any],
    backend: str,
    path: str,
    dtype: str,
    threads: int,
    scale: float,
) -> Candidate:
    """Train some epochs; the shortest, times `scale`. Whatever goes wrong is the problem of the candidate."""
    try:
        used = get_backend(backend, dtype)
        with used.limit_threads(threads), np.errstate(all="ignore"):
            trainer = start(x, y, networks, used, path=path, threads=threads)
            trainer.epoch()
            times: list[float] = []
            begin = time.perf_counter()
            while len(times) < EPOCHS and (not times or time.perf_counter() - begin < SECONDS):
                times.append(trainer.epoch().seconds)
    except Exception as problem:  # a kernel may fail in any way, and another candidate may do
        return Candidate(backend, path, problem=str(problem) or type(problem).__name__)
    return Candidate(backend, path, min(times) * scale)


def _samples(trainer: Trainer) -> int:
    """How many samples are trained on, of those that there are."""
    size, sizes = trainer.batch_size, trainer.task.layer_sizes
    products = 3 * len(trainer.optimizers) * sum(n_in * n_out for n_in, n_out in pairwise(sizes))
    most: int = max(min(MOST_STEPS * size, int(MOST_PRODUCTS / products)), FEWEST_STEPS * size)
    n: int = trainer.x.shape[0]
    return min(n, most)


def _seconds_of(candidate: Candidate, scale: float = 1.0) -> str:
    seconds = (candidate.seconds or 0.0) * scale
    return f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
