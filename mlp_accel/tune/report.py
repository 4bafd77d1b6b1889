"""What a search has found, for people: the table of the best settings, pictures, and a page with both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from rich import box
from rich.table import Table

from mlp_accel.bench.output.figures import WIDTH, Panel
from mlp_accel.bench.output.html import Section, definitions, page, svg, table
from mlp_accel.files import write_text
from mlp_accel.training.recipes import Recipe
from mlp_accel.tune.ranking import Ranked, Tuning

COLOURS = colormaps["viridis"]
SHOWN = 50
"""So many settings stand in the table of the page."""

OPTIONS = ("hidden", "activation", "gradient", "dtype", "epochs", "batch_size", "learning_rate", "optimizer", "momentum")
MORE_OPTIONS = ("weight_decay", "schedule", "warmup", "step_epochs", "gamma")


def text_of(value: Any) -> str:
    """A value of a setting as people write it."""
    if value is None:
        return "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def headings(found: Tuning) -> list[str]:
    """Of the columns of the table: what differs between the settings, then what came of them."""
    return [*(name.replace("_", " ") for name in found.varied()), "accuracy", "spread", "loss", "networks", "seconds"]


def cells(ranked: Ranked, varied: Sequence[str]) -> list[str]:
    """A row of the table."""
    diverged = f", {ranked.diverged} diverged" if ranked.diverged else ""
    return [
        *(text_of(ranked.settings[name]) for name in varied),
        f"{ranked.accuracy:.2%}",
        "–" if ranked.spread is None else f"± {ranked.spread:.2%}",
        "–" if ranked.loss is None else f"{ranked.loss:.4f}",
        f"{ranked.networks}{diverged}",
        f"{ranked.seconds:.3g}",
    ]


def title_of(found: Tuning) -> str:
    """What the accuracies are of."""
    row = found.rows[0]
    judged = f"{row['folds']} folds" if "folds" in row else f"{row['validation']:g} of the training samples, kept out"
    return f"{len(found.rows)} networks, {len(found.ranking())} settings: mean and spread, judged by {judged}"


def ranking_table(found: Tuning, best: int) -> Table:
    """The best settings, for a terminal."""
    varied = found.varied()
    table = Table(title=title_of(found), box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("", style="bold")
    for heading in headings(found):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, ranked in enumerate(found.ranking()[:best], start=1):
        table.add_row(str(place), *cells(ranked, varied))
    return table


def train_command(ranked: Ranked, data: str | None) -> str:
    """The command that trains a network with these settings on all training samples."""
    default = Recipe().to_dict()
    options = [f"--data {data}"] if data else []
    for name in (*OPTIONS, *MORE_OPTIONS):
        value = ranked.settings[name]
        if value is not None and value != default[name]:
            text = ",".join(map(str, value)) if name == "hidden" else text_of(value)
            options.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(["mlp-accel train", *options])


# Pictures ---------------------------------------------------------------------------------------------------------------------


def plot_tuning(found: Tuning) -> Figure:
    """Both pictures, one below the other."""
    drawn = panels(found)
    figure = Figure(figsize=(1.6 * WIDTH, sum(panel.height for panel in drawn)), layout="constrained")
    parts = figure.subfigures(len(drawn), 1, height_ratios=[panel.height for panel in drawn], squeeze=False)
    for part, panel in zip(parts[:, 0], drawn, strict=True):
        part.suptitle(panel.title, fontsize=10)
        panel.draw(part)
    return figure


def panels(found: Tuning) -> list[Panel]:
    """Accuracy against each setting that was varied, and all of them at once as parallel coordinates."""
    names, ranking = found.varied(), found.ranking()
    if not names:
        return [Panel("Accuracy of each network", 3.0, partial(_seeds, found=found))]
    rows = -(-len(names) // 2)
    return [
        Panel("Accuracy against each setting", 0.6 + 2.4 * rows, partial(_against, names=names, ranking=ranking)),
        Panel("All settings; the better, the brighter", 3.4, partial(_parallel, names=names, ranking=ranking)),
    ]


def _seeds(part: FigureBase, found: Tuning) -> None:
    axes = part.subplots()
    good = [row for row in found.rows if row["accuracy"] is not None]
    axes.plot([row["seed"] for row in good], [row["accuracy"] for row in good], "o", ms=4)
    axes.set_xlabel("seed", fontsize=8)
    _tidy(axes)


def _against(part: FigureBase, names: Sequence[str], ranking: Sequence[Ranked]) -> None:
    """A point for each of the settings, with its spread; how dark it is tells its rank as in the other picture."""
    rows = -(-len(names) // 2)
    panes = part.subplots(rows, min(2, len(names)), squeeze=False, sharey=True)
    accuracies = [ranked.accuracy for ranked in ranking]
    for axes, name in zip(panes.flat, names, strict=False):
        places, ticks = _places([ranked.settings[name] for ranked in ranking])
        colours = COLOURS(_shares(accuracies))
        spreads = [ranked.spread or 0.0 for ranked in ranking]
        axes.errorbar(places, accuracies, yerr=spreads, fmt="none", ecolor="#c4c4c4", lw=0.8, zorder=1)
        axes.scatter(places, accuracies, c=colours, s=16, zorder=2)
        axes.set_xticks(*zip(*ticks, strict=True), fontsize=7)
        axes.set_xlabel(name.replace("_", " "), fontsize=8)
        axes.set_xlim(-0.06, 1.06)
        _tidy(axes)
    for axes in panes[:, 0]:
        axes.set_ylabel("accuracy", fontsize=8)
    low, high = float(np.percentile(accuracies, 10)), max(accuracies)
    panes[0, 0].set_ylim(low - 0.15 * (high - low) - 1e-3, high + 0.15 * (high - low) + 1e-3)  # networks that failed lie below
    for axes in list(panes.flat)[len(names) :]:
        axes.set_visible(False)


def _parallel(part: FigureBase, names: Sequence[str], ranking: Sequence[Ranked]) -> None:
    """A line for each of the settings, from value to value to the accuracy; the best are drawn last (Inselberg, 1985)."""
    axes = part.subplots()
    accuracies = [ranked.accuracy for ranked in ranking]
    columns, ticks = zip(*(_places([ranked.settings[name] for ranked in ranking]) for name in names), strict=True)
    low = float(np.percentile(accuracies, 10))
    shares = _shares(accuracies)
    last = [min(1.0, max(0.0, (a - low) / max(max(accuracies) - low, 1e-12))) for a in accuracies]
    for index in reversed(range(len(ranking))):
        heights = [*(column[index] for column in columns), last[index]]
        axes.plot(range(len(heights)), heights, color=COLOURS(shares[index]), lw=1.0, alpha=0.75)
    scale = [(0.0, f"{low:.1%}"), (1.0, f"{max(accuracies):.1%}")]
    for at, marks in enumerate([*ticks, scale]):
        axes.axvline(at, color="black", lw=0.6)
        for height, text in marks:
            axes.annotate(
                text,
                (at, height),
                (3, 0),
                textcoords="offset points",
                fontsize=7,
                va="center",
                bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5},
            )
    axes.set_xticks(range(len(names) + 1), [*(name.replace("_", " ") for name in names), "accuracy"], fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(names) + 0.35)
    axes.spines[:].set_visible(False)


def _places(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Where values stand on an axis from 0 to 1, and its marks: numbers to scale, perhaps of logarithms; others side by side."""
    plain = [_plain(value) for value in values]
    numbers = all(_is_number(value) for value in plain)
    different = sorted(set(plain), key=None if numbers else str)
    if numbers and len(different) > 1:
        logarithmic = different[0] > 0 and different[-1] >= 4 * different[0]
        scaled = {value: float(np.log(value)) if logarithmic else float(value) for value in different}
        low, high = min(scaled.values()), max(scaled.values())
        at = {value: (place - low) / (high - low) for value, place in scaled.items()}
    else:
        at = {value: index / max(1, len(different) - 1) for index, value in enumerate(different)}
    marked = (
        different if len(different) <= 6 else [min(different, key=lambda value: abs(at[value] - share / 4)) for share in range(5)]
    )
    return [at[value] for value in plain], [(at[value], text_of(value)) for value in dict.fromkeys(marked)]


