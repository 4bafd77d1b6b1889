"""``mlp-accel bench``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mlp_accel import datasets
from mlp_accel.backends.threads import thread_count
from mlp_accel.bench.config import MIN_EPOCHS, Config
from mlp_accel.bench.results import Result
from mlp_accel.bench.runs import STARTS, WARM_UP_EPOCHS
from mlp_accel.cli.console import output_console, print_table, progress_bar
from mlp_accel.cli.options import (
    Activation,
    BackendList,
    BatchSize,
    Data,
    DType,
    Gradient,
    Hidden,
    JsonFile,
    LearningRate,
    Momentum,
    Optimizer,
    PlotFile,
    Seed,
    Threads,
    WeightDecay,
    check_outputs,
    command,
    engines_to_measure,
    find_path,
    parse_numbers,
    read_settings,
)
from mlp_accel.errors import SettingError
from mlp_accel.exit_codes import DIFFERENT, INTERNAL_ERROR, INTERRUPTED, UNAVAILABLE, WRONG_USAGE
from mlp_accel.files import write_json
from mlp_accel.training.recipes import RECIPES, Recipe, fast_recipe

BENCH_RECIPES = ("default", "fast")
"""The notebook's has initial weights of its own, which a benchmark does not have."""

LONGEST_TIMEOUT = 1e6
"""Seconds, eleven days; the system counts no further than some centuries."""


@dataclass(frozen=True)
class BenchOptions:
    """The options of ``bench``."""

    backend_list: BackendList = None
    path: Annotated[
        str | None,
        typer.Option(
            help="Measure every backend by this path alone: loop, or a faster one by name  "
            "[default: $MLP_ACCEL_PATH, else the loop of each, and its fastest path]",
            show_default=False,
        ),
    ] = None
    recipe: Annotated[
        str,
        typer.Option(
            help="default, or fast: ReLU, small minibatches, a rate that falls linearly, and for --until the network that reaches "
            "each accuracy soonest; other options override it"
        ),
    ] = "default"
    peers: Annotated[bool, typer.Option("--peers", help="Measure scikit-learn, PyTorch, JAX and others beside them")] = False
    data: Data = None
    hidden: Hidden = None
    activation: Activation = None
    gradient: Gradient = None
    dtype: DType = None
    threads: Threads = None
    epochs: Annotated[int, typer.Option(help="Steady epochs of each backend; fewer than 5 make a short run")] = 10
    batch_size: BatchSize = None
    learning_rate: LearningRate = None
    optimizer: Optimizer = None
    momentum: Momentum = None
    weight_decay: WeightDecay = None
    seed: Seed = None
    fused: Annotated[bool | None, typer.Option("--fused/--no-fused", hidden=True)] = None
    sweep_batch: Annotated[
        str | None, typer.Option(metavar="LIST", help="Also speed against batch size: 32,128,1024,8192", show_default=False)
    ] = None
    sweep_hidden: Annotated[
        str | None, typer.Option(metavar="LIST", help="Also speed against hidden width: 32,128,512,2048", show_default=False)
    ] = None
    until: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Also seconds from the arrays in memory to these test accuracies: 0.955,0.97,0.98",
            show_default=False,
        ),
    ] = None
    roofline: Annotated[bool, typer.Option("--roofline", help="Also the main ops against the limits of the device")] = False
    starts: Annotated[
        int | None,
        typer.Option(
            help="How often to start each engine: first with empty caches, then from them. With 1 once, from your own "
            "caches  [default: 4; 1 for fewer than 5 epochs]",
            show_default=False,
        ),
    ] = None
    timeout: Annotated[float, typer.Option(help="Seconds after which an engine that does not answer is given up")] = 900.0
    plot: PlotFile = None
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a report with all figures")] = None
    json_file: JsonFile = None
    record: Annotated[
        str | None,
        typer.Option(
            metavar="STORE", help="Also add the result to a folder, or to the branch git:BRANCH, for trend", show_default=False
        ),
    ] = None


