"""``mlp-accel bench``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mlp_accel import datasets
from mlp_accel.console import bench_notes, bench_table, output_console, print_table, progress_bar
from mlp_accel.exit_codes import DIFFERENT, INTERNAL_ERROR, INTERRUPTED, UNAVAILABLE
from mlp_accel.files import write_json
from mlp_accel.options import (
    Activation,
    BatchSize,
    Data,
    DType,
    Gradient,
    Hidden,
    JsonFile,
    LearningRate,
    PlotFile,
    Seed,
    Threads,
    backends_to_measure,
    check_outputs,
    read_settings,
)
from mlp_accel.recipes import RECIPES
from mlp_accel.threads import thread_count


def bench(
    backend_list: Annotated[
        str | None,
        typer.Option(
            "--backends", help="Which to measure: numpy,numba  [default: $MLP_ACCEL_BACKEND, else all]", show_default=False
        ),
    ] = None,
    data: Data = None,
    hidden: Hidden = None,
    activation: Activation = None,
    gradient: Gradient = None,
    dtype: DType = None,
    threads: Threads = None,
    epochs: Annotated[int, typer.Option(help="Steady epochs of each backend; fewer than 5 make a short run")] = 10,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    fused: Annotated[bool, typer.Option(help="Let backends use their fused epoch")] = True,
    plot: PlotFile = None,
    json_file: JsonFile = None,
) -> None:
    """Measure epoch times of all backends, taking turns, and check that each computes the right thing."""
    from mlp_accel.benchmarking.protocol import REFERENCE, WARM_UP_EPOCHS, run_benchmark

    settings = read_settings(
        RECIPES["default"],
        hidden,
        activation=activation,
        gradient=gradient,
        dtype=dtype,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    names, source = backends_to_measure(backend_list)
    check_outputs(json_file, plot)
    count = thread_count(threads, "--threads")
    dataset = datasets.load(data)
    console = output_console(json_file)
    if source:
        console.print(f"only {', '.join(names)}: {source} says so")
    config = {
        **{key: value for key, value in settings.to_dict().items() if key in ("activation", "gradient", "dtype", "batch_size")},
        "layer_sizes": [dataset.n_in, *settings.hidden, dataset.n_classes],
        "learning_rate": settings.learning_rate,
        "seed": settings.seed,
        "threads": count,
        "fused": fused,
        "data": dataset.name,
    }
    engines = len({*names, REFERENCE})
    with progress_bar(console, engines + WARM_UP_EPOCHS + epochs, "measuring") as advance:

        def report(line: str) -> None:
            advance(line)
            if not console.is_terminal:
                console.print(line)

        result = run_benchmark(names, config, epochs, report)
    if plot:
        from mlp_accel.plots import plot_bench, save_figure

        save_figure(plot_bench(result), plot)
    if json_file:
        write_json(json_file, result)
    print_table(console, bench_table(result))
    for note in bench_notes(result):
        console.print(note)
    for path in (plot, None if json_file == "-" else json_file):
        if path:
            console.print(f"wrote {path}")
    raise typer.Exit(_exit_code(result, named=bool(backend_list or source)))


def _exit_code(result: dict[str, Any], named: bool) -> int:
    statuses = {row["status"] for row in result["results"]}
    if result.get("interrupted"):
        return INTERRUPTED
    if "failed" in statuses:
        return INTERNAL_ERROR
    if "mismatch" in statuses:
        return DIFFERENT
    return UNAVAILABLE if named and "unavailable" in statuses else 0
