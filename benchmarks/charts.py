"""Bar charts as SVG that look the same wherever they are made: text, bars, and nothing that depends on a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from mlp_accel.bench.output.columns import seconds as in_digits
from mlp_accel.bench.results import Result, Run, TimeToAccuracy, Until

FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
WIDTH, GAP, TOP, ROW, LABEL, VALUE = 400, 24, 34, 22, 168, 66
"""Of a panel: its width, the space beside it, the height of its title and of a row, the room for a label and for a value."""


@dataclass(frozen=True)
class Theme:
    """Colours on a light or a dark page."""

    text: str
    ours: str
    theirs: str


THEMES = {
    "light": Theme(text="#1f2328", ours="#0969da", theirs="#8c959f"),
    "dark": Theme(text="#e6edf3", ours="#4493f8", theirs="#7d8590"),
}


@dataclass(frozen=True)
class Bar:
    """A row of a panel."""

    label: str
    value: float
    text: str
    ours: bool


@dataclass(frozen=True)
class Panel:
    """Bars of one scale, under a title."""

    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        """Of title and rows."""
        return TOP + ROW * len(self.bars)


def draw(by_data: Mapping[str, Result], to_accuracy: Result) -> dict[str, str]:
    """Every chart for a light and for a dark page, by the name of its file.

    Parameters
    ----------
    by_data : mapping of str to Result
        Epoch times, by the kind of data in words. This chart is also drawn in one column, for narrow pages.
    to_accuracy : Result
        Times to an accuracy.
    """
    epochs = [Panel(kind, _epoch_bars(result)) for kind, result in by_data.items()]
    times = [
        Panel(f"{until.accuracy:.1%} of MNIST", [_bar(found.label, found.kind, time, "s") for time, found in _timed(until)])
        for until in to_accuracy.until
    ]
    files = {}
    for name, theme in THEMES.items():
        about = "Milliseconds per epoch by kind of data, mlp_accel beside other libraries"
        files[f"epoch-times-{name}.svg"] = chart(about, epochs, theme, columns=2)
        files[f"epoch-times-narrow-{name}.svg"] = chart(about, epochs, theme, columns=1)
        about = "Seconds to an accuracy on MNIST, mlp_accel beside other libraries"
        files[f"time-to-accuracy-{name}.svg"] = chart(about, times, theme, columns=1)
    return files


def _epoch_bars(result: Result) -> list[Bar]:
    """The fastest path of each backend and every peer, fastest first."""
    best: dict[str, tuple[float, Run]] = {}
    for run in result.results:
        if run.epoch_seconds and run.epoch_seconds.median < best.get(run.name, (np.inf, run))[0]:
            best[run.name] = run.epoch_seconds.median, run
    return [_bar(run.label, run.kind, seconds * 1e3, "ms") for seconds, run in sorted(best.values(), key=lambda found: found[0])]


def _timed(until: Until) -> list[tuple[float, TimeToAccuracy]]:
    timed = [(found.time.median, found) for found in until.results if found.time]
    return sorted(timed, key=lambda pair: pair[0])


def _bar(label: str, kind: str, value: float, unit: str) -> Bar:
    ours = kind == "backend"
    digits = f"{value:.1f}" if unit == "ms" else in_digits(value)
    return Bar(f"mlp_accel {label}" if ours else label, value, f"{digits} {unit}", ours)


def chart(description: str, panels: Sequence[Panel], theme: Theme, columns: int) -> str:
    """Panels in so many columns, as the text of an SVG file.

    Parameters
    ----------
    description : str
        What a screen reader says.
    """
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    parts, y = [], 0
    for row in rows:
        for column, panel in enumerate(row):
            parts += _panel(panel, theme, column * (WIDTH + GAP), y)
        y += max(panel.height for panel in row) + GAP
    width, height = columns * (WIDTH + GAP) - GAP, y - GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    lines = [f'{head} font-family="{FONT}" font-size="13" role="img">', f"<title>{escape(description)}</title>", *parts, "</svg>"]
    return "\n".join(lines) + "\n"


def _panel(panel: Panel, theme: Theme, x: int, y: int) -> list[str]:
    largest, room = max(bar.value for bar in panel.bars), WIDTH - LABEL - VALUE
    lines = [f'<text x="{x}" y="{y + 16}" fill="{theme.text}" font-weight="600" font-size="14">{escape(panel.title)}</text>']
    for number, bar in enumerate(panel.bars):
        top, length = y + TOP + ROW * number, max(1.0, room * bar.value / largest)
        middle, weight = top + ROW / 2 + 3, ' font-weight="600"' if bar.ours else ""
        style = f'fill="{theme.text}"{weight}'
        lines += [
            f'<text x="{x + LABEL - 8}" y="{middle:g}" text-anchor="end" {style}>{escape(bar.label)}</text>',
            f'<rect x="{x + LABEL}" y="{top + 3}" width="{length:.1f}" height="{ROW - 7}" rx="2" '
            f'fill="{theme.ours if bar.ours else theme.theirs}"/>',
            f'<text x="{x + LABEL + length + 6:.1f}" y="{middle:g}" {style}>{escape(bar.text)}</text>',
        ]
    return lines