@command
def bench(options: BenchOptions) -> None:
    """Measure epoch times of all backends, the loop and the fastest path of each, and check that each computes the right thing."""
    from mlp_accel.bench.history.store import find_store
    from mlp_accel.bench.suite import Extras, run_suite

    if options.fused is not None:
        raise SettingError("--fused and --no-fused are gone: --path loop measures the loop of every backend alone")
    if options.recipe not in BENCH_RECIPES:
        raise SettingError(f"unknown recipe {options.recipe!r} from --recipe; choose one of {', '.join(BENCH_RECIPES)}")
    settings = read_settings(RECIPES[options.recipe], options)
    if not 0 < options.timeout <= LONGEST_TIMEOUT:
        raise SettingError(f"--timeout must be a number of seconds between 0 and {LONGEST_TIMEOUT:g}; got {options.timeout:g}")
    if options.starts is not None and options.starts < 1:
        raise SettingError(f"--starts must be at least 1; got {options.starts}")
    names, source = engines_to_measure(options.backend_list, options.peers)
    named = names[:1] if source else [name.strip() for name in (options.backend_list or "").split(",")]
    path, names, note = find_path(options.path, names, named=bool(options.backend_list or source))
    check_outputs(options.json_file, options.plot, options.html)
    store = find_store(options.record) if options.record else None
    if store:
        store.check()
    threads = thread_count(options.threads, "--threads")
    dataset = datasets.load(options.data)
    config = _config(settings, dataset, threads, path)
    extras = Extras(
        parse_numbers(options.sweep_batch, "--sweep-batch") if options.sweep_batch else (),
        parse_numbers(options.sweep_hidden, "--sweep-hidden") if options.sweep_hidden else (),
        {accuracy: _until(accuracy, options, config) for accuracy in _accuracies(options.until)},
        options.roofline,
        options.starts or (STARTS if config.epochs >= MIN_EPOCHS else 1),
    )
    extras.check(len(dataset.x_train))
    console = output_console(options.json_file)
    if source:
        console.print(f"only {', '.join(names)}: {source} says so")
    if note:
        console.print(note)
    with progress_bar(console, extras.lines(names, config.epochs, path), "measuring") as advance:

        def report(line: str) -> None:
            advance(line)
            if not console.is_terminal:
                console.print(line)

        result = run_suite(names, config, extras, report, options.timeout)
    if options.json_file:
        write_json(options.json_file, result.to_dict())
    kept = store.add(result) if store else None
    _show(result, console)
    _draw(result, options)
    for written in (None if options.json_file == "-" else options.json_file, options.plot, options.html, kept):
        if written:
            console.print(f"wrote {written}")
    raise typer.Exit(_exit_code(result, named))


def _config(settings: Recipe, dataset: datasets.Dataset, threads: int, path: str | None) -> Config:
    """What is measured: the settings, for this data set."""
    return Config(
        activation=settings.activation,
        gradient=settings.gradient,
        dtype=settings.dtype,
        batch_size=settings.batch_size,
        layer_sizes=(dataset.n_in, *settings.hidden, dataset.n_classes),
        **settings.optimizer_settings(),
        schedule=settings.schedule,
        schedule_epochs=None if settings.schedule == "constant" else WARM_UP_EPOCHS + settings.epochs,
        seed=settings.seed,
        threads=threads,
        path=path,
        data=dataset.name,
        n_train=len(dataset.x_train),
        epochs=settings.epochs,
    )


def _accuracies(text: str | None) -> list[float]:
    """The accuracies of a list such as ``0.955,0.97``; whether they are accuracies is checked later."""
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise SettingError(f"{text!r} from --until is no list of test accuracies; write for example 0.955,0.97") from None


def _until(accuracy: float, options: BenchOptions, config: Config) -> Config:
    """What is trained to reach an accuracy: by the recipe ``fast`` another network for each, where no option says otherwise."""
    if options.recipe != "fast":
        return config
    recipe = fast_recipe(accuracy)
    settings = read_settings(recipe, options)
    return replace(
        config,
        layer_sizes=(config.layer_sizes[0], *settings.hidden, config.layer_sizes[-1]),
        **settings.optimizer_settings(),
        schedule_epochs=recipe.epochs,
    )


def _show(result: Result, console: Console) -> None:
    """Tables, and what must be said beside them."""
    from mlp_accel.bench.output.tables import bench_notes, bench_table, roofline_table, sweep_lines, sweep_table, until_table
    from mlp_accel.bench.output.until import until_notes

    print_table(console, bench_table(result))
    for note in bench_notes(result):
        console.print(note)
    for until in result.until:
        print_table(console, until_table(until, result))
        for note in until_notes(until):
            console.print(note)
    for sweep in result.sweeps:
        print_table(console, sweep_table(sweep))
        for line in sweep_lines(sweep):
            console.print(line)
    if result.roofline:
        print_table(console, roofline_table(result.roofline))


def _draw(result: Result, options: BenchOptions) -> None:
    """The picture and the report, if they are asked for."""
    if options.plot:
        from mlp_accel.bench.output.figures import plot_bench
        from mlp_accel.plots import save_figure

        save_figure(plot_bench(result), options.plot)
    if options.html:
        from mlp_accel.bench.output.html import write_report

        write_report(result, options.html)


def _exit_code(result: Result, named: Sequence[str]) -> int:
    """`named` are the engines that were asked for by name: if one of them cannot run here, that is an error."""
    if result.interrupted:
        return INTERRUPTED
    failed = [run for run in result.results if run.status == "failed"]
    if failed:
        return WRONG_USAGE if all(run.refused for run in failed) else INTERNAL_ERROR
    if any(run.status == "mismatch" for run in result.results):
        return DIFFERENT
    return UNAVAILABLE if any(run.status == "unavailable" and run.name in named for run in result.results) else 0
