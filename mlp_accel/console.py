"""What the commands show: progress, tables and lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from mlp_accel.history import History


def output_console(json_file: str | None) -> Console:
    """Where people read: standard output, or standard error if JSON goes to standard output."""
    console = Console(stderr=json_file == "-", highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width to keep to
    return console


def epoch_line(history: History, epochs: int, reference: dict[int, tuple[float, float]] | None = None) -> str:
    """The last epoch in the notebook's form, beside what the notebook printed if that is given."""
    epoch, loss, accuracy = len(history), history.loss[-1], history.accuracy[-1]
    line = f"Epoch {epoch}/{epochs} - Loss: {loss:.4f} - Accuracy: {accuracy:.4f}"
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


def bench_table(result: dict[str, Any]) -> Table:
    """The results as a table, one row per engine."""
    config = result["config"]
    network = "-".join(str(size) for size in config["layer_sizes"])
    where = "MNIST" if config["data"] == "mnist" else config["data"]
    title = (
        f"{where}, {network} {config['activation']}, batch {config['batch_size']}, {config['dtype']}, {config['threads']} threads"
    )
    table = Table(title=f"Seconds per epoch: {title}", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("backend", style="bold", no_wrap=True)
    for heading in ("median", "min", "quartiles", "× numpy", "cold\nstart", "trans-\nfer", "loss", "test\nacc."):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = result["results"]
    medians = {row["name"]: row["epoch_seconds"]["median"] for row in rows if row["epoch_seconds"]}
    for row in rows:
        table.add_row(row["name"], *_bench_cells(row, medians))
    return table


def bench_notes(result: dict[str, Any]) -> list[str]:
    """What must be said beside the table."""
    environment, config = result["environment"], result["config"]
    notes = [f"{row['name']}: {row['status']}: {row['reason']}" for row in result["results"] if row["status"] != "ok"]
    cores = f"{environment['cores']} cores"
    notes.append(
        f"{environment['cpu']}, {cores}, Python {environment['python']}, NumPy {environment['numpy']}; {environment['date']}"
    )
    notes.append(f"medians of {config['epochs']} steady epochs after {config['warm_up_epochs']} to warm up, engines taking turns")
    if config["short"]:
        notes.append("a short run: too few epochs to quote")
    if not config["fused"] or any(row.get("path") not in (None, "ops") for row in result["results"]):
        paths = ", ".join(f"{row['name']}: {row['path']}" for row in result["results"] if row.get("path"))
        notes.append(f"paths taken: {paths or 'none'}")
    if result.get("interrupted"):
        notes.append("interrupted: only what was measured until then")
    return notes


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
            table.add_row(name, Text("no", style="red"), f"{backend['reason']}\nto mend it: {backend['mend']}")
    return table


def doctor_lines(report: dict[str, Any]) -> list[str]:
    """Settings, data and problems, one line each."""
    selected, data = report["selected"], report["data"]
    lines = []
    if selected is not None:
        name = selected["backend"] or "none"
        lines.append(f"selected: {name} (asked for: {selected['requested']}, by {selected['source']})")
    if report["threads"] is not None:
        lines.append(f"threads: {report['threads']} of {report['environment']['cores']} cores")
    if data is not None:
        lines.append(f"data: {data['name']}, {data['train']} training and {data['test']} test samples")
    return lines


def _bench_cells(row: dict[str, Any], medians: dict[str, float]) -> list[str | Text]:
    seconds = row["epoch_seconds"]
    if not seconds:
        return ["–", "–", Text(row["status"], style="yellow"), *["–"] * 5]
    speed = f"{medians['numpy'] / seconds['median']:.2f}" if "numpy" in medians else "–"
    return [
        _seconds(seconds["median"]),
        _seconds(seconds["min"]),
        f"{_seconds(seconds['q1'])}–{_seconds(seconds['q3'])}",
        speed,
        f"{row['cold_start_seconds']:.2f}",
        _seconds(row["transfer_seconds"]),
        f"{row['loss'][-1]:.4f}",
        "–" if row["test_accuracy"] is None else f"{row['test_accuracy']:.2%}",
    ]


def _seconds(value: float) -> str:
    return f"{value:.4f}" if value < 10 else f"{value:.1f}"
