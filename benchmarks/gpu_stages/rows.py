"""A row of a result file: what is to be measured, and what became of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROW_SECONDS = 45.0
"""Limit for a row that does not name another one: a row that hangs costs so long, and no more."""


class UnavailableError(Exception):
    """What a row needs is not there; the message says what."""


@dataclass(frozen=True)
class Effort:
    """How much is done for a figure.

    Attributes
    ----------
    seconds : float
        Least time that is measured, after a warm-up of half as much or more.
    samples : int, optional
        Train on the first so many samples only; such figures are no results, they try the study itself.
    """

    seconds: float = 2.0
    samples: int | None = None


@dataclass(frozen=True)
class Plan:
    """A row to be measured.

    Parameters
    ----------
    name : str
        Name of the backend or the peer.
    measure : callable
        Returns the row's fields; one of this package's functions, so that another process can import it.
    arguments : dict
        Arguments of `measure`.
    kind : {"backend", "peer"}
    path : str, optional
        The path of a backend, which with the name identifies a row.
    variant : str
        What else tells it from other rows of the stage.
    seconds : float
        What it is expected to take.
    limit : float
        After so many seconds it is stopped.
    """

    name: str
    measure: Callable[..., dict[str, Any]]
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = "backend"
    path: str | None = None
    variant: str = ""
    seconds: float = 8.0
    limit: float = ROW_SECONDS

    @property
    def label(self) -> str:
        """What people call the row."""
        return " ".join(filter(None, (self.name, self.path, self.variant)))

    @property
    def framework(self) -> str:
        """Rows of one framework may share a process."""
        return self.name.partition("-")[0]


def finished_row(plan: Plan, status: str, reason: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The row in the form that the result files of ``mlp-accel bench`` have; what was not measured is None."""
    row: dict[str, Any] = {"name": plan.name, "path": plan.path, "variant": plan.variant, "kind": plan.kind}
    row |= {"status": status, "reason": reason}
    row |= dict.fromkeys(("cold_start_seconds", "transfer_seconds", "epoch_seconds"))
    row |= {"loss": [], **dict.fromkeys(("train_accuracy", "test_loss", "test_accuracy"))}
    row |= _plain(fields)
    if status != "ok":
        row["epoch_seconds"] = None  # a time is published only if the run is right
    return row


def _plain(value: Any) -> Any:
    """The same in types that JSON knows; None for each number that is not finite, which it cannot express."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def say(text: str) -> None:
    """A line of output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
