"""Tables and lines as Markdown, for pull requests and job summaries: the same tables as on a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.table import Table

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$])")
"""What Markdown, as GitHub reads it, takes for more than itself; ``$`` begins a formula there."""

ALIGNMENT = {"left": ":--", "center": ":-:", "right": "--:"}


def markdown_table(table: Table) -> str:
    """A table of text cells, with its title above it."""
    headings = [str(column.header).replace("-\n", "").replace("\n", " ") for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    lines = [
        *([f"**{escape(str(table.title))}**", ""] if table.title else []),
        _row(headings),
        _row_of([ALIGNMENT.get(column.justify, ":--") for column in table.columns]),
        *(_row([str(cell) for cell in row]) for row in rows),
    ]
    return "\n".join(lines)


def markdown_lines(lines: Sequence[str]) -> str:
    """Lines as a list, one item each."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def escape(text: str) -> str:
    """`text` so that Markdown shows it as it is, in one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _row(cells: Sequence[str]) -> str:
    return _row_of([escape(cell) for cell in cells])


def _row_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
