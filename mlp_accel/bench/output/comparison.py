"""A comparison of result files, as tables and lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from mlp_accel.bench.comparison import Comparison, Ratio
from mlp_accel.bench.evidence import ALPHA
from mlp_accel.bench.output.columns import NOTHING, seconds
from mlp_accel.bench.output.tables import plain_table
from mlp_accel.bench.results import Result


def origin(result: Result) -> str:
    """When and of what a result was made, in a line."""
    environment = result.environment
    commit = environment.get("commit")
    state = f"commit {str(commit)[:10]}{', changed' if environment.get('dirty') else ''}" if commit else "no commit known"
    load = environment.get("load_before")
    remarks = [
        f"load before {load[0]}" if isinstance(load, list) and load else "",
        "a short run" if result.config.short else "",
        "interrupted" if result.interrupted else "",
    ]
    return ", ".join([str(environment.get("date", "no date")), state, *filter(None, remarks)])


def differences_table(comparison: Comparison) -> Table | None:
    """What differs around the times; None if nothing does."""
    differences = [*comparison.environment_differences, *comparison.config_differences]
    if not differences:
        return None
    table = plain_table("What differs", "")
    for heading in ("A", "B"):
        table.add_column(heading, overflow="fold")
    for name, *values in differences:
        table.add_row(name, *(" or ".join(map(_value, side)) for side in values))
    return table


def ratio_table(comparison: Comparison) -> Table:
    """The engines, their times on both sides and what can be said of them."""
    several = max(comparison.files) > 1
    table = plain_table(f"Seconds per epoch, {'geometric means over the files' if several else 'medians'}", "engine")
    for heading in ("A", "B", "B / A", "95% interval", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in comparison.results:
        times = [NOTHING if value is None else seconds(value) for value in row.seconds]
        ratio = NOTHING if row.ratio is None else f"{row.ratio:.3f}"
        interval = NOTHING if row.interval is None else "{:.3f}–{:.3f}".format(*row.interval)
        table.add_row(row.label, *times, ratio, interval, NOTHING if row.p is None else f"{row.p:.2g}", row.verdict or NOTHING)
    return table


def not_ranked_lines(comparison: Comparison) -> list[str]:
    """Why there are no verdicts, if there are none."""
    return [f"not ranked: {comparison.not_ranked}"] if comparison.not_ranked else []


def comparison_notes(comparison: Comparison) -> list[str]:
    """What must be said beside the ratios."""
    notes = [f"{ratio.label}: {ratio.reason}" for ratio in comparison.results if ratio.reason]
    if not comparison.not_ranked:
        notes.append(
            f"{comparison.files[0]} and {comparison.files[1]} files: a verdict needs p < {ALPHA}, over all engines together; "
            "`mlp-accel ab` asks about the code itself"
        )
    return notes


def slower_lines(slower: Sequence[Ratio], threshold: float) -> list[str]:
    """Why a comparison fails."""
    return [f"{row.label}: slower by {row.ratio - 1:.1%}, above {threshold:.1%} (p = {row.p:.2g})" for row in slower if row.ratio]


def _value(value: Any) -> str:
    return NOTHING if value is None else value if isinstance(value, str) else json.dumps(value)
