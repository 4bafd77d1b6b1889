"""What a benchmark found, as tables and lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mlp_accel.bench.output.columns import NOTHING, Output, cells, columns_of, seconds
from mlp_accel.bench.output.until import COLUMNS, until_cells, until_title
from mlp_accel.bench.results import Cell, PassedOver, Result, Roofline, Run, Sweep, Until
from mlp_accel.bench.sweeps import PARAMETERS

STATUS_STYLE = "yellow"


def bench_table(result: Result) -> Table:
    """The results as a table, one row per engine."""
    config = result.config
    where = "MNIST" if config.data == "mnist" else config.data
    title = f"{where}, {config.network} {config.activation}, batch {config.batch_size}, {config.dtype}, {config.threads} threads"
    table = plain_table(f"Seconds per epoch: {title}", "engine")
    for column in columns_of(Output.TERMINAL):
        table.add_column(column.heading, justify="right", no_wrap=True)
    for run in result.results:
        row: list[str | Text] = [*cells(run, result, Output.TERMINAL, run.status)]
        if not run.epoch_seconds:
            row = [cell if cell == NOTHING else Text(str(cell), style=STATUS_STYLE) for cell in row]
        table.add_row(run.label, *row)
    return table


def sweep_table(sweep: Sweep) -> Table:
    """Median epoch times, a row for each value that was swept and a column for each engine."""
    what = PARAMETERS[sweep.parameter]
    table = plain_table(f"Seconds per epoch by {what}", what)
    rows = {cell.value: {run.label: run for run in cell.results} for cell in sweep.cells}
    names = list(dict.fromkeys(name for runs in rows.values() for name in runs))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for value, runs in rows.items():
        table.add_row(str(value), *(_median(runs.get(name)) for name in names))
    return table


def sweep_lines(sweep: Sweep) -> list[str]:
    """Who overtakes whom, and where a backend had no faster path."""
    what = PARAMETERS[sweep.parameter]
    return sweep_path_lines(sweep) + [
        f"{crossing.faster_above} is faster than {crossing.faster_below} from about {crossing.value:.0f} {what} on"
        for crossing in sweep.crossovers
    ]


def sweep_path_lines(sweep: Sweep) -> list[str]:
    """`path_lines` of each value that was swept."""
    what = PARAMETERS[sweep.parameter]
    return [f"{what} {cell.value}: {line}" for cell in sweep.cells for line in path_lines(cell)]


def path_lines(result: Result | Cell) -> list[str]:
    """Which paths were passed over, and why; and whose threads could not have the cores they were granted."""
    lines = [f"{found.name}: no faster path: {_reasons(found)}" for found in result.no_faster_path]
    lines += [f"{run.label}: not {_reasons(run)}" for run in result.results if run.passed_over]
    crowded = (run for run in result.results if run.rests and run.epoch_seconds and run.rests > len(run.epoch_seconds.samples))
    return lines + [f"{run.label}: the machine was crowded, its threads rested {run.rests} times" for run in crowded]


def _reasons(found: PassedOver | Run) -> str:
    return "; ".join(f"{path}: {reason}" for path, reason in found.passed_over)


def roofline_table(found: Sequence[Roofline]) -> Table:
    """The ops of a step on each backend, and how much of what the device can do at their ratio of arithmetic to memory."""
    table = plain_table("Roofline of the ops of a step; above 100 % the arrays are in the cache, which is faster than memory", "op")
    for heading in ("µs", "GFLOP/s", "GB/s", "of the limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    for backend in found:
        for op in backend.ops:
            speed, traffic = op.flops / op.seconds, op.bytes / op.seconds
            limit = min(backend.peak_flops, op.flops / op.bytes * backend.bandwidth)
            figures = (f"{op.seconds * 1e6:.1f}", f"{speed / 1e9:.1f}", f"{traffic / 1e9:.1f}", f"{speed / limit:.0%}")
            table.add_row(f"{backend.label} {op.op}", *figures)
    return table


def bench_notes(result: Result) -> list[str]:
    """What must be said beside the table."""
    environment, config = result.environment, result.config
    notes = [f"{run.label}: {run.status}: {run.reason}" for run in result.results if run.status != "ok"]
    cores = f"{environment['cores']} cores"
    notes.append(
        f"{environment['cpu']}, {cores}, Python {environment['python']}, NumPy {environment['numpy']}; {environment['date']}"
    )
    notes.append(f"medians of {config.epochs} steady epochs after {config.warm_up_epochs} to warm up, engines taking turns")
    compiled = [f"{run.label}: {run.compiled_code}" for run in result.results if run.compiled_code]
    if compiled:
        notes.append(f"code that the cold start needed: {', '.join(compiled)}")
    first = [f"{run.label} {run.first_start_seconds:.1f} s" for run in result.results if run.first_start_seconds is not None]
    if first:
        notes.append(f"first start, with empty caches: {', '.join(first)}; cold start and transfer are medians of the others")
    if config.short:
        notes.append("a short run: too few epochs to quote")
    notes += path_lines(result)
    if result.interrupted:
        notes.append("interrupted: only what was measured until then")
    return notes


def until_table(until: Until, result: Result) -> Table:
    """How long each engine took to an accuracy."""
    table = plain_table(until_title(until, result), "engine")
    for column in COLUMNS:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for found in until.results:
        cells_of_row: list[str | Text] = [*until_cells(found)]
        if found.seconds is None:
            cells_of_row[0] = Text(found.status, style=STATUS_STYLE)
        table.add_row(found.label, *cells_of_row)
    return table


def plain_table(title: str, first: str) -> Table:
    """An empty table in the form that all have, with its first column, which names the rows."""
    table = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column(first, style="bold", no_wrap=True)
    return table


def _median(run: Run | None) -> str | Text:
    if run is None:
        return NOTHING
    return seconds(run.epoch_seconds.median) if run.epoch_seconds else Text(run.status, style=STATUS_STYLE)
