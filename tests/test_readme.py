"""README and docs say what the project does: its figures, its example, its variables."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mlp_accel import backends, datasets
from mlp_accel.activations import ACTIVATIONS
from mlp_accel.backends import threads
from mlp_accel.backends.paths import LOOP, PATH_VARIABLE
from mlp_accel.bench.result_files import label, up_to_date
from mlp_accel.optimizers import OPTIMIZERS
from mlp_accel.schedules import SCHEDULES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_every_figure_is_that_of_the_result_files(document: Path) -> None:
    assert load_script().fill(document.read_text()) == document.read_text(), "run: python benchmarks/readme.py"


def test_every_figure_has_its_place() -> None:
    script, text = load_script(), "".join(document.read_text() for document in documents())
    for write in script.FIGURES:
        assert text.count(f"<!-- {write.__name__.replace('_', '-')} -->\n") == 1


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_a_figure_that_was_changed_by_hand_is_noticed() -> None:
    script = load_script()
    figures = re.findall(r"\d\.\d{4}", script.epoch_times())
    assert figures
    assert script.fill(README.replace(figures[0], "0.0001")) == README


def test_peers_stand_in_the_table_with_the_command_that_measures_them(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script()
    result = script._read("bench.json")
    peer = {
        **next(row for row in result["results"] if row["epoch_seconds"]),
        "name": "jax",
        "kind": "peer",
        "path": None,
        "versions": {"jax": "9"},
    }
    missing = {**peer, "name": "pytorch", "status": "unavailable", "reason": "not installed", "epoch_seconds": None}
    del missing["versions"]
    monkeypatch.setattr(script, "_read", lambda _: {**result, "results": [*result["results"], peer, missing]})
    table = script.epoch_times()
    assert f"| *jax* | {peer['epoch_seconds']['median']:.4f} |" in table
    assert "| pytorch | – | – | unavailable: not installed |" in table
    assert "jax 9" in table
    assert f"Made by `mlp-accel bench --peers --epochs {result['config']['epochs']} --json" in table


def test_every_result_file_that_is_quoted_is_long_enough() -> None:
    assert load_script()._read("bench.json")["config"]["short"] is False


def test_the_ten_lines_run(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.strip().splitlines()) <= 10
    shorter = example.replace("epochs=5", "epochs=1")
    result = subprocess.run([sys.executable, "-c", shorter], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "% right after" in result.stdout
    assert (tmp_path / "history.png").exists()


@pytest.mark.parametrize("module", [backends, datasets, threads])
def test_every_environment_variable_is_explained(module: ModuleType) -> None:
    assert f"`{module.ENVIRONMENT_VARIABLE}`" in README


def test_the_variable_of_the_path_is_explained_with_the_paths_of_all_backends() -> None:
    (line,) = [line for line in README.splitlines() if line.startswith(f"| `{PATH_VARIABLE}`")]
    for path in (LOOP, *(path for name in backends.BACKENDS for path in backends.backend_class(name).path_names)):
        assert f"`{path}`" in line


@pytest.mark.parametrize("name", [*ACTIVATIONS, *OPTIMIZERS, *SCHEDULES])
def test_every_activation_optimizer_and_schedule_is_named(name: str) -> None:
    assert f"`{name}`" in README


def test_rows_of_the_table_are_known_by_backend_and_path() -> None:
    script = load_script()
    table = script.epoch_times()
    ours = [row for row in up_to_date(script._read("bench.json"))["results"] if row["kind"] == "backend"]
    assert ours
    for row in ours:
        assert f"| {label(row)} | " in table


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_every_file_that_it_links_to_exists(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target
