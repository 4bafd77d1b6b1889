"""README and docs say what the project does: its figures, its variables, its names. That their examples run: `tests/docs`."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import readme

from mlp_accel import backends, datasets, exit_codes
from mlp_accel.activations import ACTIVATIONS
from mlp_accel.backends import threads
from mlp_accel.backends.paths import LOOP, PATH_VARIABLE
from mlp_accel.bench.result_files import label, up_to_date
from mlp_accel.optimizers import OPTIMIZERS
from mlp_accel.schedules import SCHEDULES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
VARIABLES = (ROOT / "docs" / "environment-variables.md").read_text(encoding="utf-8")


def documents() -> list[Path]:
    return list(readme.DOCUMENTS)


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_every_figure_is_that_of_the_result_files(document: Path) -> None:
    assert readme.fill(document.read_text()) == document.read_text(), "run: python benchmarks/readme.py"


def test_every_figure_has_its_place() -> None:
    text = "".join(document.read_text() for document in documents())
    for write in readme.FIGURES:
        assert text.count(f"<!-- {write.__name__.replace('_', '-')} -->\n") == 1


def test_every_chart_is_that_of_the_result_files() -> None:
    drawn = readme.charts()
    assert {file: file.read_text() for file in drawn} == drawn, "run: python benchmarks/readme.py"
    assert set(readme.CHARTS.iterdir()) == set(drawn)


def test_the_chart_of_the_readme_has_every_engine_that_was_measured_and_its_time() -> None:
    drawing = readme.charts()[readme.CHARTS / "epoch-times-light.svg"]
    for kind in ("mnist", "half", "table", "wide"):
        rows = up_to_date(readme._read("cpu_study.json")["cells"][f"{kind} {readme.CHARTED}"])["results"]
        assert rows
        for name in {row["name"] for row in rows}:
            fastest = min(row["epoch_seconds"]["median"] for row in rows if row["name"] == name and row["epoch_seconds"])
            assert f">{fastest * 1e3:.1f} ms</text>" in drawing


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_a_figure_that_was_changed_by_hand_is_noticed() -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    figures = re.findall(r"\d\.\d{4}", readme.epoch_times())
    assert figures
    assert readme.fill(page.replace(figures[0], "0.0001")) == page


def test_peers_stand_in_the_table_with_the_command_that_measures_them(monkeypatch: pytest.MonkeyPatch) -> None:
    result = readme._read("bench.json")
    peer = {
        **next(row for row in result["results"] if row["epoch_seconds"]),
        "name": "jax",
        "kind": "peer",
        "path": None,
        "versions": {"jax": "9"},
    }
    missing = {**peer, "name": "pytorch", "status": "unavailable", "reason": "not installed", "epoch_seconds": None}
    del missing["versions"]
    monkeypatch.setattr(readme, "_read", lambda _: {**result, "results": [*result["results"], peer, missing]})
    table = readme.epoch_times()
    assert f"| *jax* | {peer['epoch_seconds']['median']:.4f} |" in table
    assert "| pytorch | – | – | unavailable: not installed |" in table
    assert "jax 9" in table
    assert f"Made by `mlp-accel bench --peers --epochs {result['config']['epochs']} --json" in table


def test_every_result_file_that_is_quoted_is_long_enough() -> None:
    assert readme._read("bench.json")["config"]["short"] is False


def test_the_example_of_the_readme_is_ten_lines() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.strip().splitlines()) <= 10


@pytest.mark.parametrize("module", [backends, datasets, threads])
def test_every_environment_variable_is_explained(module: ModuleType) -> None:
    assert f"`{module.ENVIRONMENT_VARIABLE}`" in VARIABLES


def test_the_variable_of_the_path_is_explained_with_the_paths_of_all_backends() -> None:
    (line,) = [line for line in VARIABLES.splitlines() if line.startswith(f"| `{PATH_VARIABLE}`")]
    for path in (LOOP, *(path for name in backends.BACKENDS for path in backends.backend_class(name).path_names)):
        assert f"`{path}`" in line


def test_every_exit_code_is_explained() -> None:
    page = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes


@pytest.mark.parametrize("name", [*ACTIVATIONS, *OPTIMIZERS, *SCHEDULES])
def test_every_activation_optimizer_and_schedule_is_named(name: str) -> None:
    assert f"`{name}`" in README


def test_rows_of_the_table_are_known_by_backend_and_path() -> None:
    table = readme.epoch_times()
    ours = [row for row in up_to_date(readme._read("bench.json"))["results"] if row["kind"] == "backend"]
    assert ours
    for row in ours:
        assert f"| {label(row)} | " in table


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_every_file_that_it_links_to_exists(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|(?:src|srcset)=\"([^\"]+)\"", document.read_text()):
        assert (document.parent / "".join(target)).exists(), target
