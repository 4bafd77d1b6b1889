"""Pictures of a benchmark: epoch times, learning curves, sweeps, time to an accuracy, rooflines."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mlp_accel.bench.results import EngineRecord, Result, Roofline, Run, Summary, Sweep, TimeToAccuracy
from mlp_accel.bench.sweeps import PARAMETERS

GREY = "#8a8a8a"
COLOURS = ("#3b6fb6", "#d9822b", "#4a9a5b", "#b8453f", "#7d5ba6", "#8a6244", "#d070a8", "#6b6b6b", "#a3a32f", "#2fa3a3")
MARKERS = "osD^vP*X<>"

Style = dict[str, dict[str, Any]]
"""Colour and marker by the label of an engine."""


@dataclass(frozen=True)
class Panel:
    """One picture of a result."""

    title: str
    height: float
    """Inches, at a width of `WIDTH`."""

    draw: Callable[[FigureBase], object]


WIDTH = 4.6
"""Inches: what the screen of a phone shows at its full size."""

REASON_WIDTH = 52
"""Letters in a line of the reason why an engine has no time."""

LABEL_DISTANCE = 0.045
"""Between the names of ops that stand below each other, as a share of the height of the axes."""


def plot_bench(result: Result) -> Figure:
    """Everything that a result has to show, one panel below the other."""
    with rc_context({"text.parse_math": False}):  # a $ in a path or a reason is one
        return _all_panels(result)


def _all_panels(result: Result) -> Figure:
    found = panels(result)
    figure = Figure(figsize=(1.5 * WIDTH, 0.6 + sum(panel.height for panel in found)), layout="constrained")
    figure.suptitle(f"{describe(result)}\n{result.environment['cpu']}, {result.environment['cores']} cores", fontsize=10)
    parts = figure.subfigures(len(found), 1, height_ratios=[panel.height for panel in found], squeeze=False)
    for part, panel in zip(parts[:, 0], found, strict=True):
        part.suptitle(panel.title, fontsize=10)
        panel.draw(part)
    return figure


def panels(result: Result) -> list[Panel]:
    """The pictures that can be drawn of a result."""
    runs = result.results
    swept = [run for sweep in result.sweeps for cell in sweep.cells for run in cell.results]
    style = styles([*runs, *swept, *(result.roofline or ())])
    times = [(run, run.epoch_seconds) for run in runs]
    found = [Panel("Seconds per epoch", 1.3 + 0.45 * len(times), partial(bars, rows=times))]
    trained = [run for run in runs if run.status == "ok" and run.loss]
    if trained:
        found.append(Panel("Loss and accuracy on the training samples", 3.0, partial(_curves, runs=trained, style=style)))
    for sweep in result.sweeps:
        title = f"Speed against {PARAMETERS[sweep.parameter]}"
        found.append(Panel(title, 4.0, partial(_sweep, sweep=sweep, style=style)))
    for until in result.until:
        races = [(race, race.time) for race in until.results]
        found.append(Panel(until.title, 1.3 + 0.45 * len(races), partial(bars, rows=races)))
    if result.roofline:
        names = sum(len(backend.ops) for backend in result.roofline)
        found.append(Panel("Roofline of a step", 3.0 + 0.13 * names, partial(_roofline, found=result.roofline, style=style)))
    return found


def describe(result: Result) -> str:
    """Data, network and settings in a line."""
    config = result.config
    where = "MNIST" if config.data == "mnist" else Path(config.data).name
    threads = f"{config.threads} thread{'s' if config.threads > 1 else ''}"
    return f"{where}, {config.network} {config.activation}, batch {config.batch_size}, {config.dtype}, {threads}"


def styles(found: Sequence[EngineRecord]) -> Style:
    """Colour and marker of each engine, the same in every picture."""
    names = dict.fromkeys(record.label for record in found)
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "label": name}
        for i, name in enumerate(names)
    }


def bars(part: FigureBase, rows: Sequence[tuple[Run | TimeToAccuracy, Summary | None]]) -> None:
    """Medians as bars, quartiles as whiskers, every sample as a point; engines without a time with their reason."""
    axes = part.subplots()
    largest = max((max(seconds.samples) for _, seconds in rows if seconds), default=1.0)
    for position, (row, seconds) in enumerate(rows):
        if not seconds:
            reason = "\n".join(textwrap.wrap(f"{row.status}: {row.reason}", REASON_WIDTH))
            axes.text(0.01 * largest, position, reason, va="center", color=GREY, fontsize=6, linespacing=1.1)
            continue
        median, q1, q3 = seconds.median, seconds.q1, seconds.q3
        colour = COLOURS[0] if row.kind == "backend" else "#a9b7c9"
        axes.barh(position, median, height=0.6, color=colour)
        axes.errorbar(median, position, xerr=[[median - q1], [q3 - median]], color=rcParams["text.color"], capsize=3, lw=1)
        spread = position + np.linspace(-0.2, 0.2, len(seconds.samples))
        axes.plot(seconds.samples, spread, "o", ms=2.5, color=rcParams["text.color"], alpha=0.45, mew=0)
        axes.annotate(
            f"{median:.3g} s", (max(seconds.samples), position), (5, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(range(len(rows)), [row.label for row, _ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, largest * 1.17)
    axes.set_xlabel("seconds: median, quartiles, samples (less is better)", fontsize=8)
    _tidy(axes)


def _curves(part: FigureBase, runs: Sequence[Run], style: Style) -> None:
    """Equal curves lie on each other, so the first ones are drawn broadest."""
    loss, accuracy = part.subplots(1, 2)
    for position, run in enumerate(runs):
        look = {**style[run.label], "lw": 1.2 + 0.7 * (len(runs) - position), "ms": 3, "alpha": 0.8}
        epochs = range(1, len(run.loss) + 1)
        loss.plot(epochs, run.loss, **look)
        accuracy.plot(epochs, [np.nan if value is None else value for value in run.accuracy], **look)
    for axes, title in ((loss, "loss"), (accuracy, "accuracy")):
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("epoch", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _tidy(axes)
    _log(loss, "y")
    _legend(part, loss)


def _sweep(part: FigureBase, sweep: Sweep, style: Style) -> None:
    """Samples a second, log-log; a ring where the fastest engine changes, or one backend overtakes another."""
    axes = part.subplots()
    values = [cell.value for cell in sweep.cells]
    for name, look in style.items():
        found = [(cell.value, run) for cell in sweep.cells for run in cell.results if run.label == name]
        points = [(value, run.samples_per_second) for value, run in found if run.samples_per_second]
        if points:
            axes.plot(*zip(*points, strict=True), lw=1.4, ms=4, **look)
    for crossing in sweep.crossovers:
        if crossing.shown:
            where = crossing.value, crossing.samples_per_second
            axes.plot(*where, "o", ms=11, mfc="none", mec=rcParams["text.color"], mew=1)
            text = f"{crossing.faster_above}\nfrom {crossing.value:.0f}"
            axes.annotate(text, where, (6, -16), textcoords="offset points", fontsize=7)
    _log(axes, "x", "y")
    axes.set_xticks(values, [str(value) for value in values])
    axes.set_xlabel(f"{PARAMETERS[sweep.parameter]} (rings: one engine overtakes another)", fontsize=8)
    axes.set_ylabel("samples a second (more is better)", fontsize=8)
    _legend(part, axes)
    _tidy(axes)


def _roofline(part: FigureBase, found: Sequence[Roofline], style: Style) -> None:
    """Names of ops stand in a column at the right, in the order of their heights, with a line to each."""
    axes = part.subplots()
    intensities = [op.flops / op.bytes for backend in found for op in backend.ops]
    x = np.geomspace(min(intensities) / 2, max(intensities) * 2)
    labels = []
    for backend in found:
        look = style[backend.label]
        roof = np.minimum(backend.peak_flops, x * backend.bandwidth) / 1e9
        axes.plot(x, roof, color=look["color"], lw=1, label=f"{backend.label}: its limits")
        for op in backend.ops:
            where = op.flops / op.bytes, op.flops / op.seconds / 1e9
            axes.plot(*where, look["marker"], color=look["color"], ms=5)
            labels.append((where, op.op, look["color"]))
    _log(axes, "x", "y")
    heights = [float(axes.transAxes.inverted().transform(axes.transData.transform(where))[1]) for where, _, _ in labels]
    for (where, name, color), height in zip(labels, spread_out(heights, LABEL_DISTANCE), strict=True):
        line = {"arrowstyle": "-", "color": color, "lw": 0.5, "alpha": 0.6}
        axes.annotate(
            *(name, where, (1.03, height), "data", "axes fraction"),
            arrowprops=line,
            annotation_clip=False,
            va="center",
            fontsize=6.5,
            color=color,
        )
    axes.set_xlabel("operations per byte", fontsize=8)
    axes.set_ylabel("10⁹ operations a second", fontsize=8)
    axes.set_title("limits: a large product, and a copy beyond the caches;\nwhat fits into them may lie above", fontsize=7)
    _legend(part, axes)
    _tidy(axes)


def spread_out(positions: Sequence[float], distance: float) -> list[float]:
    """Positions between 0 and 1 moved as little as makes them lie at least `distance` apart, in the order that they have.

    Where there is no room for all of them, they reach beyond 0.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    moved = list(positions)
    for before, index in pairwise(order):  # upwards
        moved[index] = max(moved[index], moved[before] + distance)
    top = 1.0
    for index in reversed(order):  # and down again from the top
        moved[index] = min(moved[index], top)
        top = moved[index] - distance
    return moved


def _log(axes: Axes, *names: str) -> None:
    """Make the axes "x", "y" or both logarithmic, with plain numbers at 1, 2 and 5."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(_number))
        axis.set_minor_locator(NullLocator())


def _legend(part: FigureBase, axes: Axes) -> None:
    """Below the picture, where it hides nothing."""
    part.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=7)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _number(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"
