"""``mlp-accel doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from mlp_accel.cli.console import doctor_lines, doctor_table, finding_lines, output_console, print_table
from mlp_accel.cli.options import JsonFile, check_outputs
from mlp_accel.files import write_json


def doctor(
    json_file: JsonFile = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove the compiled kernels of older versions, and what was measured for fastest")
    ] = False,
) -> None:
    """Say what can run here, and how to fix the rest."""
    from mlp_accel.doctor import caches
    from mlp_accel.doctor.report import examine

    check_outputs(json_file)
    console = output_console(json_file)
    if clean:
        for path in caches.clean():
            console.print(f"removed {path}")
    report, verdict = examine()
    print_table(console, doctor_table(report))
    for line in doctor_lines(report):
        console.print(line)
    for line in finding_lines(report):
        console.print(line, style="red")
    if json_file:
        write_json(json_file, report)
    raise typer.Exit(verdict)
