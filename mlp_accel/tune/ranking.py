"""What a search has found: the settings in order, each with its mean and spread over seeds and folds."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mlp_accel.training.history import DIVERGED
from mlp_accel.tune.journal import Row


@dataclass(frozen=True)
class Ranked:
    """Some settings, and how good the networks with them are.

    Attributes
    ----------
    settings : dict
        All settings but the seed.
    accuracy : float
        The mean, over seeds and folds, on samples that the networks were not trained on; of a network that diverged it is 0.
    spread : float or None
        Standard deviation over seeds and folds (divided by n - 1); None for one network.
    loss : float or None
        The mean; None if a network diverged.
    networks, diverged : int
        How many there are, and how many of them diverged.
    seconds : float
        What a network took, the mean.
    """

    settings: Mapping[str, Any]
    accuracy: float
    spread: float | None
    loss: float | None
    networks: int
    diverged: int
    seconds: float


@dataclass
class Tuning:
    """The outcome of a search.

    Attributes
    ----------
    rows : list of dict
        A result for each network that is finished, as in the file.
    wanted : int
        How many networks the search has.
    failed : list of dict
        Networks that could not be trained, each with its ``reason``.
    interrupted : str or None
        What ended the search early.
    seconds : float
        What it took.
    """

    rows: list[Row] = field(default_factory=list)
    wanted: int = 0
    failed: list[Row] = field(default_factory=list)
    interrupted: str | None = None
    seconds: float = 0.0

    @property
    def missing(self) -> int:
        """How many networks have no result."""
        return self.wanted - len(self.rows)

    def reasons(self) -> dict[str, int]:
        """Why networks could not be trained, and how many."""
        return dict(Counter(str(row["reason"]) for row in self.failed))

    def to_dict(self) -> dict[str, Any]:
        """Ranking and results in types that JSON knows."""
        outcome = {"wanted": self.wanted, "missing": self.missing, "interrupted": self.interrupted, "seconds": self.seconds}
        return {
            "schema": 1,
            **outcome,
            "ranking": [asdict(found) for found in self.ranking()],
            "results": self.rows,
            "failed": self.failed,
        }

    def ranking(self) -> list[Ranked]:
        """The settings, the best first."""
        return ranked(self.rows)

    def varied(self) -> list[str]:
        """The settings that are not the same in all networks."""
        return varied(self.rows)


def ranked(rows: Sequence[Row]) -> list[Ranked]:
    """The settings of some results, by mean accuracy, the best first; of equal ones that with the smaller loss."""
    by_settings: dict[str, list[Row]] = {}
    for row in rows:
        by_settings.setdefault(json.dumps(row["settings"], sort_keys=True), []).append(row)
    return sorted(map(_ranked, by_settings.values()), key=lambda found: (-found.accuracy, found.loss is None, found.loss))


def _ranked(rows: Sequence[Row]) -> Ranked:
    accuracies = [0.0 if row["status"] == DIVERGED else float(row["accuracy"]) for row in rows]
    diverged = sum(row["status"] == DIVERGED for row in rows)
    return Ranked(
        rows[0]["settings"],
        statistics.fmean(accuracies),
        statistics.stdev(accuracies) if len(rows) > 1 else None,
        None if diverged else statistics.fmean(row["loss"] for row in rows),
        len(rows),
        diverged,
        statistics.fmean(row["seconds"] for row in rows),
    )


def varied(rows: Sequence[Row]) -> list[str]:
    """The settings that are not the same in all results."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row["settings"].items():
            values.setdefault(name, set()).add(json.dumps(value))
    return [name for name, found in values.items() if len(found) > 1]
