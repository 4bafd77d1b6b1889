"""The columns of the table of epoch times. Each is declared here once; the terminal, the HTML report and the README show it.

A new column is one more `Column` in `COLUMNS`. Its value is in the JSON file already, as an attribute of `Run`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from operator import attrgetter
from typing import Any

from mlp_accel.backends.paths import LOOP
from mlp_accel.bench.config import Config
from mlp_accel.bench.results import REFERENCE, Result, Run, Summary, engine_label

REFERENCE_LABEL = engine_label(REFERENCE, LOOP)
NOTHING = "–"
"""Stands where there is no value."""


class Output(Flag):
    """Where a column is shown."""

    TERMINAL = auto()
    HTML = auto()
    MARKDOWN = auto()


EVERYWHERE = Output.TERMINAL | Output.HTML | Output.MARKDOWN


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure of every engine.

    Attributes
    ----------
    key : str
        The field of `Run`, and of a row of the JSON file, that it is made of.
    heading : str
        With a line break where a narrow terminal should have one, after a hyphen if it is within a word.
    title : str
        The heading where there is room for more: in the README. ``{epochs}`` is the number of all epochs.
    text : callable
        The figure for people, of the value of the field.
    unit : str
        Of the figure. The terminal and the README say it for the whole table.
    outputs : Output
        Where it stands.
    compared : callable, optional
        Used in place of `text`: the figure of a run in comparison with the others of the result; None if that cannot be said.
    holds_status : bool
        Without times, this column says what became of the engine; the others are empty.
    """

    key: str
    heading: str
    title: str
    text: Callable[[Any], str] = str
    unit: str = ""
    outputs: Output = EVERYWHERE
    compared: Callable[[Run, Result], str | None] | None = None
    holds_status: bool = False

    @property
    def plain_heading(self) -> str:
        """The heading in one line."""
        return " ".join(self.heading.replace("-\n", "").split())

    def long_title(self, config: Config) -> str:
        """The title, filled in."""
        return self.title.format(epochs=config.warm_up_epochs + config.epochs)

    def cell(self, run: Run, result: Result) -> str:
        """What stands in the row of `run`, which has times."""
        if self.compared:
            return self.compared(run, result) or NOTHING
        value = attrgetter(self.key)(run)
        return NOTHING if value is None else self.text(value)


def seconds(value: float) -> str:
    """A time, with as many digits as are measured."""
    return f"{value:.4f}" if value < 10 else f"{value:.1f}"


def quartiles(times: Summary) -> str:
    """From the first to the third."""
    return f"{seconds(times.q1)}–{seconds(times.q3)}"


def _beside_the_reference(run: Run, result: Result) -> str | None:
    """How many times as fast as the reference."""
    measured = [*result.results, *([result.reference] if result.reference else [])]
    reference = next((other.epoch_seconds for other in measured if other.label == REFERENCE_LABEL), None)
    return f"{reference.median / run.epoch_seconds.median:.2f}" if reference and run.epoch_seconds else None


COLUMNS = (
    Column(key="epoch_seconds.median", heading="median", title="median epoch", text=seconds, unit="s"),
    Column(key="epoch_seconds.min", heading="min", title="minimum", text=seconds, unit="s"),
    Column(key="epoch_seconds", heading="quartiles", title="quartiles", text=quartiles, unit="s", holds_status=True),
    Column(
        key="epoch_seconds.median",
        heading=f"× {REFERENCE}\n{LOOP}",
        title=f"times as fast as {REFERENCE_LABEL}",
        outputs=Output.TERMINAL,
        compared=_beside_the_reference,
    ),
    Column(
        key="first_start_seconds",
        heading="first\nstart",
        title="first start",
        text="{:.2f}".format,
        unit="s",
        outputs=Output.HTML,
    ),
    Column(key="cold_start_seconds", heading="cold\nstart", title="cold start", text="{:.2f}".format, unit="s"),
    Column(
        key="transfer_seconds",
        heading="trans-\nfer",
        title="transfer",
        text=seconds,
        unit="s",
        outputs=Output.TERMINAL | Output.HTML,
    ),
    Column(key="cores_used", heading="cores\nbusy", title="cores busy", text="{:.2f}".format, outputs=Output.HTML),
    Column(
        key="loss",
        heading="loss",
        title="loss after {epochs} epochs",
        text=lambda losses: NOTHING if losses[-1] is None else f"{losses[-1]:.4f}",
    ),
    Column(key="test_accuracy", heading="test\nacc.", title="test accuracy", text="{:.2%}".format),
)


def columns_of(output: Output) -> list[Column]:
    """The columns that stand in an output, in their order; the engine comes before them."""
    return [column for column in COLUMNS if output & column.outputs]


def cells(run: Run, result: Result, output: Output, status: str) -> list[str]:
    """The row of an engine, without its name; `status` is what is said of one that has no times."""
    columns = columns_of(output)
    if run.epoch_seconds is None:
        return [status if column.holds_status else NOTHING for column in columns]
    return [column.cell(run, result) for column in columns]
