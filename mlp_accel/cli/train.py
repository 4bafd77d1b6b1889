"""``mlp-accel train``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    TrainingBackend,
    WeightDecay,
    check_outputs,
    command,
    find_path,
    read_settings,
)
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.exit_codes import INTERRUPTED
from mlp_accel.files import write_json
from mlp_accel.schedules import SCHEDULES
from mlp_accel.training.fastest import Fastest
from mlp_accel.training.history import STOPPED, History, NonFiniteLossError
from mlp_accel.training.model import Model
from mlp_accel.training.notebook import printed_curve
from mlp_accel.training.parameters import save_params
from mlp_accel.training.recipes import RECIPES, Recipe
from mlp_accel.training.scaling import SCALINGS, Scaling
from mlp_accel.training.train import evaluate, mini_batch_sgd
from mlp_accel.training.validation import MONITORS, EarlyStopping


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``train``."""

    backend: TrainingBackend = None
    recipe: Annotated[
        str,
        typer.Option(
            help="default; notebook: the notebook's own settings; fast: 98 % as soon as possible; other options override it"
        ),
    ] = "default"
    data: Data = None
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of a table .csv that holds the labels", show_default=False)
    ] = None
    test_share: Annotated[
        float | None,
        typer.Option(help="Share of each class that is for testing, where the data do not say  [default: 0.2]", show_default=False),
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(SCALINGS)}: what is done to each value, kept in the model file  [default: none]", show_default=False
        ),
    ] = None
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
    validation: Annotated[
        float | None,
        typer.Option(
            help="Keep this share of the training samples out, such as 0.1, and validate on them after each epoch; the best epoch "
            "is kept",
            show_default=False,
        ),
    ] = None
    monitor: Annotated[
        str | None, typer.Option(help=f"What tells the best epoch: {', '.join(MONITORS)}  [default: loss]", show_default=False)
    ] = None
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs in a row without progress in validation", show_default=False)
    ] = None
    min_delta: Annotated[
        float | None, typer.Option(help="How much better is progress  [default: any better]", show_default=False)
    ] = None
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write this file while training; the same command goes on from it after a kill"),
    ] = None
    checkpoint_every: Annotated[
        float | None, typer.Option(help="Least number of seconds between two writes  [default: 1]", show_default=False)
    ] = None
    plot: PlotFile = None
    json_file: JsonFile = None
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save the model, for load_model; with the ending .npz the parameters alone"),
    ] = None

    def of_training(self) -> dict[str, Any]:
        """Those that are passed on to `mini_batch_sgd` if they are given."""
        if self.checkpoint is None and self.checkpoint_every is not None:
            raise SettingError("--checkpoint-every needs a file to write: give --checkpoint")
        EarlyStopping.of(self.validation, self.monitor or "loss", self.patience, self.min_delta or 0.0)
        names = ("validation", "monitor", "patience", "min_delta", "checkpoint", "checkpoint_every")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@command
