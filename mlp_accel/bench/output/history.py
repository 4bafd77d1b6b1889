"""Speed over commits, as tables, lines and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from mlp_accel.bench.history.bisect import Found
from mlp_accel.bench.history.chain import Chain
from mlp_accel.bench.history.trend import Series
from mlp_accel.bench.output.columns import NOTHING, seconds
from mlp_accel.bench.output.tables import plain_table
from mlp_accel.plots import BLUE, GREY, ORANGE


def trend_table(found: Sequence[Series]) -> Table:
    """A row for each series: how many runs, and its first and its last level."""
    table = plain_table("Seconds per epoch, by the results that were kept", "engine")
    for heading in ("runs", "first level", "last level", "last / first", "changes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what, and where")
    for series in found:
        first, last = series.levels[0][2], series.levels[-1][2]
        levels = (seconds(first), seconds(last), f"{last / first:.3f}")
        table.add_row(series.label, str(len(series.points)), *levels, str(len(series.changes)), _about(series))
    return table


def change_lines(found: Sequence[Series]) -> list[str]:
    """Every change of a level, with the commit and the size."""
    lines = []
    for series in found:
        for change in series.changes:
            what = "slower" if change.change > 0 else "faster"
            where = f"from {change.commit} on, after {change.before}"
            if change.commit == change.before:
                where = f"within the runs of {change.commit}: something else than the code has changed"
            lines.append(f"{series.label}: {what} by {abs(change.change):.1%} {where} ({_about(series)})")
    return lines or ["no change of a level was seen"]


def plot_trend(found: Sequence[Series]) -> Figure:
    """Every series: its runs, its levels, and the commits at which they change."""
    figure = Figure(figsize=(9, 0.6 + 2.6 * max(len(found), 1)), layout="constrained")
    grid: Any = figure.subplots(max(len(found), 1), 1, squeeze=False)
    for series, axes in zip(found, grid[:, 0], strict=False):
        _draw_series(axes, series)
    return figure


def chain_table(chain: Chain, backend: str) -> Table:
    """A row for each commit."""
    table = plain_table(f"{backend}: each commit beside the one before, {chain.first.label} first", "commit")
    for heading in ("change", "95% interval", "together", "95% interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("subject")
    for step in chain.steps:
        change = [NOTHING, NOTHING] if step.change is None else [f"{step.change.change:+.1%}", _interval(step.change.interval)]
        subject = step.commit.subject if step.reason is None else f"{step.commit.subject} ({step.reason})"
        table.add_row(step.commit.label, *change, f"{step.total.change:+.1%}", _interval(step.total.interval), subject)
    return table


def chain_lines(chain: Chain, backend: str, threshold: float) -> list[str]:
    """What all commits cost together, and whether that was to be seen in any of them."""
    lines = [f"{backend}: together {chain.total.text}"]
    if chain.direct:
        lines.append(f"{backend}: the last beside the first, measured directly: {chain.direct.text}")
    if chain.creep(threshold):
        lines.append(f"{backend}: it creeps: no commit alone is slower by more than {threshold:.0%}, together they are")
    return lines


def plot_chains(chains: dict[str, Chain]) -> Figure:
    """For each backend what all commits so far cost together."""
    figure = Figure(figsize=(9, 0.6 + 3 * max(len(chains), 1)), layout="constrained")
    grid: Any = figure.subplots(max(len(chains), 1), 1, squeeze=False)
    for (backend, chain), axes in zip(chains.items(), grid[:, 0], strict=False):
        totals = [0.0, *(step.total.change for step in chain.steps)]
        low, high = zip((0.0, 0.0), *(step.total.interval for step in chain.steps), strict=True)
        positions = range(len(totals))
        axes.fill_between(positions, np.array(low) * 100, np.array(high) * 100, color=BLUE, alpha=0.2, lw=0)
        axes.plot(positions, np.array(totals) * 100, "o-", ms=4, color=BLUE)
        axes.axhline(0, color="black", lw=0.8)
        axes.set_xticks(positions, [chain.first.label, *(step.commit.label for step in chain.steps)], rotation=60, fontsize=7)
        axes.set_title(f"{backend}: together {chain.total.text}", loc="left", fontsize=10)
        axes.set_ylabel("% slower than the first", fontsize=8)
        _tidy(axes)
    return figure


def bisect_table(found: Found) -> Table:
    """The commits that may have made it slow: one, if nothing is in the way."""
    one = len(found.candidates) == 1
    table = plain_table("The commit that made it slow" if one else "One of these commits made it slow", "commit")
    table.add_column("subject")
    for commit in found.candidates:
        table.add_row(commit.label, commit.subject)
    return table


def bisect_lines(found: Found) -> list[str]:
    """What it costs, and what was left out."""
    lines = [f"from the good commit to the bad one: {found.whole.text}"]
    if found.change:
        lines.append(
            f"of this commit alone: {found.change.text}" if len(found.candidates) == 1 else f"of these: {found.change.text}"
        )
    return lines + [f"{label} was left out: {reason}" for label, reason in found.left_out.items()]


def _draw_series(axes: Axes, series: Series) -> None:
    positions = np.arange(len(series.points))
    axes.plot(positions, [point.seconds for point in series.points], ".", color=GREY, ms=5)
    for first, last, level in series.levels:
        axes.plot([first - 0.5, last - 0.5], [level, level], color=BLUE, lw=1.5)
    top = max(point.seconds for point in series.points)
    for change in series.changes:
        axes.axvline(change.index - 0.5, color=ORANGE, lw=1, ls="--")
        where = (change.index - 0.4, top)
        axes.annotate(f"{change.commit}\n{change.change:+.1%}", where, va="top", fontsize=7, color=ORANGE, parse_math=False)
    labels = [point.label for point in series.points]
    starts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    shown = starts[:: -(-len(starts) // 30)]
    axes.set_xticks(shown, [labels[i] for i in shown], rotation=60, fontsize=6, parse_math=False)
    axes.set_title(f"{series.label}: {_about(series)}", loc="left", fontsize=8, parse_math=False)
    axes.set_ylabel("seconds per epoch", fontsize=8)
    axes.set_ylim(bottom=0)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(alpha=0.25, axis="y")


def _about(series: Series) -> str:
    """Network, data and machine in a line."""
    work, machine = series.work, series.machine
    network = "-".join(map(str, work["layer_sizes"]))
    where = ", ".join(str(machine[name]) for name in ("host", "cpu") if machine.get(name)) or "an unknown machine"
    gpu = machine.get("gpu")
    gpus = f", {gpu[0]}" if isinstance(gpu, list) and gpu else ""
    return f"{network}, batch {work['batch_size']}, {work['data']}, {work['threads']} threads; {where}{gpus}"


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.1%} to {interval[1]:+.1%}"
