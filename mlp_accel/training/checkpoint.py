"""Checkpoints: what a training that was cut off needs to go on to the same bits.

A checkpoint is written after an epoch, by a thread of its own, so that the training does not wait for the disk. Whatever happens
to the process, the file is either the new one or the one before, never a part of one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from mlp_accel.backends.arrays import Params
from mlp_accel.backends.paths import AUTO, requested_path
from mlp_accel.errors import CheckpointError, OutputError, SettingError
from mlp_accel.files import check_writable, remove_leftovers
from mlp_accel.schedules import Schedule
from mlp_accel.training.checks import check_params
from mlp_accel.training.fingerprint import difference
from mlp_accel.training.history import DIVERGED, DONE, INTERRUPTED, History
from mlp_accel.training.run import Callback
from mlp_accel.training.snapshot import Snapshot, order_generator
from mlp_accel.training.tensor_file import Arrays, read_tensors, write_tensors

FORMAT = 1
"""The version of the file: raised when an older reader would misread it."""

SAID = ("threads", "device", "versions")
"""Settings that may differ from those of the checkpoint: a warning says so, because the last bits may differ then."""

Start = Sequence[tuple[Any, Any]] | Snapshot
"""Where a network starts: parameters, or a snapshot to go on from."""

Train = Callable[[Start, str | None, Sequence[Callback], History | None], History]

logger = logging.getLogger("mlp_accel")


class Checkpoint:
    """The checkpoint of one training, locked against other processes inside of its context.

    Parameters
    ----------
    path : Path
        The file. It is replaced as a whole; beside it there is an empty file, which is what is locked.
    settings : mapping
        What the bits of the training depend on, in types that JSON knows; a checkpoint of other settings is refused.
    schedule : Schedule
    epochs, steps_per_epoch : int
        A training of more epochs than the checkpoint was written for goes on only if the learning rates so far are the same.
    every : float
        Least number of seconds between two writes.

    Raises
    ------
    OutputError
        If the file cannot be written.
    CheckpointError
        If another process uses it.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], schedule: Schedule, epochs: int, steps_per_epoch: int, every: float
    ) -> None:
        if not every >= 0:
            raise SettingError(f"the seconds between two checkpoints must be 0 or more; got {every}")
        self.path, self.schedule, self.epochs, self.every = path, schedule, epochs, every
        self.settings = json.loads(json.dumps(settings))  # as they will be read
        self._steps_per_epoch = steps_per_epoch
        self._lock = FileLock(path.parent / f".{path.name}.lock")
        self._thread = ThreadPoolExecutor(1, "mlp_accel checkpoint")
        self._writing: Future[None] | None = None
        self._written = time.monotonic()

    def __enter__(self) -> Self:
        check_writable(self.path)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise CheckpointError(f"{self.path}: another training uses this checkpoint; wait, or name another") from None
        except OSError as error:
            raise OutputError(f"cannot lock {self.path}: {error.strerror or error}") from error
        remove_leftovers(self.path)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown()
        self._lock.release()

    def train(
        self,
        train: Train,
        start: Sequence[tuple[Any, Any]] | Snapshot,
        path: str | None,
        callbacks: Sequence[Callback],
        n_slots: int,
    ) -> History:
        """Go on with the training of the checkpoint, or begin one at `start`.

        Parameters
        ----------
        train : callable
            Trains from parameters or a snapshot, by a path, with callbacks, and goes on with a history if there is one.
        n_slots : int
            Of the optimiser.
        """
        resumed = self.read(n_slots)
        if resumed is None:
            history = train(start, path, [self.after_epoch, *callbacks], None)
        else:
            last = resumed.last
            assert last is not None
            if resumed.status != DONE or last.epochs >= self.epochs:
                return resumed
            asked_for, source = requested_path(path)
            if asked_for not in (AUTO, resumed.path):
                where = f" by {source}" if source else ""
                raise CheckpointError(f"{self.path}: trained by the path {resumed.path}; {asked_for} is asked for{where}")
            history = train(last, resumed.path, [self.after_epoch, *callbacks], resumed)
        if history.status != DIVERGED:
            self.finish(history)
        return history

    # Reading ------------------------------------------------------------------------------------------------------------------

    def read(self, n_slots: int) -> History | None:
        """The history that the training goes on with, or None if there is no checkpoint yet.

        Parameters
        ----------
        n_slots : int
            Of the optimiser.

        Raises
        ------
        CheckpointError
            If the file is damaged, or is that of another training; names every setting that differs.
        """
        if not self.path.exists():
            return None
        arrays, description = read_tensors(self.path, CheckpointError)
        try:
            self._check(description)
            history = _history(arrays, description, n_slots)
        except CheckpointError:
            raise
        except Exception as error:  # the description of a damaged file may be of any form
            raise CheckpointError(f"{self.path}: damaged, or written by another version: {error!r}") from error
        logger.info("%s: goes on after epoch %d", self.path, len(history))
        return history

    def _check(self, described: Mapping[str, Any]) -> None:
        """Raise CheckpointError if the file is not a checkpoint of this training."""
        if described["kind"] != "checkpoint" or described["format"] != FORMAT:
            found = f"a {described['kind']} of format {described['format']}"
            raise CheckpointError(f"{self.path}: {found}, not a checkpoint of format {FORMAT}; name another file")
        theirs, ours = described["settings"], self.settings
        different = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        differences = [difference(name, theirs.get(name), ours.get(name)) for name in different if name not in SAID]
        trained, planned = described["trained"]["epochs"], described["epochs"]
        if self.epochs < trained:
            differences.append(f"epochs: {trained} are trained there, {self.epochs} are asked for")
        elif self.epochs != planned and not self._same_rates(trained, planned):
            differences.append(f"epochs: {planned} there, {self.epochs} here, on which the schedule {self.schedule.name} depends")
        if differences:
            raise CheckpointError(f"{self.path} is the checkpoint of another training: {'; '.join(differences)}; name another file")
        for name in (name for name in SAID if name in different):
            logger.warning("%s: %s; the last bits may differ", self.path, difference(name, theirs.get(name), ours.get(name)))

    def _same_rates(self, trained: int, planned: int) -> bool:
        """Whether the learning rates up to now are the same with the number of epochs that was planned and with that of now."""
        return all(
            (
                self.schedule.rates(1.0, epoch, planned, self._steps_per_epoch)
                == self.schedule.rates(1.0, epoch, self.epochs, self._steps_per_epoch)
            ).all()
            for epoch in range(trained)
        )

    # Writing ------------------------------------------------------------------------------------------------------------------

    def after_epoch(self, history: History) -> None:
        """Write the history, unless the last one was written only just now or is still being written; a callback of the training.

        Raises
        ------
        OutputError
            If it could not be written the last time. The file is the one before, with which the training can be gone on.
        """
        if self._writing is not None and self._writing.done():
            writing, self._writing = self._writing, None
            writing.result()
        if self._writing is None and time.monotonic() - self._written >= self.every:
            self._written = time.monotonic()
            self._writing = self._thread.submit(write_tensors, self.path, *self._content(history))

    def finish(self, history: History) -> None:
        """Write how the training ended, and wait for the disk."""
        if self._writing is not None:
            self._writing.result()
        if history.last is not None:
            write_tensors(self.path, *self._content(history))

    def _content(self, history: History) -> tuple[Arrays, dict[str, Any]]:
        """What is written; the history may go on meanwhile."""
        last = history.last
        assert last is not None
        arrays = _named("", last.params)
        for layer, slots in enumerate(last.slots or (), start=1):
            for slot, (weights, bias) in enumerate(slots, start=1):
                arrays |= {f"slot_{slot}_weights_{layer}": weights, f"slot_{slot}_bias_{layer}": bias}
        if history.best_epoch is not None:
            arrays |= _named("best_", history.params)
        recorded = history.to_dict()
        if history.status == INTERRUPTED:
            recorded |= {"status": DONE, "reason": None, "interrupted": False}  # it goes on
        description = {
            "kind": "checkpoint",
            "format": FORMAT,
            "settings": self.settings,
            "epochs": self.epochs,
            "history": recorded,
            "trained": {"epochs": last.epochs, "steps": last.steps, "order": dict(last.order or {})},
        }
        return arrays, description


