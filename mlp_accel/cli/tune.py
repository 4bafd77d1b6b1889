"""``mlp-accel tune``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mlp_accel import backends
from mlp_accel.backends.threads import thread_count
from mlp_accel.cli.console import output_console, print_table
from mlp_accel.cli.options import (
    Activation,
    BatchSize,
    Data,
    DType,
    Gradient,
    Hidden,
    JsonFile,
    LearningRate,
    Momentum,
    OneBackend,
    Optimizer,
    PlotFile,
    WeightDecay,
    check_outputs,
    command,
    find_path,
    read_settings,
)
from mlp_accel.errors import SettingError
from mlp_accel.exit_codes import INTERRUPTED, OK, TRAINING_FAILED, UNAVAILABLE
from mlp_accel.files import write_json
from mlp_accel.training.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from mlp_accel.tune.executors import Workers
    from mlp_accel.tune.ranking import Tuning
    from mlp_accel.tune.space import Settings
    from mlp_accel.tune.study import Ranges
    from mlp_accel.tune.tuner import Progress

BEST = 10
"""So many settings stand in the table."""

Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Train on a Dask cluster: tcp://HOST:8786, or local, which starts one here", show_default=False
    ),
]


@dataclass(frozen=True)
class TuneOptions:
    """The options of ``tune``."""

    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="Try these values of a setting, with all of the others: learning_rate=0.1,0.3; hidden=32,64-32; may be repeated",
        ),
    ] = None
    sample: Annotated[
        int | None, typer.Option(metavar="N", help="Draw so many settings at random from --range and --grid", show_default=False)
    ] = None
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            metavar="NAME=RANGE",
            help="What --sample draws from: learning_rate=log:0.01:1; hidden=int:16:256; momentum=0:0.9; may be repeated",
        ),
    ] = None
    sample_seed: Annotated[int, typer.Option(help="Of the draw")] = 0
    optuna: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Ask an Optuna study what to try, until it has --sample N trials: sqlite:///FILE or a file for its journal, "
            "#NAME behind it where there are several",
            show_default=False,
        ),
    ] = None
    at_once: Annotated[
        int | None,
        typer.Option(help="How many settings the study is asked for at a time  [default: 10]", show_default=False),
    ] = None
    seeds: Annotated[int, typer.Option(help="Networks with each of the settings, with the seeds 0, 1, ...")] = 1
    validation: Annotated[
        float | None,
        typer.Option(
            help="Share of the training samples that judges the networks, and is not trained on  [default: 0.1]", show_default=False
        ),
    ] = None
    folds: Annotated[
        int | None, typer.Option(help="Cross-validation: so many parts judge in turn, in place of --validation", show_default=False)
    ] = None
    monitor: Annotated[
        str | None, typer.Option(help="Which tells the best epoch: loss or accuracy  [default: loss]", show_default=False)
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            help="End a training after so many epochs without progress on the samples that judge it; its best epoch counts",
            show_default=False,
        ),
    ] = None
    min_delta: Annotated[
        float | None, typer.Option(help="By how much an epoch must be better to be progress  [default: 0]", show_default=False)
    ] = None
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append each result as a line of JSON; the same command again trains what is missing"),
    ] = None
    scheduler: Scheduler = None
    workers: Annotated[
        int | None, typer.Option(help="Worker processes here  [default: one for each GPU, else one]", show_default=False)
    ] = None
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of each worker  [default: the cores, divided]", show_default=False)
    ] = None
    timeout: Annotated[float, typer.Option(help="Seconds after which a task of a few networks counts as hung")] = 900.0
    backend: OneBackend = None
    path: Annotated[
        str | None, typer.Option(help="How an epoch is trained, by name  [default: the fastest that can]", show_default=False)
    ] = None
    data: Data = None
    hidden: Hidden = None
    activation: Activation = None
    gradient: Gradient = None
    dtype: DType = None
    epochs: Annotated[int | None, typer.Option(help="Passes over the samples  [default: 5]", show_default=False)] = None
    batch_size: BatchSize = None
    learning_rate: LearningRate = None
    optimizer: Optimizer = None
    momentum: Momentum = None
    weight_decay: WeightDecay = None
    schedule: Annotated[str | None, typer.Option(help="Of the learning rate  [default: constant]", show_default=False)] = None
    plot: PlotFile = None
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a report with table and pictures")] = None
    json_file: JsonFile = None


@command
def tune(options: TuneOptions) -> None:
    """Train many networks and say which settings are the best, judged by samples that they were not trained on."""
    from mlp_accel.tune.tuner import tune as search

    base = read_settings(RECIPES["default"], options)
    space, study = _space(options), None
    if options.optuna is not None:
        from mlp_accel.tune.study import open_study

        study = open_study(options.optuna, options.sample_seed)
    if options.validation is not None and options.folds is not None:
        raise SettingError("--validation and --folds exclude each other: give one of them")
    if options.workers is not None and options.workers < 1:
        raise SettingError(f"--workers must be at least 1; got {options.workers}")
    check_outputs(options.json_file, options.plot, options.html, options.results)
    threads = None if options.threads is None else thread_count(options.threads, "--threads")
    console = output_console(options.json_file)
    with ExitStack() as stack:
        executor = None if options.scheduler is None else stack.enter_context(_cluster(options, console))
        if options.scheduler is None:
            chosen = backends.get_backend(options.backend, base.dtype, source="--backend")
            find_path(options.path, [chosen.name], named=True)
        listen = stack.enter_context(_progress(console))
        found = search(
            space,
            options.data,
            seeds=options.seeds,
            validation=None if options.folds else options.validation or 0.1,
            folds=options.folds,
            monitor=options.monitor or "loss",
            patience=options.patience,
            min_delta=options.min_delta or 0.0,
            base=base,
            sampler=study,
            trials=options.sample or 0,
            at_once=10 if options.at_once is None else options.at_once,
            backend=options.backend,
            path=options.path,
            executor=executor,
            workers=options.workers,
            threads=threads,
            results=options.results,
            timeout=options.timeout,
            listen=listen,
        )
    _show(found, options, base, console)
    raise typer.Exit(_exit_code(found))


def _space(options: TuneOptions) -> list[Settings] | Ranges:
    """The settings to try: all of the grid, or some that are drawn; for a study what it chooses from."""
    from mlp_accel.tune.space import grid, parse_grid, parse_range, sample

    lists = dict(_once([parse_grid(text) for text in options.grid or ()], "--grid"))
    ranges = dict(_once([parse_range(text) for text in options.ranges or ()], "--range"))
    if both := lists.keys() & ranges.keys():
        raise SettingError(f"{', '.join(both)} is given by --grid and by --range: give one of them")
    if options.optuna is not None:
        if options.sample is None:
            raise SettingError("--optuna needs --sample N: so many trials the study shall have")
        return {**lists, **ranges}
    if options.at_once is not None:
        raise SettingError("--at-once needs --optuna: it is how many settings a study is asked for at a time")
    if options.sample is None:
        if ranges:
            raise SettingError("--range needs --sample N: so many settings are drawn from it")
        return grid(**lists)
    return sample(options.sample, options.sample_seed, **lists, **ranges)


def _once(given: list[tuple[str, Any]], option: str) -> list[tuple[str, Any]]:
    """Each setting with what it is given, if that is given once."""
    names = [name for name, _ in given]
    for name in names:
        if names.count(name) > 1:
            raise SettingError(f"{option} gives {name} more than once: give all of its values at once")
    return given


@contextmanager
def _cluster(options: TuneOptions, console: Console) -> Iterator[Workers]:
    """The workers of a Dask cluster, and what people want to know of it."""
    from mlp_accel.tune.cluster import connect

    with connect(str(options.scheduler), options.workers, options.threads) as workers:
        console.print(str(workers))
        yield workers


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, with the best so far; elsewhere a line for every tenth of the networks."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from mlp_accel.tune.ranking import varied

    rows: list[Any] = []
    said = -1

    def words(progress: Progress) -> str:
        best = max((row for row in rows if row["accuracy"] is not None), key=lambda row: float(row["accuracy"]), default=None)
        parts = [f"{progress.rate:.1f}/s"] if progress.rate else ["starting"]
        if progress.seconds_left is not None and progress.done < progress.wanted:
            parts.append(f"{_clock(progress.seconds_left)} to go")
        if best:
            settings = ", ".join(f"{name} {_short(best['settings'][name])}" for name in varied(rows))
            parts.append(f"best {best['accuracy']:.2%} ({settings})")
        if progress.workers == 0:
            parts.append("no worker is there")
        if progress.lost:
            parts.append(f"{progress.lost} tasks lost with their workers")
        return ", ".join(parts)

    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), note)
    with Bar(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as bar:
        task = bar.add_task("networks", total=None, note="")

        def listen(progress: Progress) -> None:
            nonlocal said
            rows.extend(progress.new)
            bar.update(task, completed=progress.done, total=progress.wanted, note=words(progress), refresh=True)
            tenth = 10 * progress.done // max(1, progress.wanted)
            if not console.is_terminal and tenth > said:
                said = tenth
                console.print(f"{progress.done} of {progress.wanted} networks, {words(progress)}")

        yield listen


def _show(found: Tuning, options: TuneOptions, base: Recipe, console: Console) -> None:
    """The table, the files that were asked for, and what is missing."""
    from mlp_accel.tune.report import ranking_table, train_command

    ranking = found.ranking()
    if ranking:
        print_table(console, ranking_table(found, BEST))
        console.print(f"train the best one, and see it on the test set: {train_command(ranking[0], options.data)}")
    if ranking and (options.plot or options.html):
        _draw(found, options)
    if options.json_file:
        write_json(options.json_file, found.to_dict())
    for written in (options.plot, options.html, None if options.json_file == "-" else options.json_file):
        if written and ranking:
            console.print(f"wrote {written}")
    for reason, count in found.reasons().items():
        console.print(f"{count} networks failed: {reason}")
    if found.missing:
        where = (
            f"{options.results} has the others, and the same command goes on"
            if options.results
            else "--results FILE would keep them"
        )
        why = f"{found.interrupted}: " if found.interrupted else ""
        console.print(f"{why}{found.missing} of {found.wanted} networks are missing; {where}")


def _draw(found: Tuning, options: TuneOptions) -> None:
    from mlp_accel.plots import save_figure
    from mlp_accel.tune.report import plot_tuning, write_report

    if options.plot:
        save_figure(plot_tuning(found), options.plot)
    if options.html:
        write_report(found, options.html)


def _exit_code(found: Tuning) -> int:
    if found.interrupted:
        return INTERRUPTED if found.interrupted == "Ctrl-C" else UNAVAILABLE
    return TRAINING_FAILED if found.missing else OK


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _short(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)
