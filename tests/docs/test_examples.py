"""Every example of the README and of the pages runs, in their order, each page in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("**/*.md") if "_build" not in page.parts)]


def run_in_shell(example: Example) -> None:
    """Run a block as a script that ends at the first error; the command `mlp-accel` is that of this environment."""
    variables = {**os.environ, "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])}
    command = ["bash", "-euo", "pipefail", "-c", example.parsed]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300, check=False)
    assert done.returncode == 0, f"{example.parsed}\n{done.stdout}{done.stderr}"


PARSERS = (PythonCodeBlockParser(), CodeBlockParser("sh", run_in_shell), SkipParser())


def examples() -> list[tuple[str, Example]]:
    """Those of all pages, each with the place where it stands."""
    found = []
    for page in PAGES:
        for example in Document.parse(str(page), *PARSERS).examples():
            found.append((f"{page.relative_to(ROOT)}:{example.line}", example))
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each page, in which its examples run."""
    return {str(page): tmp_path_factory.mktemp(page.stem) for page in PAGES}


@pytest.mark.parametrize("example", [pytest.param(example, id=name) for name, example in examples()])
def test_the_example_runs(example: Example, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders[example.path])
    monkeypatch.setenv("MLP_ACCEL_NUM_THREADS", "1")  # the steadiest where other tests or programs run
    example.evaluate()


def test_no_block_is_neither_run_nor_marked_as_something_else() -> None:
    """A block in another language than these would not be run, and nobody would notice."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("```") and line != "```":
                assert line in ("```python", "```sh", "```text") or line.startswith("```{"), f"{page}: {line}"