def trained_by(path: Path) -> str | None:
    """The name of the backend of a checkpoint; None if there is none, or none that could be gone on with."""
    if not path.exists():
        return None
    _, description = read_tensors(path, CheckpointError)
    name = description.get("settings", {}).get("backend")
    return name if isinstance(name, str) else None


def _history(arrays: Arrays, described: Mapping[str, Any], n_slots: int) -> History:
    """The history that a file holds; fails in some way if it does not fit together."""
    trained = described["trained"]
    layers = sum(name.startswith("weights_") for name in arrays)
    numbers = range(1, layers + 1)
    params = [(arrays[f"weights_{layer}"], arrays[f"bias_{layer}"]) for layer in numbers]
    slots = [
        [(arrays[f"slot_{slot}_weights_{layer}"], arrays[f"slot_{slot}_bias_{layer}"]) for slot in range(1, n_slots + 1)]
        for layer in numbers
    ]
    last = Snapshot(params, slots, int(trained["epochs"]), int(trained["steps"]), trained["order"])
    check_params(params)
    last.state(n_slots)
    order_generator(0, last.order)
    best = params
    if described["history"]["best_epoch"] is not None:
        best = [(arrays[f"best_weights_{layer}"], arrays[f"best_bias_{layer}"]) for layer in numbers]
    return History.from_dict(described["history"], best, last)


def _named(prefix: str, params: Sequence[tuple[Any, Any]] | Params) -> Arrays:
    arrays: Arrays = {}
    for layer, (weights, bias) in enumerate(params, start=1):
        arrays |= {f"{prefix}weights_{layer}": weights, f"{prefix}bias_{layer}": bias}
    return arrays
