"""A benchmark as one HTML file: figures, tables and the environment, with nothing to fetch, for a phone as well as for a desk."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from mlp_accel.bench.output.columns import Output, cells, columns_of
from mlp_accel.bench.output.figures import WIDTH, Panel, describe, panels
from mlp_accel.bench.output.tables import path_lines, sweep_path_lines
from mlp_accel.bench.output.until import COLUMNS, training, until_cells, until_notes
from mlp_accel.bench.results import Result, Run, Sweep, Until
from mlp_accel.bench.sweeps import PARAMETERS
from mlp_accel.files import write_text

INK = "#010203"
"""What figures are drawn in, to be replaced by the colour of the page's letters: dark on light, or light on dark."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --faint: #5f5f5f; --line: #ddd; --link: #2a5aa0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --paper: #16181b; --faint: #a2a2a2; --line: #3a3d42; --link: #8ab4f0; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
body { max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; line-height: 1.25; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
h3 { font-size: .95rem; margin: 1rem 0 0; }
a { color: var(--link); } nav { font-size: .85rem; } nav a { margin-right: 1rem; display: inline-block; }
h1, p, figure { max-width: 46rem; overflow-wrap: anywhere; }
figure { margin: 0; } svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
td.reason { text-align: left; white-space: normal; min-width: 14rem; color: var(--faint); }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .2rem 1rem; font-size: .85rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading, which the table of contents leads to."""

    title: str
    body: str


def write_report(result: Result, path: Path) -> None:
    """Write the report to `path`, whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_text(path, report(result))


def report(result: Result) -> str:
    """The text of the HTML file."""
    environment = result.environment
    title = f"mlp_accel benchmark: {describe(result)}"
    where = f"{environment['cpu']}, {environment['cores']} cores, {environment['date']}."
    sections = [
        Section("Epoch times", _epoch_table(result) + _paragraphs(path_lines(result))),
        *(Section(panel.title, f"<figure>{svg(panel)}</figure>") for panel in panels(result)),
        *(Section(f"{until.title}, in figures", _until_table(until, result)) for until in result.until),
        *(
            Section(f"Who overtakes whom with the {PARAMETERS[sweep.parameter]}", _crossover_table(sweep))
            for sweep in result.sweeps
        ),
        Section("Settings", definitions(result.config.to_dict())),
        Section("Environment", definitions(environment)),
        Section("Engines", "".join(_engine(run) for run in result.results if run.status == "ok")),
    ]
    return page(title, f"<p>{escape(where)}{_warnings(result)}</p>", sections)


def page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """A whole page: heading, introduction (HTML), table of contents, sections."""
    contents = "".join(f'<a href="#s{number}">{escape(section.title)}</a> ' for number, section in enumerate(sections))
    body = [f"<h1>{escape(title)}</h1>", introduction, f"<nav>{contents}</nav>"]
    body += [f'<h2 id="s{number}">{escape(section.title)}</h2>{section.body}' for number, section in enumerate(sections)]
    return PAGE.format(title=escape(title), style=STYLE, body="\n".join(body))


def _warnings(result: Result) -> str:
    words = []
    if result.config.short:
        words.append("A short run: too few epochs to quote.")
    if result.interrupted:
        words.append("Interrupted: only what was measured until then.")
    return "".join(f" <strong>{word}</strong>" for word in words)


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _epoch_table(result: Result) -> str:
    headings = [f"{column.plain_heading} {column.unit}".strip() for column in columns_of(Output.HTML)]
    return table(["", *headings], [_epoch_cells(run, result) for run in result.results])


def _epoch_cells(run: Run, result: Result) -> list[str]:
    if not run.epoch_seconds:
        reason = escape(f"{run.status}: {run.reason or ''}")
        return [escape(run.label), f'<td class="reason" colspan="{len(columns_of(Output.HTML))}">{reason}</td>']
    return [escape(text) for text in (run.label, *cells(run, result, Output.HTML, run.status))]


def _until_table(until: Until, result: Result) -> str:
    headings = [f"{' '.join(column.heading.split())} {column.unit}".strip() for column in COLUMNS]
    rows = [[escape(text) for text in (found.label, *until_cells(found))] for found in until.results]
    trained = escape(training(until.config or result.config))
    return f"<p>{trained}</p>" + table(["", *headings], rows) + _paragraphs(until_notes(until))


def _crossover_table(sweep: Sweep) -> str:
    what = PARAMETERS[sweep.parameter]
    rows = [
        [f"{crossing.value:.0f}", escape(crossing.faster_below), escape(crossing.faster_above)] for crossing in sweep.crossovers
    ]
    found = table((what, "faster below", "faster above"), rows) if rows else f"<p>No engine overtakes another with the {what}.</p>"
    return found + _paragraphs(sweep_path_lines(sweep))


def _engine(run: Run) -> str:
    return f"<h3>{escape(run.label)}</h3>{definitions(_details(run))}"


def _details(run: Run) -> dict[str, Any]:
    content = run.to_dict()
    return {
        key: content.get(key)
        for key in ("device", "path", "form", "versions", "thread_pools", "llvm_target", "compiled_code", "cores_used")
    }


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself where the screen is too narrow; the cells are HTML."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = ["".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) for row in rows]
    return f'<div class="wide" tabindex="0"><table><tr>{head}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def definitions(values: Mapping[str, Any]) -> str:
    """Names and values."""
    terms = "".join(f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(plain(value))}</dd>" for key, value in values.items())
    return f"<dl>{terms}</dl>"


def plain(value: Any) -> str:
    """A value of the result file in words."""
    if value is None or value in ([], {}):
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def svg(panel: Panel) -> str:
    """The panel as an element of the page; its letters are text, in the page's own font and colour."""
    inked: Any = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    clear: Any = dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none")
    look: Any = {"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": panel.title, "text.parse_math": False}
    file = io.StringIO()
    with rc_context({**look, **clear, **dict.fromkeys(inked, INK)}):
        figure = Figure(figsize=(WIDTH, panel.height), layout="constrained")
        panel.draw(figure)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    _, _, drawing = file.getvalue().replace(INK, "currentColor").partition("<svg")
    return f'<svg role="img" aria-label="{escape(panel.title)}"{drawing}'
