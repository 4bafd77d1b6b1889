"""What `mlp-accel ab` has found, as a table and lines for a pull request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mlp_accel.bench.output.columns import NOTHING
from mlp_accel.bench.output.tables import plain_table


def gate_table(result: Mapping[str, Any]) -> Table:
    """A row for each series of launches: two of a backend that was measured once more.

    Parameters
    ----------
    result : dict
        As `mlp-accel ab` writes it.
    """
    config = result["config"]
    table = plain_table(f"Is it slower than {config['base']}? Threshold {config['threshold']:.1%}", "backend")
    table.add_column("verdict")
    for heading in ("change", "95% interval", "control", "p", "would find"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result["results"]:
        for number, run in enumerate(row["runs"]):
            low, high = run["change_interval"]
            least = "nothing" if run["detectable"] is None else f"{run['detectable']:.1%}"
            figures = (f"{run['change']:+.1%}", f"{low:+.1%} to {high:+.1%}", f"{run['control']:+.1%}", f"{run['p']:.2g}", least)
            table.add_row(*((f"{row['backend']} once more", "") if number else (row["backend"], row["verdict"])), *figures)
        if not row["runs"]:
            table.add_row(row["backend"], row["verdict"], *[NOTHING] * 5)
    return table


def gate_notes(result: Mapping[str, Any]) -> list[str]:
    """Why each verdict is what it is, and where it was measured."""
    environment, config = result["environment"], result["config"]
    notes = [f"{row['backend']}: {row['verdict']}: {row['reason']}" for row in result["results"]]
    where = f"{environment['cpu']}, {environment['cores']} cores, {config['threads']} threads"
    return [*notes, f"{where}; change of the epoch time, + is slower; the control is the base measured against itself"]
