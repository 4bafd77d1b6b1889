"""``mlp-accel train``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from mlp_accel import backends, datasets
from mlp_accel.backends.paths import Taken
from mlp_accel.backends.threads import thread_count
from mlp_accel.cli.console import epoch_line, output_console, progress_bar
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
    Optimizer,
    PlotFile,
    Seed,
    Threads,
    WeightDecay,
    check_outputs,
    command,
    find_path,
    read_settings,
)
from mlp_accel.errors import SettingError
from mlp_accel.exit_codes import INTERRUPTED
from mlp_accel.files import write_json
from mlp_accel.schedules import SCHEDULES
from mlp_accel.training.history import History, NonFiniteLossError
from mlp_accel.training.notebook import printed_curve
from mlp_accel.training.parameters import save_params
from mlp_accel.training.recipes import RECIPES, Recipe
from mlp_accel.training.train import evaluate, mini_batch_sgd


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``train``."""

    backend: Annotated[
        str | None,
        typer.Option(
            help=f"auto, {', '.join(reversed(backends.BACKENDS))}  [default: $MLP_ACCEL_BACKEND, else auto]", show_default=False
        ),
    ] = None
    recipe: Annotated[
        str,
        typer.Option(
            help="default; notebook: the notebook's own settings; fast: 98 % as soon as possible; other options override it"
        ),
    ] = "default"
    data: Data = None
    hidden: Hidden = None
    activation: Activation = None
    gradient: Gradient = None
    dtype: DType = None
    threads: Threads = None
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set  [default: 5]", show_default=False)] = None
    batch_size: BatchSize = None
    learning_rate: LearningRate = None
    optimizer: Optimizer = None
    momentum: Momentum = None
    weight_decay: WeightDecay = None
    schedule: Annotated[
        str | None, typer.Option(help=f"Of the learning rate: {', '.join(SCHEDULES)}  [default: constant]", show_default=False)
    ] = None
    warmup: Annotated[
        float | None, typer.Option(help="Share of all steps in which the learning rate rises, such as 0.2", show_default=False)
    ] = None
    step_epochs: Annotated[
        int | None, typer.Option(help="Epochs between the steps of the schedule step  [default: 1]", show_default=False)
    ] = None
    gamma: Annotated[
        float | None, typer.Option(help="Factor at each step of the schedule step  [default: 0.1]", show_default=False)
    ] = None
    path: Annotated[
        str | None,
        typer.Option(
            help="How an epoch is trained: loop, or a faster path of the backend by name  "
            "[default: $MLP_ACCEL_PATH, else the fastest that can]",
            show_default=False,
        ),
    ] = None
    seed: Seed = None
    plot: PlotFile = None
    json_file: JsonFile = None
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the parameters as .npz, for load_params")] = None


