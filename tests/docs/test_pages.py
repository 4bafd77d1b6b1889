"""What the pages must have beside examples that run and figures that are current."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import mlp_accel
from mlp_accel.cli.app import app

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = ROOT / "docs" / "notebooks" / "from_the_notebook.ipynb"
COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]


def test_the_notebook_has_small_outputs_and_no_error() -> None:
    assert NOTEBOOK.stat().st_size < 150_000
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert {"stream", "display_data"} <= set(outputs)
    assert "error" not in outputs


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme_and_has_its_help_among_the_pages(command: str) -> None:
    assert f"| `mlp-accel {command}" in (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert f"\n## {command}\n" in page
    assert f"python -m mlp_accel {command} --help\n" in page


def test_every_public_name_is_in_the_api() -> None:
    page = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. auto\w+:: mlp_accel\.(\w+)$", page, re.MULTILINE)
    assert sorted(named) == sorted(set(mlp_accel.__all__) - {"__version__"})