def train(options: TrainOptions) -> None:
    """Train a network and say how well it does on the test set."""
    if options.recipe not in RECIPES:
        raise SettingError(f"unknown recipe {options.recipe!r} from --recipe; choose one of {', '.join(RECIPES)}")
    settings = read_settings(RECIPES[options.recipe], options)
    of_training = options.of_training()
    check_outputs(options.json_file, options.plot, options.save, options.checkpoint)
    threads = thread_count(options.threads, "--threads")
    console = output_console(options.json_file)
    wish = Fastest.wished(options.backend, settings.dtype, console.print, "--backend")
    if wish is None:
        backend = backends.get_backend(options.backend, settings.dtype, source="--backend")
        path, _, _ = find_path(options.path, [backend.name], named=True)
    else:
        path, _, _ = find_path(options.path, backends.BACKENDS, named=False)
    scale = check_choice("scaling", options.scale or "none", SCALINGS)
    as_read = datasets.load(options.data, target=options.target, test_share=options.test_share, seed=settings.seed)
    scaling = Scaling.fit(scale, as_read.x_train)
    dataset = replace(as_read, x_train=scaling.apply(as_read.x_train), x_test=scaling.apply(as_read.x_test))
    before: dict[str, Any] = {}
    if options.json_file:
        from mlp_accel.environment import environment

        before = environment()  # with the load that was there before ours
    sizes = "-".join(str(size) for size in (dataset.n_in, *settings.hidden, dataset.n_classes))
    console.print(f"{sizes} {settings.activation} on {dataset.name} ({len(dataset.x_train)} samples), {settings.dtype}")
    if wish is None:
        console.print(f"backend {backend.name} on {backend.device}, {threads} threads; {backend.selection}")
    reference = None
    if options.recipe == "notebook":
        others = _not_the_notebooks(settings, dataset, scaling)
        reference = None if others else printed_curve()
        if others:
            console.print(f"without the curve that the notebook printed, which is of other settings: {', '.join(others)}")
    history = _train(settings, dataset, wish or backend, threads, path, console, reference, of_training)
    if wish is not None:
        backend = backends.get_backend(history.backend, settings.dtype)
    trained = len(history) > 0
    if options.save and trained:  # first: nothing that follows may cost them
        _save(options.save, settings, as_read, scaling, history, of_training)
    test_loss, test_accuracy = _test(settings, dataset, backend, threads, history)
    if 0 < history.resumed == len(history):
        console.print(f"{options.checkpoint} is finished after {len(history)} epochs: nothing is left to train")
    if history.interrupted:
        console.print(f"interrupted after {len(history)} of {settings.epochs} epochs; this is what was reached:")
    elif history.status == STOPPED:
        console.print(f"stopped after {len(history)} of {settings.epochs} epochs: {history.reason}")
    if history.best_epoch:
        console.print(f"the best epoch was number {history.best_epoch}; its parameters are kept")
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
        config |= {name: getattr(options, name) for name in ("target", "test_share", "scale") if getattr(options, name) is not None}
        config |= {name: value for name, value in of_training.items() if not name.startswith("checkpoint")}
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


def _not_the_notebooks(settings: Recipe, dataset: datasets.Dataset, scaling: Scaling) -> list[str]:
    """What makes an epoch another one than the notebook's: fewer epochs do not, nor another seed, since its own is not known."""
    ours, theirs = ({**recipe.to_dict(), "epochs": 0, "seed": 0} for recipe in (settings, RECIPES["notebook"]))
    data = (["data"] if dataset.name != "mnist" else []) + (["scale"] if scaling.kind != "none" else [])
    return data + [name for name in ours if ours[name] != theirs[name]]


def _train(
    settings: Recipe,
    dataset: datasets.Dataset,
    backend: backends.Backend | Fastest,
    threads: int,
    path: str | None,
    console: Console,
    reference: dict[int, tuple[float, float]] | None,
    of_training: Mapping[str, Any],
) -> History:
    """Train, and show how it goes on: beside what the notebook printed, if `reference` is given."""
    with progress_bar(console, settings.epochs, "training") as advance:

        def report(history: History) -> None:
            if len(history) == history.resumed + 1:
                if isinstance(backend, Fastest):
                    console.print(f"backend {history.backend}, {threads} threads; {history.selection}")
                elif history.selection != backend.selection:
                    console.print(history.selection.removeprefix(f"{backend.selection}; "))
                console.print(f"path {Taken(history.path, tuple(history.passed_over))}")
                if history.resumed:
                    console.print(f"goes on after epoch {history.resumed} of {of_training['checkpoint']}")
                for _ in range(history.resumed):
                    advance("")
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
            **of_training,
        )


def _save(
    path: Path,
    settings: Recipe,
    dataset: datasets.Dataset,
    scaling: Scaling,
    history: History,
    of_training: Mapping[str, Any],
) -> None:
    """Save the model, or the parameters alone if the ending asks for it; `dataset` is as it was before the scaling."""
    if path.suffix == ".npz":
        save_params(path, history.params)
        return
    how = settings.to_dict() | {name: value for name, value in of_training.items() if not name.startswith("checkpoint")}
    table = {"features": dataset.features, "target": dataset.target}
    how |= {name: value for name, value in table.items() if value is not None}
    how["pixels"] = dataset.x_train.dtype == np.uint8 and scaling.kind == "none"
    Model(history.params, settings.activation, dataset.classes, scaling, how).save(path)


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