@command
def train(options: TrainOptions) -> None:
    """Train a network and say how well it does on the test set."""
    if options.recipe not in RECIPES:
        raise SettingError(f"unknown recipe {options.recipe!r} from --recipe; choose one of {', '.join(RECIPES)}")
    settings = read_settings(RECIPES[options.recipe], options)
    check_outputs(options.json_file, options.plot, options.save)
    threads = thread_count(options.threads, "--threads")
    backend = backends.get_backend(options.backend, settings.dtype, source="--backend")
    path, _, _ = find_path(options.path, [backend.name], named=True)
    dataset = datasets.load(options.data)
    before: dict[str, Any] = {}
    if options.json_file:
        from mlp_accel.environment import environment

        before = environment()  # with the load that was there before ours
    console = output_console(options.json_file)
    sizes = "-".join(str(size) for size in (dataset.n_in, *settings.hidden, dataset.n_classes))
    console.print(f"{sizes} {settings.activation} on {dataset.name} ({len(dataset.x_train)} samples), {settings.dtype}")
    console.print(f"backend {backend.name} on {backend.device}, {threads} threads; {backend.selection}")
    reference = None
    if options.recipe == "notebook":
        others = _not_the_notebooks(settings, dataset)
        reference = None if others else printed_curve()
        if others:
            console.print(f"without the curve that the notebook printed, which is of other settings: {', '.join(others)}")
    history = _train(settings, dataset, backend, threads, path, console, reference)
    trained = len(history) > 0
    if options.save and trained:  # first: nothing that follows may cost them
        save_params(options.save, history.params)
    test_loss, test_accuracy = _test(settings, dataset, backend, threads, history)
    if history.interrupted:
        console.print(f"interrupted after {len(history)} of {settings.epochs} epochs; this is what was reached:")
    if trained and console.is_terminal and not reference:
        console.print(epoch_line(history, settings.epochs))
    pace = f", {min(history.seconds):.3f} s for the fastest epoch" if trained else ""
    if history.rests > len(history):
        console.print(f"the machine was crowded: threads rested {history.rests} times")
    console.print(f"Test - Loss: {test_loss:.4f} - Accuracy: {test_accuracy:.4f}{pace}")

    if options.save and not trained:
        console.print(f"{options.save} is not written: no epoch was completed")
    if options.plot:
        from mlp_accel.plots import plot_history, save_figure

        save_figure(plot_history(history, reference, backend.name), options.plot)
    if options.json_file:
        config = {**settings.to_dict(), "recipe": options.recipe, "data": dataset.name, "threads": threads}
        result = {
            "schema": 1,
            "environment": before | {"versions": backend.versions()},
            "config": config,
            **history.to_dict(),
        }
        write_json(options.json_file, {**result, "test_loss": test_loss, "test_accuracy": test_accuracy})
    for written in (options.save if trained else None, options.plot, None if options.json_file == "-" else options.json_file):
        if written:
            console.print(f"wrote {written}")
    if history.interrupted:
        raise typer.Exit(INTERRUPTED)


def _not_the_notebooks(settings: Recipe, dataset: datasets.Dataset) -> list[str]:
    """What makes an epoch another one than the notebook's: fewer epochs do not, nor another seed, since its own is not known."""
    ours, theirs = ({**recipe.to_dict(), "epochs": 0, "seed": 0} for recipe in (settings, RECIPES["notebook"]))
    return (["data"] if dataset.name != "mnist" else []) + [name for name in ours if ours[name] != theirs[name]]


def _train(
    settings: Recipe,
    dataset: datasets.Dataset,
    backend: backends.Backend,
    threads: int,
    path: str | None,
    console: Console,
    reference: dict[int, tuple[float, float]] | None,
) -> History:
    """Train, and show how it goes on: beside what the notebook printed, if `reference` is given."""
    with progress_bar(console, settings.epochs, "training") as advance:

        def report(history: History) -> None:
            if len(history) == 1:
                console.print(f"path {Taken(history.path, tuple(history.passed_over))}")
            line = epoch_line(history, settings.epochs)
            advance(line)
            if not console.is_terminal:
                console.print(line)
            elif reference:
                console.print(epoch_line(history, settings.epochs, reference))

        return mini_batch_sgd(
            dataset.x_train,
            dataset.y_train,
            settings.initial_params(dataset.n_in, dataset.n_classes),
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            optimizer=settings.find_optimizer(),
            schedule=settings.find_schedule(),
            activation=settings.activation,
            gradient=settings.gradient,
            seed=settings.seed,
            backend=backend,
            threads=threads,
            path=path,
            loss_average=settings.loss_average,
            callbacks=[report],
        )


def _test(
    settings: Recipe, dataset: datasets.Dataset, backend: backends.Backend, threads: int, history: History
) -> tuple[float, float]:
    """Loss and accuracy on the test set.

    Raises
    ------
    NonFiniteLossError
        If the loss is NaN or infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        arguments = (backend, history.params, dataset.x_test, dataset.y_test, settings.activation)
        loss, accuracy = evaluate(*arguments, threads=threads)
    if not math.isfinite(loss):
        rate = settings.optimizer_settings()["learning_rate"]
        raise NonFiniteLossError(
            f"the loss is {loss} on the test set after epoch {len(history)} at learning rate {rate:g}", history
        )
    return loss, accuracy
