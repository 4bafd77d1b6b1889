"""What a training run recorded, how it ended, and its trained parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from mlp_accel.errors import MlpAccelError
from mlp_accel.training.snapshot import Snapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DONE, STOPPED, DIVERGED, INTERRUPTED = "done", "stopped", "diverged", "interrupted"


VALIDATION = ("validation_loss", "validation_accuracy")

Params = list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]

Mark = tuple[int, int | None, Params, Snapshot | None]
"""How many epochs a history had, and which parameters it returned."""


class NonFiniteLossError(MlpAccelError, ArithmeticError):
    """The loss became NaN or infinite. `history` holds the epochs before that."""

    def __init__(self, reason: str, history: History) -> None:
        self.history = history
        super().__init__(f"{reason}; try a smaller learning rate")


@dataclass
class History:
    """What a training run recorded.

    Attributes
    ----------
    loss, accuracy : list of float
        For each epoch the mean over its samples, each evaluated before the update by its own minibatch.
    seconds : list of float
        Duration of each epoch, the device synchronised; validation is not counted.
    validation_loss, validation_accuracy : list of float
        For each epoch the means over the samples for validation, after the epoch; empty without any.
    best_epoch : int, optional
        With validation the number, from 1, of the epoch that was best there.
    params : list of (weights, bias)
        NumPy arrays, as they were after the best epoch; without validation after the last complete one.
    last : Snapshot, optional
        The network after the last complete epoch, with all that is needed to go on: give it to `mini_batch_sgd` in place of
        parameters. None before the first.
    backend : str
        Name of the backend.
    path : str
        Name of the path that trained.
    passed_over : list of (str, str)
        The paths that come before it, each with the reason why it was not taken.
    selection : str
        Why this backend was taken, in words: of ``"fastest"`` with what was measured, of ``"auto"`` also whether a measurement that
        is kept would have it otherwise.
    resumed : int
        How many of the epochs were read from a checkpoint.
    rests : int
        How often threads rested because other processes kept the cores busy: times of a crowded machine.
    status : {"done", "stopped", "diverged", "interrupted"}
        How the training ended: out of patience is ``"stopped"``, a loss that is not finite ``"diverged"``.
    reason : str, optional
        What ended it early, in words for people.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    params: Params = field(default_factory=list, repr=False)
    last: Snapshot | None = field(default=None, repr=False)
    backend: str = ""
    path: str = ""
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    selection: str = ""
    resumed: int = 0
    rests: int = 0
    status: str = DONE
    reason: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return self.status == INTERRUPTED

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def _columns(self) -> dict[str, list[float]]:
        """What is recorded of each epoch."""
        columns = {"loss": self.loss, "accuracy": self.accuracy, "seconds": self.seconds}
        validated = dict(zip(VALIDATION, (self.validation_loss, self.validation_accuracy), strict=True))
        return columns | validated if self.validation_loss else columns

    def mark(self) -> Mark:
        """Where it is now, for `back_to`."""
        return len(self), self.best_epoch, self.params, self.last

    def back_to(self, mark: Mark) -> None:
        """Go back to where it was: Ctrl-C may come when an epoch is recorded in part."""
        n_epochs, self.best_epoch, self.params, self.last = mark
        for column in self._columns.values():
            del column[n_epochs:]

    def rows(self) -> list[dict[str, Any]]:
        """One ``{"epoch", "loss", "accuracy", "seconds"}`` per epoch, and what validation gave."""
        columns = self._columns
        return [
            {"epoch": i, **dict(zip(columns, row, strict=True))} for i, row in enumerate(zip(*columns.values(), strict=True), 1)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the parameters, in types that JSON knows."""
        return {
            "backend": self.backend,
            "path": self.path,
            "passed_over": [list(pair) for pair in self.passed_over],
            "selection": self.selection,
            "history": self.rows(),
            "best_epoch": self.best_epoch,
            "status": self.status,
            "reason": self.reason,
            "interrupted": self.interrupted,
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any], params: Params, last: Snapshot) -> History:
        """A training to go on with, from what `to_dict` gave, which leaves out the parameters; ValueError if it is none."""
        rows, best = content["history"], content["best_epoch"]
        if content["status"] not in (DONE, STOPPED) or (best is not None and not 1 <= best <= len(rows)):
            raise ValueError(f"no training to go on with is {content['status']!r} with the best epoch {best!r} of {len(rows)}")
        history = History(
            best_epoch=best,
            params=params,
            last=last,
            backend=content["backend"],
            path=content["path"],
            passed_over=[(path, reason) for path, reason in content["passed_over"]],
            selection=str(content.get("selection", "")),  # older checkpoints have none
            resumed=len(rows),
            status=content["status"],
            reason=content["reason"],
        )
        for name in ("loss", "accuracy", "seconds", *(VALIDATION if rows and VALIDATION[0] in rows[0] else ())):
            getattr(history, name).extend(float(row[name]) for row in rows)
        return history

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Loss and accuracy side by side; written to `path` if one is given.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from mlp_accel.plots import plot_history, save_figure

        figure = plot_history(self)
        if path is not None:
            save_figure(figure, Path(path))
        return figure
