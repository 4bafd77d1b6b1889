"""What a training run recorded, how it ended, and its trained parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from mlp_accel.errors import MlpAccelError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DONE, DIVERGED, INTERRUPTED = "done", "diverged", "interrupted"


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
        Duration of each epoch, the device synchronised.
    params : list of (weights, bias)
        NumPy arrays, as they were after the last complete epoch.
    backend : str
        Name of the backend.
    path : str
        Name of the path that trained.
    passed_over : list of (str, str)
        The paths that come before it, each with the reason why it was not taken.
    rests : int
        How often threads rested because other processes kept the cores busy: times of a crowded machine.
    status : {"done", "diverged", "interrupted"}
        How the training ended: a loss that is not finite is ``"diverged"``.
    reason : str, optional
        What ended it early, in words for people.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    params: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = field(default_factory=list, repr=False)
    backend: str = ""
    path: str = ""
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    rests: int = 0
    status: str = DONE
    reason: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return self.status == INTERRUPTED

    def __len__(self) -> int:
        return len(self.loss)

    def cut(self, n_epochs: int, params: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> None:
        """Forget all after `n_epochs`, whose parameters are `params`: Ctrl-C may come when an epoch is recorded in part."""
        self.params = params
        for column in (self.loss, self.accuracy, self.seconds):
            del column[n_epochs:]

    def rows(self) -> list[dict[str, Any]]:
        """One ``{"epoch", "loss", "accuracy", "seconds"}`` per epoch."""
        columns = zip(self.loss, self.accuracy, self.seconds, strict=True)
        return [{"epoch": i, "loss": x, "accuracy": a, "seconds": s} for i, (x, a, s) in enumerate(columns, start=1)]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the parameters, in types that JSON knows."""
        return {
            "backend": self.backend,
            "path": self.path,
            "passed_over": [list(pair) for pair in self.passed_over],
            "history": self.rows(),
            "status": self.status,
            "reason": self.reason,
            "interrupted": self.interrupted,
        }

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
