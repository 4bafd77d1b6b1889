"""What the commands show: progress, tables and lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from mlp_accel.backends.paths import AUTO
from mlp_accel.bench.output.markdown import markdown_lines, markdown_table
from mlp_accel.files import end_quietly
from mlp_accel.training.history import History

TEXT, MARKDOWN = FORMATS = ("text", "markdown")


class OutputConsole(Console):
    """Ends quietly when nobody reads it any more, and shows what would command the terminal instead of sending it there."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Called by rich for every text that is printed, also within a table."""
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        """Called by rich when a pipe is closed at the other end."""
        end_quietly()


def printable(text: str) -> str:
    """`text` with escape sequences, control characters and turned writing directions as what stands for them in Python."""
    return "".join(char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text)


def output_console(json_file: str | None) -> Console:
    """Where people read: standard output, or standard error if JSON goes to standard output."""
    dumb = False if os.environ.get("TERM") == "dumb" else None  # it cannot move the cursor: plain lines, as for a file
    console = OutputConsole(stderr=json_file == "-", highlight=False, markup=False, soft_wrap=True, force_terminal=dumb)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width to keep to
    return console


def progress_console(json_file: str | None, form: str) -> Console:
    """Where people read how far it is: not where JSON or Markdown goes, which stands alone."""
    return output_console("-" if form == MARKDOWN else json_file)


def print_table(console: Console, table: Table) -> None:
    """The table, or a block of lines for each of its rows where the terminal is too narrow for it."""
    if "…" not in "".join(segment.text for segment in console.render(table)):
        console.print(table)
        return
    console.print(str(table.title))
    headings = [" ".join(str(column.header).replace("-\n", "").split()) for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        name, *values = (str(cell) for cell in row)
        console.print(f"{name}:", style="bold")
        for heading, value in zip(headings[1:], values, strict=True):
            console.print(f"  {heading}: {value}")


def show(console: Console, form: str, *parts: Table | Sequence[str] | None) -> None:
    """Tables and lists of lines, one after the other, in one of `FORMATS`; nothing for a part that is None or empty."""
    for part in parts:
        if form == MARKDOWN and part:
            console.print(f"{markdown_table(part) if isinstance(part, Table) else markdown_lines(part)}\n")
        elif isinstance(part, Table):
            print_table(console, part)
        else:
            for line in part or ():
                console.print(line)


def epoch_line(history: History, epochs: int, reference: dict[int, tuple[float, float]] | None = None) -> str:
    """The last epoch in the notebook's form, beside what the notebook printed if that is given."""
    epoch, loss, accuracy = len(history), history.loss[-1], history.accuracy[-1]
    line = f"Epoch {epoch}/{epochs} - Loss: {loss:.4f} - Accuracy: {accuracy:.4f}"
    if history.validation_loss:
        line += (
            f" - Validation loss: {history.validation_loss[-1]:.4f} - Validation accuracy: {history.validation_accuracy[-1]:.4f}"
        )
    if reference is None:
        return line
    if epoch not in reference:
        return f"{line}   (the notebook's line is missing)"
    return f"{line}   (notebook: {reference[epoch][0]:.4f}, {reference[epoch][1]:.4f})"


@contextmanager
def progress_bar(console: Console, total: int, label: str) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, nothing elsewhere; call what it yields with a note at each step.

    It is drawn at these calls alone: a bar that moves by itself would disturb what is being timed.
    """
    note = TextColumn("{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), note)
    with Progress(
        *columns, console=console, expand=True, transient=True, auto_refresh=False, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(label, total=total, note="")
        yield lambda note: progress.update(task, advance=1, note=note, refresh=True)


def doctor_table(report: dict[str, Any]) -> Table:
    """The backends as a table, one row each."""
    table = Table(title=f"mlp_accel {report['mlp_accel']}, Python {report['python']}")
    for heading in ("backend", "runs here", "details"):
        table.add_column(heading)
    for name, backend in report["backends"].items():
        if backend["usable"]:
            details = ", ".join(f"{key} {value}" for key, value in backend["versions"].items())
            table.add_row(name, Text("yes", style="green"), f"{backend['device']}; {details}")
        else:
            table.add_row(name, Text("no", style="red"), backend["reason"])
    return table


def doctor_lines(report: dict[str, Any]) -> list[str]:
    """How to fix what cannot run, in lines that can be copied; settings and data."""
    selected, data = report["selected"], report["data"]
    said = [finding["fix"] for finding in report["findings"]]
    rows = report["backends"].items()
    lines = [f"{name}, to fix it: {row['fix']}" for name, row in rows if not row["usable"] and row["fix"] not in said]
    if selected is not None:
        name = selected["backend"] or "none"
        lines.append(f"selected: {name} (asked for: {selected['requested']}, by {selected['source']})")
    if report["path"] != AUTO:
        lines.append(f"path: {report['path']}")
    if report["threads"] is not None:
        lines.append(f"threads: {report['threads']} of {report['environment']['cores']} cores")
    if data is not None:
        lines.append(f"data: {data['name']}, {data['train']} training and {data['test']} test samples")
    return lines + kept_lines(report["kept"])


def kept_lines(kept: dict[str, Any]) -> list[str]:
    """What is kept on disk, and what of it is of no use any more."""
    lines = [f"compiled kernels: {kept['bytes'] / 1e6:.1f} MB in {kept['folder']}"] if kept["folder"] else []
    if kept["older"]:
        size = sum(entry["bytes"] for entry in kept["older"]) / 1e6
        lines.append(f"kernels of {len(kept['older'])} older versions: {size:.1f} MB; to remove them: mlp-accel doctor --clean")
    lines += [f"measured for fastest: {entry['found']}" for entry in kept["fastest"]]
    if kept["fastest"]:
        lines.append("to forget what was measured: mlp-accel doctor --clean")
    return lines


def finding_lines(report: dict[str, Any]) -> list[str]:
    """What is wrong and what fixes it."""
    return [f"problem: {finding['problem']}\n    to fix it: {finding['fix']}" for finding in report["findings"]]
