"""``mlp-accel bisect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mlp_accel import backends
from mlp_accel.cli.commits import PairOptions, benches, pair_config
from mlp_accel.cli.console import TEXT, output_console, show
from mlp_accel.cli.options import JsonFile, OneBackend, check_outputs, command, find_path, parse_share
from mlp_accel.exit_codes import OK, UNDECIDED
from mlp_accel.files import write_json


@dataclass(frozen=True, kw_only=True)
class BisectOptions(PairOptions):
    """The options of ``bisect``."""

    good: Annotated[str, typer.Option(metavar="A", help="A commit that is fast")]
    bad: Annotated[str, typer.Option(metavar="B", help="A later commit that is slow")] = "HEAD"
    backend: OneBackend = None
    path: Annotated[
        str | None, typer.Option(help="Train by this path  [default: the fastest of each build]", show_default=False)
    ] = None
    json_file: JsonFile = None


@command
def bisect(options: BisectOptions) -> None:
    """Which commit made it slow? Builds some and measures each against the good one. Exit 4: nothing is slower, or unclear."""
    from mlp_accel.bench.gate.builds import checkout_root
    from mlp_accel.bench.history.bisect import bisect as find_commit
    from mlp_accel.bench.history.git import commits_between
    from mlp_accel.bench.history.pairs import NotMeasuredError
    from mlp_accel.bench.output.history import bisect_lines, bisect_table
    from mlp_accel.environment import environment

    threshold = parse_share(options.threshold, "--threshold", "slowdown")
    name = backends.get_backend(options.backend).name
    path, _, _ = find_path(options.path, [name], named=True)
    config = {**pair_config(options, path), "backends": [name]}
    check_outputs(options.json_file)
    root = checkout_root(Path.cwd())
    commits = commits_between(root, options.good, options.bad, ("--good", "--bad"))
    console = output_console(options.json_file)
    console.print(f"{name}: which of the {len(commits) - 1} commits from {commits[0].label} to {commits[-1].label} made it slow?")
    about = environment()
    with benches(root, config, options, console.print) as found:
        try:
            result = find_commit(found[name], commits, threshold)
        except NotMeasuredError as error:
            console.print(f"inconclusive: {error}")
            raise typer.Exit(UNDECIDED) from error
    if result.candidates:
        show(console, TEXT, bisect_table(result), bisect_lines(result))
    else:
        show(console, TEXT, [f"no slowdown above {threshold:.1%} was found", *bisect_lines(result)])
    if options.json_file:
        settings = {**config, "good": options.good, "bad": options.bad, "threshold": threshold}
        write_json(options.json_file, {"schema": 1, "environment": about, "config": settings, **result.to_dict()})
        if options.json_file != "-":
            console.print(f"wrote {options.json_file}")
    raise typer.Exit(OK if len(result.candidates) == 1 else UNDECIDED)