def _plain(value: Any) -> Any:
    """A value as it is marked on an axis: one hidden layer is a number, several are a word."""
    if isinstance(value, list | tuple):
        return value[0] if len(value) == 1 else text_of(value)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shares(accuracies: Sequence[float]) -> list[float]:
    """Where each stands between the worst and the best, by rank: the best is 1."""
    order = np.argsort(np.argsort(accuracies, kind="stable"), kind="stable")
    return [float(place) for place in order / max(1, len(accuracies) - 1)]


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


# A page -----------------------------------------------------------------------------------------------------------------------


def write_report(found: Tuning, path: Path) -> None:
    """Table and pictures as one HTML file, with nothing to fetch; whole or not at all."""
    write_text(path, page_of(found))


def page_of(found: Tuning) -> str:
    """The text of the HTML file."""
    varied, ranking = found.varied(), found.ranking()
    same = {name: text_of(value) for name, value in ranking[0].settings.items() if name not in varied}
    missing = f"<p><strong>{found.missing} of {found.wanted} networks are missing.</strong></p>" if found.missing else ""
    rows = [[str(place), *cells(ranked, varied)] for place, ranked in enumerate(ranking[:SHOWN], start=1)]
    sections = [
        *(Section(panel.title, f"<figure>{svg(panel)}</figure>") for panel in panels(found)),
        Section(
            f"The best of {len(ranking)} settings", table(["", *headings(found)], [[escape(text) for text in row] for row in rows])
        ),
        Section("The same everywhere", definitions(same)),
    ]
    return page(f"mlp_accel tuning: {title_of(found)}", missing, sections)
