"""The command mlp-accel: train, bench, doctor."""

from __future__ import annotations

import io
import json
import math
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console

import mlp_accel
from mlp_accel import backends, datasets
from mlp_accel.console import bench_notes, bench_table, doctor_lines, doctor_table, epoch_line, progress_bar
from mlp_accel.errors import BackendUnavailableError, MlpAccelError, SettingError
from mlp_accel.files import write_text
from mlp_accel.history import History, NonFiniteLossError
from mlp_accel.notebook import printed_curve
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
from mlp_accel.parameters import save_params
from mlp_accel.recipes import RECIPES
from mlp_accel.threads import thread_count
from mlp_accel.training import evaluate, mini_batch_sgd

WRONG_USAGE, UNAVAILABLE, TRAINING_FAILED, INTERNAL_ERROR, INTERRUPTED = 2, 3, 5, 70, 130
"""Exit codes; 0 is success, 1 a verdict only, 4 inconclusive."""

app = typer.Typer(
    help="Train multilayer perceptrons on NumPy, Numba or CuPy, and measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version and exit")] = False) -> None:
    """Train multilayer perceptrons on NumPy, Numba or CuPy, and measure it."""
    if version:
        sys.stdout.write(f"mlp-accel {mlp_accel.__version__}\n")
        raise typer.Exit


@app.command()
def train(
    backend: Annotated[
        str | None,
        typer.Option(help="auto, numpy, numba or cupy  [default: $MLP_ACCEL_BACKEND, else auto]", show_default=False),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="default, or notebook: the notebook's own settings; other options override it")
    ] = "default",
    data: Data = None,
    hidden: Hidden = None,
    activation: Activation = None,
    gradient: Gradient = None,
    dtype: DType = None,
    threads: Threads = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set  [default: 5]", show_default=False)] = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    plot: PlotFile = None,
    json_file: JsonFile = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the parameters as .npz, for load_params")] = None,
) -> None:
    """Train a network and say how well it does on the test set."""
    if recipe not in RECIPES:
        raise SettingError(f"unknown recipe {recipe!r} from --recipe; choose one of {', '.join(RECIPES)}")
    settings = read_settings(
        RECIPES[recipe],
        hidden,
        activation=activation,
        gradient=gradient,
        dtype=dtype,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    check_outputs(json_file, plot, save)
    count = thread_count(threads, "--threads")
    engine = backends.get_backend(backend, settings.dtype, source="--backend")
    dataset = datasets.load(data)
    console = _console(json_file)
    sizes = "-".join(str(size) for size in (dataset.n_in, *settings.hidden, dataset.n_classes))
    console.print(f"{sizes} {settings.activation} on {dataset.name} ({len(dataset.x_train)} samples), {settings.dtype}")
    console.print(f"backend {engine.name} on {engine.device}, {count} threads; {engine.selection}")
    reference = printed_curve() if recipe == "notebook" else None

    with progress_bar(console, settings.epochs, "training") as advance:

        def report(history: History) -> None:
            line = epoch_line(history, settings.epochs)
            advance(line)
            if not console.is_terminal:
                console.print(line)
            elif reference:
                console.print(epoch_line(history, settings.epochs, reference))

        history = mini_batch_sgd(
            dataset.x_train,
            dataset.y_train,
            settings.initial_params(dataset.n_in, dataset.n_classes),
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            activation=settings.activation,
            gradient=settings.gradient,
            seed=settings.seed,
            backend=engine,
            threads=count,
            loss_average=settings.loss_average,
            callbacks=[report],
        )
    trained = len(history) > 0
    if save and trained:  # first: nothing that follows may cost them
        save_params(save, history.params)
    with engine.limit_threads(count), np.errstate(over="ignore", invalid="ignore"):
        test_loss, test_accuracy = evaluate(engine, history.params, dataset.x_test, dataset.y_test, settings.activation)
    if not math.isfinite(test_loss):
        raise NonFiniteLossError(test_loss, f"on the test set after epoch {len(history)}", settings.learning_rate, history)
    if history.interrupted:
        console.print(f"interrupted after {len(history)} of {settings.epochs} epochs; this is what was reached:")
    if len(history) and console.is_terminal and not reference:
        console.print(epoch_line(history, settings.epochs))
    pace = f", {min(history.seconds):.3f} s for the fastest epoch" if len(history) else ""
    console.print(f"Test - Loss: {test_loss:.4f} - Accuracy: {test_accuracy:.4f}{pace}")

    if save and not trained:
        console.print(f"{save} is not written: no epoch was completed")
    if plot:
        from mlp_accel.plots import plot_history, save_figure

        save_figure(plot_history(history, reference, engine.name), plot)
    if json_file:
        from mlp_accel.benchmarking.environment import environment

        config = {**settings.to_dict(), "recipe": recipe, "data": dataset.name, "threads": count}
        result = {
            "schema": 1,
            "environment": environment() | {"versions": engine.versions()},
            "config": config,
            **history.to_dict(),
        }
        _write_json(json_file, {**result, "test_loss": test_loss, "test_accuracy": test_accuracy})
    for path in (save if trained else None, plot, None if json_file == "-" else json_file):
        if path:
            console.print(f"wrote {path}")
    if history.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
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
    console = _console(json_file)
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
        _write_json(json_file, result)
    console.print(bench_table(result))
    for note in bench_notes(result):
        console.print(note)
    for path in (plot, None if json_file == "-" else json_file):
        if path:
            console.print(f"wrote {path}")
    raise typer.Exit(_bench_exit_code(result, named=bool(backend_list or source)))


@app.command()
def doctor(json_file: JsonFile = None) -> None:
    """Say what can run here, and how to mend the rest."""
    from mlp_accel.doctor import examine

    check_outputs(json_file)
    report, verdict = examine()
    console = _console(json_file)
    console.print(doctor_table(report))
    for line in doctor_lines(report):
        console.print(line)
    for problem in report["problems"]:
        console.print(f"problem: {problem}", style="red")
    if json_file:
        _write_json(json_file, report)
    raise typer.Exit(verdict)


def main() -> NoReturn:
    """Run the command; an expected error is one message and an exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × or – is no reason to lose a result
    try:
        app()
        sys.exit(0)
    except BackendUnavailableError as error:
        _fail(error, UNAVAILABLE)
    except NonFiniteLossError as error:
        _fail(error, TRAINING_FAILED)
    except MlpAccelError as error:
        _fail(error, WRONG_USAGE)
    except MemoryError as error:
        _fail(MemoryError(f"out of memory: {error}; try smaller layers or batches"), WRONG_USAGE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception:
        traceback.print_exc()
        sys.stderr.write("mlp-accel: this is a bug in mlp_accel; please report the lines above\n")
        sys.exit(INTERNAL_ERROR)


def _fail(error: Exception, code: int) -> NoReturn:
    sys.stderr.write(f"mlp-accel: error: {error}\n")
    sys.exit(code)


def _bench_exit_code(result: dict[str, Any], named: bool) -> int:
    statuses = {row["status"] for row in result["results"]}
    if result.get("interrupted"):
        return INTERRUPTED
    if "failed" in statuses:
        return INTERNAL_ERROR
    if "mismatch" in statuses:
        return 1
    return UNAVAILABLE if named and "unavailable" in statuses else 0


def _write_json(target: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_text(Path(target), text)


def _console(json_file: str | None) -> Console:
    """Where people read: standard output, or standard error if JSON goes to standard output."""
    console = Console(stderr=json_file == "-", highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width to keep to
    return console
