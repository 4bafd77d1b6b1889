"""What the race to an accuracy found, for people: the columns, declared here once, of the terminal and of the HTML report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlp_accel.bench.config import Config
from mlp_accel.bench.output.columns import NOTHING, seconds
from mlp_accel.bench.results import Result, Summary, TimeToAccuracy, Until


class UntilColumn(NamedTuple):
    """One figure of every engine."""

    heading: str
    """With a line break where a narrow terminal should have one."""

    text: Callable[[TimeToAccuracy], str]
    unit: str = ""


def _median(times: Summary | None) -> str:
    return seconds(times.median) if times else NOTHING


def _spread(times: Summary | None) -> str:
    return f"{seconds(times.min)}–{seconds(max(times.samples))}" if times else NOTHING


def _epochs(found: TimeToAccuracy) -> str:
    fewest, most = min(found.epochs), max(found.epochs)
    return str(most) if fewest == most else f"{fewest}–{most}"


COLUMNS = (
    UntilColumn("median", lambda found: _median(found.seconds_with_preparation), "s"),
    UntilColumn("range", lambda found: _spread(found.seconds_with_preparation), "s"),
    UntilColumn("without\npreparation", lambda found: _median(found.seconds), "s"),
    UntilColumn("range", lambda found: _spread(found.seconds), "s"),
    UntilColumn("epochs", _epochs),
)


def until_cells(found: TimeToAccuracy) -> list[str]:
    """The row of an engine, without its name; of one that has no times what became of it."""
    if found.seconds is None:
        return [found.status, *[NOTHING] * (len(COLUMNS) - 1)]
    return [column.text(found) for column in COLUMNS]


def until_title(until: Until, result: Result) -> str:
    """What was measured, and of which training."""
    return f"{until.title}: {training(until.config or result.config)}"


def training(config: Config) -> str:
    """The network and the way it is trained, in words."""
    words = f"{config.network} {config.activation}, batch {config.batch_size}, rate {config.learning_rate:g}"
    if config.schedule == "constant":
        return words
    return f"{words}, {config.schedule} over {config.schedule_epochs} epoch{'' if config.schedule_epochs == 1 else 's'}"


def until_notes(until: Until) -> Sequence[str]:
    """Why an engine has no time, and in what its training is not what was asked for."""
    notes = []
    for found in until.results:
        words = [found.remark] if found.remark else []
        if found.seconds is None:
            words.append(f"{found.status}: {found.reason}")
        if words:
            notes.append(f"{found.label} to {until.accuracy:.2%}: {'; '.join(words)}")
    return notes
