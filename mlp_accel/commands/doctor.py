"""``mlp-accel doctor``."""

from __future__ import annotations

import typer

from mlp_accel.console import doctor_lines, doctor_table, output_console
from mlp_accel.files import write_json
from mlp_accel.options import JsonFile, check_outputs


def doctor(json_file: JsonFile = None) -> None:
    """Say what can run here, and how to mend the rest."""
    from mlp_accel.doctor import examine

    check_outputs(json_file)
    report, verdict = examine()
    console = output_console(json_file)
    console.print(doctor_table(report))
    for line in doctor_lines(report):
        console.print(line)
    for problem in report["problems"]:
        console.print(f"problem: {problem}", style="red")
    if json_file:
        write_json(json_file, report)
    raise typer.Exit(verdict)
