"""A benchmark as one HTML file: figures, tables and the environment, with nothing to fetch, for a phone as well as for a desk."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
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

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 46rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; line-height: 1.25; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
figure { margin: 0; } svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.reason { text-align: left; white-space: normal; min-width: 14rem; color: #666; }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .2rem 1rem; font-size: .85rem; }
dt { color: #666; } dd { margin: 0; overflow-wrap: anywhere; }
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
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(environment['cpu'])}, {environment['cores']} cores, {escape(environment['date'])}.{_warnings(result)}</p>",
        _epoch_table(result),
        _paragraphs(path_lines(result)),
        *(f"<h2>{escape(panel.title)}</h2><figure>{_svg(panel)}</figure>" for panel in panels(result)),
        *(_until_table(until, result) + _paragraphs(until_notes(until)) for until in result.until),
        *(_crossover_table(sweep) + _paragraphs(sweep_path_lines(sweep)) for sweep in result.sweeps),
        _definitions("Settings", result.config.to_dict()),
        _definitions("Environment", environment),
        *(_definitions(f"Engine {run.label}", _details(run)) for run in result.results if run.status == "ok"),
    ]
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
    return _table(["", *headings], [_epoch_cells(run, result) for run in result.results])


def _epoch_cells(run: Run, result: Result) -> list[str]:
    if not run.epoch_seconds:
        reason = escape(f"{run.status}: {run.reason or ''}")
        return [escape(run.label), f'<td class="reason" colspan="{len(columns_of(Output.HTML))}">{reason}</td>']
    return [escape(text) for text in (run.label, *cells(run, result, Output.HTML, run.status))]


def _until_table(until: Until, result: Result) -> str:
    headings = [f"{' '.join(column.heading.split())} {column.unit}".strip() for column in COLUMNS]
    rows = [[escape(text) for text in (found.label, *until_cells(found))] for found in until.results]
    title, trained = escape(until.title), escape(training(until.config or result.config))
    return f"<h2>{title}, in figures</h2><p>{trained}</p>" + _table(["", *headings], rows)


def _crossover_table(sweep: Sweep) -> str:
    what = PARAMETERS[sweep.parameter]
    rows = [
        [f"{crossing.value:.0f}", escape(crossing.faster_below), escape(crossing.faster_above)] for crossing in sweep.crossovers
    ]
    if not rows:
        return f"<p>No engine overtakes another with the {what}.</p>"
    return f"<h2>Who overtakes whom with the {what}</h2>" + _table((what, "faster below", "faster above"), rows)


def _details(run: Run) -> dict[str, Any]:
    content = run.to_dict()
    return {
        key: content.get(key)
        for key in ("device", "path", "form", "versions", "thread_pools", "llvm_target", "compiled_code", "cores_used")
    }


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = ["".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) for row in rows]
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _definitions(title: str, values: Mapping[str, Any]) -> str:
    terms = "".join(f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(_plain(value))}</dd>" for key, value in values.items())
    return f"<h2>{escape(title)}</h2><dl>{terms}</dl>"


def _plain(value: Any) -> str:
    if value is None or value in ([], {}):
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _svg(panel: Panel) -> str:
    """The panel as an element of the page; its letters are text, in the page's own font."""
    figure = Figure(figsize=(WIDTH, panel.height), layout="constrained")
    panel.draw(figure)
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": panel.title}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    _, _, drawing = file.getvalue().partition("<svg")
    return f'<svg role="img" aria-label="{escape(panel.title)}"{drawing}'
