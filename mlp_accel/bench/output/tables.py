"""What a benchmark found, as tables and lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mlp_accel.backends.paths import LOOP
from mlp_accel.bench.protocol import REFERENCE, REFERENCE_LABEL
from mlp_accel.bench.result_files import label
from mlp_accel.bench.sweeps import PARAMETERS


def bench_table(result: dict[str, Any]) -> Table:
    """The results as a table, one row per engine."""
    config = result["config"]
    network = "-".join(str(size) for size in config["layer_sizes"])
    where = "MNIST" if config["data"] == "mnist" else config["data"]
    title = (
        f"{where}, {network} {config['activation']}, batch {config['batch_size']}, {config['dtype']}, {config['threads']} threads"
    )
    table = _plain_table(f"Seconds per epoch: {title}", "engine")
    ratio = f"× {REFERENCE}\n{LOOP}"
    for heading in ("median", "min", "quartiles", ratio, "cold\nstart", "trans-\nfer", "loss", "test\nacc."):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = result["results"]
    measured = [*rows, result["reference"]] if "reference" in result else rows
    medians = {label(row): row["epoch_seconds"]["median"] for row in measured if row["epoch_seconds"]}
    for row in rows:
        table.add_row(label(row), *_bench_cells(row, medians))
    return table


def sweep_table(sweep: dict[str, Any]) -> Table:
    """Median epoch times, a row for each value that was swept and a column for each engine."""
    what = PARAMETERS[sweep["parameter"]]
    table = _plain_table(f"Seconds per epoch by {what}", what)
    rows = {cell["value"]: {label(row): row for row in cell["results"]} for cell in sweep["cells"]}
    names = list(dict.fromkeys(name for cell in rows.values() for name in cell))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for value, cell in rows.items():
        table.add_row(str(value), *(_median(cell.get(name)) for name in names))
    return table


def sweep_lines(sweep: dict[str, Any]) -> list[str]:
    """Who overtakes whom, and where a backend had no faster path."""
    what = PARAMETERS[sweep["parameter"]]
    return sweep_path_lines(sweep) + [
        f"{crossing['faster_above']} is faster than {crossing['faster_below']} from about {crossing['value']:.0f} {what} on"
        for crossing in sweep["crossovers"]
    ]


def sweep_path_lines(sweep: dict[str, Any]) -> list[str]:
    """`path_lines` of each value that was swept."""
    what = PARAMETERS[sweep["parameter"]]
    return [f"{what} {cell['value']}: {line}" for cell in sweep["cells"] for line in path_lines(cell)]


def path_lines(result: dict[str, Any]) -> list[str]:
    """Which paths were passed over, and why: of backends that have no faster one, and of engines on another than the first."""
    lines = [f"{found['name']}: no faster path: {_reasons(found)}" for found in result.get("no_faster_path", [])]
    return lines + [f"{label(row)}: not {_reasons(row)}" for row in result["results"] if row.get("passed_over")]


def _reasons(row: dict[str, Any]) -> str:
    return "; ".join(f"{path}: {reason}" for path, reason in row["passed_over"])


def roofline_table(found: Sequence[dict[str, Any]]) -> Table:
    """The ops of a step on each backend, and how much of what the device can do at their ratio of arithmetic to memory."""
    table = _plain_table(
        "Roofline of the ops of a step; above 100 % the arrays are in the cache, which is faster than memory", "op"
    )
    for heading in ("µs", "GFLOP/s", "GB/s", "of the limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    for backend in found:
        for op in backend["ops"]:
            speed, traffic = op["flops"] / op["seconds"], op["bytes"] / op["seconds"]
            limit = min(backend["peak_flops"], op["flops"] / op["bytes"] * backend["bandwidth"])
            figures = (f"{op['seconds'] * 1e6:.1f}", f"{speed / 1e9:.1f}", f"{traffic / 1e9:.1f}", f"{speed / limit:.0%}")
            table.add_row(f"{label(backend)} {op['op']}", *figures)
    return table


def bench_notes(result: dict[str, Any]) -> list[str]:
    """What must be said beside the table."""
    environment, config = result["environment"], result["config"]
    notes = [f"{label(row)}: {row['status']}: {row['reason']}" for row in result["results"] if row["status"] != "ok"]
    cores = f"{environment['cores']} cores"
    notes.append(
        f"{environment['cpu']}, {cores}, Python {environment['python']}, NumPy {environment['numpy']}; {environment['date']}"
    )
    notes.append(f"medians of {config['epochs']} steady epochs after {config['warm_up_epochs']} to warm up, engines taking turns")
    compiled = [f"{label(row)}: {row['compiled_code']}" for row in result["results"] if row.get("compiled_code")]
    if compiled:
        notes.append(f"code that the cold start needed: {', '.join(compiled)}")
    if config["short"]:
        notes.append("a short run: too few epochs to quote")
    notes += path_lines(result)
    measured = {label(row) for row in result["results"] if row["status"] == "ok"}
    for row in result.get("until", {"results": []})["results"]:
        if label(row) in measured:
            notes.append(until_line(row, result["until"]))
    if result.get("interrupted"):
        notes.append("interrupted: only what was measured until then")
    return notes


def until_line(row: dict[str, Any], until: dict[str, Any]) -> str:
    """How long an engine trained to the accuracy that was asked for."""
    target = f"{label(row)} to {until['accuracy']:.2%} on the test set"
    if row["seconds"] is None:
        return f"{target}: {row['status']}: {row['reason']}"
    seconds, seeds = row["seconds"], len(row["epochs"])
    spread = f"{_seconds(seconds['min'])}–{_seconds(max(seconds['samples']))}"
    return f"{target}: {_seconds(seconds['median'])} s of training, the median of {seeds} seeds ({spread} s)"


def _plain_table(title: str, first: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column(first, style="bold", no_wrap=True)
    return table


def _median(row: dict[str, Any] | None) -> str | Text:
    if row is None:
        return "–"
    return _seconds(row["epoch_seconds"]["median"]) if row["epoch_seconds"] else Text(row["status"], style="yellow")


def _bench_cells(row: dict[str, Any], medians: dict[str, float]) -> list[str | Text]:
    seconds = row["epoch_seconds"]
    if not seconds:
        return ["–", "–", Text(row["status"], style="yellow"), *["–"] * 5]
    speed = f"{medians[REFERENCE_LABEL] / seconds['median']:.2f}" if REFERENCE_LABEL in medians else "–"
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
