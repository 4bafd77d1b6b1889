"""``mlp-accel bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mlp_accel import datasets
from mlp_accel.backends.threads import thread_count
from mlp_accel.cli.console import output_console, print_table, progress_bar
from mlp_accel.cli.exit_codes import DIFFERENT, INTERNAL_ERROR, INTERRUPTED, UNAVAILABLE, WRONG_USAGE
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
    engines_to_measure,
    find_path,
    parse_numbers,
    read_settings,
)
from mlp_accel.errors import SettingError
from mlp_accel.files import write_json
from mlp_accel.training.recipes import RECIPES


def bench(
    backend_list: BackendList = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="Measure every backend by this path alone: loop, or a faster one by name  "
            "[default: $MLP_ACCEL_PATH, else the loop of each, and its fastest path]",
            show_default=False,
        ),
    ] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Measure scikit-learn, PyTorch, JAX and others beside them")] = False,
    data: Data = None,
    hidden: Hidden = None,
    activation: Activation = None,
    gradient: Gradient = None,
    dtype: DType = None,
    threads: Threads = None,
    epochs: Annotated[int, typer.Option(help="Steady epochs of each backend; fewer than 5 make a short run")] = 10,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    optimizer: Optimizer = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
    seed: Seed = None,
    fused: Annotated[bool | None, typer.Option("--fused/--no-fused", hidden=True)] = None,
    sweep_batch: Annotated[
        str | None, typer.Option(metavar="LIST", help="Also speed against batch size: 32,128,1024,8192", show_default=False)
    ] = None,
    sweep_hidden: Annotated[
        str | None, typer.Option(metavar="LIST", help="Also speed against hidden width: 32,128,512,2048", show_default=False)
    ] = None,
    until: Annotated[
        float | None, typer.Option(help="Also seconds of training to this test accuracy: 0.955", show_default=False)
    ] = None,
    roofline: Annotated[bool, typer.Option("--roofline", help="Also the main ops against the limits of the device")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds after which an engine that does not answer is given up")] = 900.0,
    plot: PlotFile = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a report with all figures")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure epoch times of all backends, the loop and the fastest path of each, and check that each computes the right thing."""
    from mlp_accel.bench.output.tables import bench_notes, bench_table, roofline_table, sweep_lines, sweep_table
    from mlp_accel.bench.suite import Extras, run_suite

    if fused is not None:
        raise SettingError("--fused and --no-fused are gone: --path loop measures the loop of every backend alone")
    settings = read_settings(
        RECIPES["default"],
        hidden,
        activation=activation,
        gradient=gradient,
        dtype=dtype,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
        momentum=momentum,
        weight_decay=weight_decay,
        seed=seed,
    )
    if not timeout > 0:
        raise SettingError(f"--timeout must be a positive number of seconds; got {timeout:g}")
    names, source = engines_to_measure(backend_list, peers)
    named = names[:1] if source else [name.strip() for name in (backend_list or "").split(",")]
    path, names, note = find_path(path, names, named=bool(backend_list or source))
    check_outputs(json_file, plot, html)
    count = thread_count(threads, "--threads")
    dataset = datasets.load(data)
    extras = Extras(
        parse_numbers(sweep_batch, "--sweep-batch") if sweep_batch else (),
        parse_numbers(sweep_hidden, "--sweep-hidden") if sweep_hidden else (),
        until,
        roofline,
    )
    extras.check(len(dataset.x_train))
    console = output_console(json_file)
    if source:
        console.print(f"only {', '.join(names)}: {source} says so")
    if note:
        console.print(note)
    config = {
        **{key: value for key, value in settings.to_dict().items() if key in ("activation", "gradient", "dtype", "batch_size")},
        "layer_sizes": [dataset.n_in, *settings.hidden, dataset.n_classes],
        **settings.optimizer_settings(),
        "seed": settings.seed,
        "threads": count,
        "path": path,
        "data": dataset.name,
        "n_train": len(dataset.x_train),
    }
    with progress_bar(console, extras.lines(names, settings.epochs, path), "measuring") as advance:

        def report(line: str) -> None:
            advance(line)
            if not console.is_terminal:
                console.print(line)

        result = run_suite(names, config, settings.epochs, extras, report, timeout)
    if json_file:
        write_json(json_file, result)
    print_table(console, bench_table(result))
    for note in bench_notes(result):
        console.print(note)
    for sweep in result.get("sweeps", []):
        print_table(console, sweep_table(sweep))
        for line in sweep_lines(sweep):
            console.print(line)
    if result.get("roofline"):
        print_table(console, roofline_table(result["roofline"]))
    if plot:
        from mlp_accel.bench.output.figures import plot_bench
        from mlp_accel.plots import save_figure

        save_figure(plot_bench(result), plot)
    if html:
        from mlp_accel.bench.output.html import write_report

        write_report(result, html)
    for written in (None if json_file == "-" else json_file, plot, html):
        if written:
            console.print(f"wrote {written}")
    raise typer.Exit(_exit_code(result["results"], named, result.get("interrupted", False)))


def _exit_code(rows: list[dict[str, Any]], named: Sequence[str], interrupted: bool) -> int:
    """`named`: those that were asked for by name, whose absence is no matter of course."""
    if interrupted:
        return INTERRUPTED
    if any(row["status"] == "failed" for row in rows):
        return WRONG_USAGE if all(row["refused"] for row in rows if row["status"] == "failed") else INTERNAL_ERROR
    if any(row["status"] == "mismatch" for row in rows):
        return DIFFERENT
    return UNAVAILABLE if any(row["status"] == "unavailable" and row["name"] in named for row in rows) else 0
