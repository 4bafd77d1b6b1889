"""Pictures of a training run and of a benchmark. Drawn without pyplot: no window, no global state, no display needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlp_accel.errors import OutputError
from mlp_accel.files import write_atomically
from mlp_accel.history import History

FORMATS = ("png", "svg", "pdf")
BLUE, ORANGE, GREY = "#3b6fb6", "#d9822b", "#8a8a8a"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the ending of `path` names, whole or not at all.

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


def plot_history(history: History, reference: dict[int, tuple[float, float]] | None = None, label: str = "ours") -> Figure:
    """Loss and accuracy over the epochs, side by side.

    Parameters
    ----------
    history : History
    reference : dict, optional
        A second curve, ``{epoch: (loss, accuracy)}``: the one that the notebook printed.
    label : str
        What to call the first one beside the second.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = range(1, len(history) + 1)
    titles = ("Loss", "Accuracy")
    for index, (axes, values) in enumerate(zip(figure.subplots(1, 2), (history.loss, history.accuracy), strict=True)):
        if reference:
            axes.plot(
                list(reference), [pair[index] for pair in reference.values()], ".", color=ORANGE, label="notebook, as printed"
            )
        axes.plot(epochs, values, "-" if len(history) > 20 else "-o", color=BLUE, label=label)
        axes.set(title=titles[index], xlabel="Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if reference:
            axes.legend(frameon=False)
    return figure


def plot_bench(result: dict[str, Any]) -> Figure:
    """Median epoch time of each engine as bars, with quartiles and every sample; engines without a time with their reason.

    Parameters
    ----------
    result : dict
        As `bench` writes it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = result["results"]
    figure = Figure(figsize=(9, 1.6 + 0.7 * len(rows)), layout="constrained")
    axes = figure.subplots()
    largest = max((max(row["epoch_seconds"]["samples"]) for row in rows if row["epoch_seconds"]), default=1.0)
    for position, row in enumerate(rows):
        seconds = row["epoch_seconds"]
        if not seconds:
            axes.text(0.01 * largest, position, f"{row['status']}: {_shorten(row['reason'])}", va="center", color=GREY, fontsize=8)
            continue
        median = seconds["median"]
        spread = [[median - seconds["q1"]], [seconds["q3"] - median]]
        axes.barh(position, median, xerr=spread, height=0.55, color=BLUE, alpha=0.85, error_kw={"capsize": 4, "lw": 1.3})
        axes.plot(seconds["samples"], [position - 0.36] * len(seconds["samples"]), "|", color=GREY, ms=7, alpha=0.9)
        axes.annotate(f"{median:.3g} s", (max(median, seconds["q3"]), position), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, largest * 1.12)
    axes.set_xlabel("seconds per epoch: median, quartiles, and every sample as a tick (less is better)")
    config, environment = result["config"], result["environment"]
    network = "-".join(str(size) for size in config["layer_sizes"])
    where = "MNIST" if config["data"] == "mnist" else Path(config["data"]).name
    settings = f"{network} {config['activation']}, batch {config['batch_size']}, {config['dtype']}, {config['threads']} threads"
    axes.set_title(f"{where}: {settings}\n{environment['cpu']}, {environment['cores']} cores", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _shorten(text: str, length: int = 100) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
