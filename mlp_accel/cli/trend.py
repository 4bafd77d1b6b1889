"""``mlp-accel trend``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlp_accel import backends
from mlp_accel.cli.commits import PairOptions, benches, pair_config
from mlp_accel.cli.console import FORMATS, TEXT, output_console, progress_console, show
from mlp_accel.cli.options import (
    BackendList,
    Format,
    JsonFile,
    PlotFile,
    backends_to_measure,
    check_outputs,
    command,
    find_path,
    parse_share,
)
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.exit_codes import OK, UNAVAILABLE, UNDECIDED
from mlp_accel.files import write_json

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class TrendOptions(PairOptions):
    """The options of ``trend``."""

    stores: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE]...", help="Where bench --record keeps results: a folder, or git:BRANCH")
    ] = None
    commits: Annotated[str | None, typer.Option(metavar="A..B", help="Only the commits from A to B", show_default=False)] = None
    paired: Annotated[
        bool, typer.Option("--paired", help="Build these commits and measure each against the one before, whatever was kept")
    ] = False
    backend_list: BackendList = None
    path: Annotated[
        str | None,
        typer.Option(help="With --paired: train by this path  [default: the fastest of each build]", show_default=False),
    ] = None
    form: Format = TEXT
    plot: PlotFile = None
    json_file: JsonFile = None


@command
def trend(options: TrendOptions) -> None:
    """When did it become slow? Draws the results that were kept over commits, or builds and measures the commits again."""
    check_choice("format", options.form, FORMATS)
    threshold = parse_share(options.threshold, "--threshold", "slowdown")
    if options.paired and (options.stores or not options.commits):
        raise SettingError("--paired measures commits anew: name them by --commits A..B, and no folder of results")
    if not options.paired and not options.stores:
        raise SettingError("name a folder of results or git:BRANCH, as for bench --record; or commits: --commits A..B --paired")
    check_outputs(options.json_file, options.plot)
    console = progress_console(options.json_file, options.form)
    if options.paired:
        content, figure, code = _paired(options, threshold, console)
    else:
        content, figure, code = _kept(options, threshold, console)
    if options.plot:
        from mlp_accel.plots import save_figure

        save_figure(figure, options.plot)
    if options.json_file:
        write_json(options.json_file, content)
    for written in (options.plot, None if options.json_file == "-" else options.json_file):
        if written:
            console.print(f"wrote {written}")
    raise typer.Exit(code)


def _kept(options: TrendOptions, threshold: float, console: Console) -> tuple[dict[str, Any], Any, int]:
    """The results of the stores: what is to be written, the picture, and the exit code."""
    from mlp_accel.bench.history.git import commits_in, order_of, repository
    from mlp_accel.bench.history.store import find_store, read_results
    from mlp_accel.bench.history.trend import find_series
    from mlp_accel.bench.output.history import change_lines, plot_trend, trend_table

    notes: list[str] = []
    results = []
    for name in options.stores or ():
        found, problems = read_results(find_store(name))
        results += found
        notes += [f"left out: {problem}" for problem in problems]
    root = repository(Path.cwd())
    if options.commits:
        wanted = {commit.hash for commit in commits_in(root or Path.cwd(), options.commits, "--commits")}
        results = [result for result in results if result.environment.get("commit") in wanted]
    order = order_of(root, sorted({str(result.environment["commit"]) for result in results if result.environment.get("commit")}))
    if order is None:
        notes.append("in the order of their dates: the repository here does not know all of their commits")
    series = find_series(results, order, threshold)
    show(output_console(options.json_file), options.form, trend_table(series), change_lines(series), notes)
    content = {"schema": 1, "threshold": threshold, "series": [found.to_dict() for found in series], "left_out": notes}
    return content, plot_trend(series) if options.plot else None, OK if series else UNDECIDED


def _paired(options: TrendOptions, threshold: float, console: Console) -> tuple[dict[str, Any], Any, int]:
    """The commits measured again: what is to be written, the picture, and the exit code."""
    from mlp_accel.bench.gate.builds import checkout_root
    from mlp_accel.bench.history.chain import measure_chain
    from mlp_accel.bench.history.git import commits_in
    from mlp_accel.bench.history.pairs import NotMeasuredError
    from mlp_accel.bench.output.history import chain_lines, chain_table, plot_chains
    from mlp_accel.environment import environment

    names, source = backends_to_measure(options.backend_list)
    named = bool(options.backend_list or source)
    path, names, note = find_path(options.path, names, named)
    missing = {name: error for name in names if (error := backends.unavailable(name))}
    config = {**pair_config(options, path), "backends": [name for name in names if name not in missing]}
    root = checkout_root(Path.cwd())
    commits = commits_in(root, options.commits or "", "--commits")
    for line in (note, *(f"{name}: unavailable: {error.reason}" for name, error in missing.items())):
        if line:
            console.print(line)
    console.print(f"{len(commits)} commits, each against the one before, from {commits[0].label} to {commits[-1].label}")
    about = environment()
    chains, problems = {}, []
    with benches(root, config, options, console.print) as found:
        for name, bench in found.items():
            try:
                chains[name] = measure_chain(bench, commits)
            except NotMeasuredError as error:
                problems.append(f"{name}: not measured: {error}")
    results = output_console(options.json_file)
    for name, chain in chains.items():
        show(results, options.form, chain_table(chain, name), chain_lines(chain, name, threshold))
    show(results, options.form, problems)
    content = {"schema": 1, "environment": about, "config": {**config, "commits": options.commits, "threshold": threshold}}
    content["chains"] = {name: chain.to_dict() for name, chain in chains.items()}
    code = UNDECIDED if problems else UNAVAILABLE if missing and (named or not chains) else OK
    return content, plot_chains(chains) if options.plot else None, code
