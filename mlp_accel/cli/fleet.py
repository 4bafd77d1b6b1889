"""``mlp-accel fleet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlp_accel.cli.console import output_console
from mlp_accel.errors import OutputError, SettingError
from mlp_accel.exit_codes import OK, UNAVAILABLE
from mlp_accel.files import check_writable, write_json

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""The settings of this command: what it does not know are options of ``bench``."""


def fleet(
    passed_on: list[str],
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Of the Dask cluster: tcp://HOST:8786, or local, which starts one here")
    ],
    folder: Annotated[Path, typer.Option("--json", metavar="FOLDER", help="Write a result file for each machine into it")],
) -> None:
    """Run bench once on every machine of a Dask cluster, and for each GPU; other options, and [bench] of a file, are bench's."""
    from mlp_accel.bench.fleet import Measured, measure_fleet
    from mlp_accel.bench.output.fleet import fleet_table, notes, read_machines
    from mlp_accel.tune.cluster import compare_versions, connected

    for option in passed_on:
        if option.partition("=")[0] in ("--plot", "--html"):
            raise SettingError(f"{option} would be written on the machines: `mlp-accel report` draws what all of them found")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
    check_writable(folder / "machine.json")
    console = output_console(None)
    written: list[Path] = []

    def keep(measured: Measured) -> None:
        if measured.result is None:
            console.print(f"{measured.label}: {measured.problem}")
            return
        path = folder / f"{measured.label}.json"
        write_json(str(path), measured.result)
        written.append(path)
        console.print(f"wrote {path}")

    with connected(scheduler) as client:
        compare_versions(client)
        found = measure_fleet(client, passed_on, keep)
    if written:
        machines = read_machines(written)
        console.print(fleet_table(machines))
        for line in notes(machines):
            console.print(line)
    raise typer.Exit(OK if len(written) == len(found) > 0 else UNAVAILABLE)
