"""Pictures of a training run. Drawn without pyplot: no window, no global state, no display needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlp_accel.errors import OutputError
from mlp_accel.files import write_atomically

FORMATS = ("png", "svg", "pdf")
BLUE, ORANGE, GREY = "#3b6fb6", "#d9822b", "#8a8a8a"


class Curves(Protocol):
    """What is plotted of a `mlp_accel.History`: for each epoch the loss and the accuracy."""

    @property
    def loss(self) -> Sequence[float]:
        """For each epoch the mean loss."""

    @property
    def accuracy(self) -> Sequence[float]:
        """For each epoch the share of right answers."""

    @property
    def validation_loss(self) -> Sequence[float]:
        """The same on the samples for validation; empty without any."""

    @property
    def validation_accuracy(self) -> Sequence[float]:
        """The same on the samples for validation; empty without any."""


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the ending of `path` names; the file is there whole or not at all.

    Raises
    ------
    OutputError
        If the format is unknown or the file cannot be written.
    """
    ending = check_format(path)
    write_atomically(path, lambda file: figure.savefig(file, format=ending, dpi=150))


def check_format(path: Path) -> str:
    """The picture format that the ending of `path` names.

    Raises
    ------
    OutputError
        If there is no such format.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise OutputError(f"cannot write {path}: its ending names no picture format; use .png, .svg or .pdf")
    return ending


def plot_history(history: Curves, reference: dict[int, tuple[float, float]] | None = None, label: str = "ours") -> Figure:
    """Loss and accuracy over the epochs, side by side; with validation both of training and of validation.

    Parameters
    ----------
    history : Curves
        Such as a `mlp_accel.History`.
    reference : dict, optional
        A second curve, ``{epoch: (loss, accuracy)}``: the one that the notebook printed.
    label : str
        What to call the first one beside the second.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = range(1, len(history.loss) + 1)
    style = "-" if len(history.loss) > 20 else "-o"
    validated = len(history.validation_loss) > 0
    curves = [
        ("Loss", history.loss, history.validation_loss),
        ("Accuracy", history.accuracy, history.validation_accuracy),
    ]
    for index, (axes, (title, values, validation)) in enumerate(zip(figure.subplots(1, 2), curves, strict=True)):
        if reference:
            axes.plot(
                list(reference), [pair[index] for pair in reference.values()], ".", color=ORANGE, label="notebook, as printed"
            )
        axes.plot(epochs, values, style, color=BLUE, label=f"{label}, training" if validated else label)
        if validated:
            axes.plot(epochs, validation, style, color=GREY, label=f"{label}, validation")
        axes.set(title=title, xlabel="Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if reference or validated:
            axes.legend(frameon=False)
    return figure
