"""The picture of a gate: the log-ratio of every launch, with its interval."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlp_accel.bench.gate.launches import CONTROL, HEAD
from mlp_accel.bench.results import engine_label
from mlp_accel.plots import BLUE, GREY, ORANGE


def plot_gate(result: dict[str, Any]) -> Figure:
    """One row for each backend, one column for each series of launches: head against base, and base against itself.

    Parameters
    ----------
    result : dict
        As `mlp-accel ab` writes it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with rc_context({"text.parse_math": False}):  # a $ in a name is one
        return _draw(result)


def _draw(result: dict[str, Any]) -> Figure:
    rows = [row for row in result["results"] if row["runs"]]
    columns = max((len(row["runs"]) for row in rows), default=1)
    figure = Figure(figsize=(4 + 4 * columns, 1 + 3.2 * len(rows)), layout="constrained")
    grid: Any = figure.subplots(len(rows), columns, squeeze=False) if rows else []
    for row, axes_of_row in zip(rows, grid, strict=True):
        engine = engine_label(row["backend"], row["paths"][HEAD])
        titles = (f"{engine}: {row['verdict']}", "the same once more")
        for index, axes in enumerate(axes_of_row):
            if index < len(row["runs"]):
                _draw_series(axes, row["runs"][index]["launches"], result["config"]["threshold"])
                axes.set_title(titles[index], loc="left", fontsize=10)
            else:
                axes.set_axis_off()
    empty = [f"{row['backend']}: {row['verdict']}: {row['reason']}" for row in result["results"] if not row["runs"]]
    figure.supxlabel("\n".join(textwrap.fill(line, 70 * columns) for line in empty), fontsize=9, color=GREY)
    environment, config = result["environment"], result["config"]
    machine = f"{environment['cpu']}, {config['threads']} thread{'s' if config['threads'] > 1 else ''}"
    title = f"{config['base']} → working tree; {machine}; {environment['date'][:10]}"
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_series(axes: Axes, launches: Sequence[dict[str, Any]], threshold: float) -> None:
    for name, label, color, shift in ((CONTROL, "base / base (control)", GREY, 0.12), (HEAD, "head / base", BLUE, -0.12)):
        values = [launch[name]["log_ratio"] for launch in launches]
        ends = [launch[name]["interval"] for launch in launches]
        spread = [[value - low for value, (low, _) in zip(values, ends, strict=True)]]
        spread.append([high - value for value, (_, high) in zip(values, ends, strict=True)])
        positions = [number + shift for number in range(1, len(values) + 1)]
        axes.errorbar(positions, values, yerr=spread, fmt="o", ms=4, lw=1, color=color, label=label)
    axes.axhline(0, color="black", lw=0.8)
    axes.axhline(math.log1p(threshold), color=ORANGE, lw=1, ls="--", label=f"threshold {threshold:.0%}")
    axes.set(xlabel="launch: median of its rounds, 95 % interval", ylabel="log-ratio of what was measured")
    axes.set_xticks(range(1, len(launches) + 1))
    axes.grid(alpha=0.3, axis="y")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    axes.spines[["top", "right"]].set_visible(False)
