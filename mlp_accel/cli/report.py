"""``mlp-accel report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlp_accel.cli.console import output_console, print_table
from mlp_accel.files import check_writable


def report(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.json...", help="Result files of bench or fleet, one of each machine")
    ],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write them as one page")] = None,
) -> None:
    """Show results of bench on many machines: engines by machine, and where each GPU overtakes its CPU."""
    from mlp_accel.bench.output.fleet import fleet_table, notes, read_machines, write_fleet_report

    if html:
        check_writable(html)
    machines = read_machines(files)
    console = output_console(None)
    print_table(console, fleet_table(machines))
    for line in notes(machines):
        console.print(line)
    if html:
        write_fleet_report(machines, html)
        console.print(f"wrote {html}")
