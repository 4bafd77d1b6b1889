"""Several result files as one HTML page: their times side by side, and in what they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

from mlp_accel.bench.output.columns import NOTHING, quartiles, seconds
from mlp_accel.bench.output.figures import Panel, bars
from mlp_accel.bench.output.html import Section, definitions, page, plain, svg, table
from mlp_accel.bench.results import Result, Run

Named = Sequence[tuple[str, Result]]
"""Results, each with the name by which the page speaks of it: that of its file."""


def side_by_side(results: Named, title: str, notes: Sequence[str] = ()) -> str:
    """The text of the HTML file, with notes above the tables."""
    paragraphs = ["Medians, and in brackets quartiles. What differs between the files stands below the times.", *notes]
    introduction = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)
    sections = [Section("Seconds per epoch", _times(results)), Section("Seconds per epoch, in a picture", _picture(results))]
    for title, contents in (
        ("Settings", [result.config.to_dict() for _, result in results]),
        ("Environment", [result.environment for _, result in results]),
    ):
        sections.append(Section(title, _differences([name for name, _ in results], contents)))
    return page(title, introduction, sections)


def _rows(results: Named) -> dict[str, list[Run | None]]:
    """For each engine its run in every result."""
    found = [{run.label: run for run in result.results} for _, result in results]
    return {label: [runs.get(label) for runs in found] for label in dict.fromkeys(label for runs in found for label in runs)}


def _times(results: Named) -> str:
    rows = [[escape(label), *map(_cell, runs)] for label, runs in _rows(results).items()]
    return table(["", *(f"{name} s" for name, _ in results)], rows)


def _cell(run: Run | None) -> str:
    if run is None:
        return NOTHING
    times = run.epoch_seconds
    return f"{seconds(times.median)} ({quartiles(times)})" if times else escape(run.status)


def _picture(results: Named) -> str:
    names = [name for name, _ in results]
    rows = [
        (replace(run, name=f"{run.name} {run.path or ''} in {name}", path=None), run.epoch_seconds)
        for runs in _rows(results).values()
        for name, run in zip(names, runs, strict=True)
        if run is not None
    ]
    return f"<figure>{svg(Panel('Seconds per epoch', 1.3 + 0.3 * len(rows), partial(bars, rows=rows)))}</figure>"


def _differences(names: Sequence[str], contents: Sequence[Mapping[str, Any]]) -> str:
    """A table of what differs, and a list of what does not."""
    keys = dict.fromkeys(key for content in contents for key in content)
    same = {key: contents[0].get(key) for key in keys if all(content.get(key) == contents[0].get(key) for content in contents)}
    rows = [
        [escape(key.replace("_", " ")), *(escape(plain(content.get(key))) for content in contents)]
        for key in keys
        if key not in same
    ]
    return (table(["", *names], rows) if rows else "<p>The same in all files.</p>") + definitions(same)
