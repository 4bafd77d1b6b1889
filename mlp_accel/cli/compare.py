"""``mlp-accel compare``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from mlp_accel.cli.console import output_console
from mlp_accel.cli.options import JsonFile, check_outputs
from mlp_accel.exit_codes import OK, UNDECIDED
from mlp_accel.files import write_json

if TYPE_CHECKING:
    from mlp_accel.bench.comparison import Ratio
    from mlp_accel.bench.results import Result


def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A result file of bench")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another one, compared with the first")],
    json_file: JsonFile = None,
) -> None:
    """Put two result files of bench side by side: what differs around them, and the ratios of their times."""
    from mlp_accel.bench.comparison import compare as compare_results
    from mlp_accel.bench.result_files import read_result

    check_outputs(json_file)
    results = {"A": read_result(a), "B": read_result(b)}
    comparison = compare_results(results["A"], results["B"])
    console = output_console(json_file)
    for (side, result), path in zip(results.items(), (a, b), strict=True):
        console.print(f"{side}: {path}, {_origin(result)}")
    changed = [*comparison.environment_differences, *comparison.config_differences]
    console.print(_differences_table(changed) if changed else "environments and settings are the same")
    if comparison.not_ranked:
        console.print(f"not ranked: {comparison.not_ranked}")
    console.print(_ratio_table(comparison.results))
    for ratio in comparison.results:
        if ratio.reason:
            console.print(f"{ratio.label}: {ratio.reason}")
    console.print("ratio of the medians, bootstrap interval of the spread within the two runs; `mlp-accel ab` asks about the code")
    if json_file:
        write_json(json_file, {"a": str(a), "b": str(b), **comparison.to_dict()})
        if json_file != "-":
            console.print(f"wrote {json_file}")
    raise typer.Exit(OK if any(ratio.ratio for ratio in comparison.results) else UNDECIDED)


def _origin(result: Result) -> str:
    environment = result.environment
    commit = environment.get("commit")
    state = f"commit {str(commit)[:10]}{', changed' if environment.get('dirty') else ''}" if commit else "no commit known"
    load = environment.get("load_before")
    remarks = [
        f"load before {load[0]}" if isinstance(load, list) and load else "",
        "a short run" if result.config.short else "",
    ]
    remarks.append("interrupted" if result.interrupted else "")
    return ", ".join([str(environment.get("date", "no date")), state, *filter(None, remarks)])


def _differences_table(changed: Sequence[Sequence[Any]]) -> Table:
    table = Table(title="What differs", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "A", "B"):
        table.add_column(heading, overflow="fold")
    for name, *values in changed:
        table.add_row(name, *("–" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values))
    return table


def _ratio_table(ratios: Sequence[Ratio]) -> Table:
    table = Table(title="Seconds per epoch, medians", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine", style="bold", no_wrap=True)
    for heading in ("A", "B", "B / A", "95% interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in ratios:
        times = ["–" if seconds is None else f"{seconds:.4f}" for seconds in row.seconds]
        ratio = "–" if row.ratio is None else f"{row.ratio:.3f}"
        interval = "–" if row.interval is None else "{:.3f}–{:.3f}".format(*row.interval)
        table.add_row(row.label, *times, ratio, interval, row.verdict or "–")
    return table
