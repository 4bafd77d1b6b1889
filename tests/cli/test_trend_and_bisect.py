"""`bench --record`, `trend` and `bisect` as a user meets them."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlp_accel.bench.history import pairs
from mlp_accel.bench.history.trend import THRESHOLD
from mlp_accel.cli.bench import bench
from mlp_accel.cli.bisect import bisect
from mlp_accel.cli.trend import trend
from mlp_accel.errors import MlpAccelError
from tests.cli.commands import assert_clear_error, run

ROOT = Path(__file__).parents[2]
IDENTITY = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]


def in_folder(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "mlp_accel", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with three commits: the package, a note, and a package that cannot be built."""
    root = tmp_path_factory.mktemp("repository") / "checkout"
    root.mkdir()
    shutil.copytree(ROOT / "mlp_accel", root / "mlp_accel", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)

    def commit(tag: str) -> None:
        for command in (("add", "-A"), ("commit", "-q", "-m", f"the {tag} one"), ("tag", tag)):
            subprocess.run(["git", *IDENTITY, *command], cwd=root, check=True)

    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
    commit("first")
    (root / "notes").write_text("nothing of the package")
    commit("noted")
    (root / "pyproject.toml").write_text("this is no TOML")
    commit("broken")
    (root / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return root


def test_results_are_recorded_and_shown_over_commits(clouds: Path, tmp_path: Path) -> None:
    store, plot, file = tmp_path / "store", tmp_path / "a.png", tmp_path / "a.json"
    for _ in range(2):
        done = run("bench", "--backends", "numpy", "--path", "loop", "--data", clouds, "--epochs", 1, "--record", store)
        assert done.returncode == 0, done.stderr
    assert len(list(store.glob("*.json"))) == 2
    assert f"wrote {store}" in done.stdout
    (store / "foreign.json").write_text("{}")
    result = run("trend", store, "--format", "markdown", "--plot", plot, "--json", file)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "| engine | runs | first level | last level | last / first | changes | what, and where |" in lines
    assert any(line.startswith("| numpy loop | 2 |") for line in lines)
    assert "- no change of a level was seen" in lines
    assert any("foreign.json: has no field schema" in line.replace("\\", "") for line in lines)
    assert plot.read_bytes().startswith(b"\x89PNG")
    (series,) = json.loads(file.read_text())["series"]
    assert len(series["points"]) == 2
    (tmp_path / "empty").mkdir()
    assert run("trend", tmp_path / "empty").returncode == 4


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        (trend, {}, "name a folder of results or git:BRANCH"),
        (trend, {"paired": True}, "name them by --commits A..B"),
        (trend, {"stores": ["a"], "commits": "first..main", "paired": True}, "--paired measures commits anew"),
        (trend, {"stores": ["nowhere"]}, "there is no folder nowhere"),
        (trend, {"stores": ["git:nowhere"]}, "no branch 'nowhere'"),
        (trend, {"commits": "first", "paired": True}, "'first' from --commits is no range of commits"),
        (trend, {"commits": "nowhere..main", "paired": True}, "'nowhere' from --commits names no commit"),
        (trend, {"commits": "first..main", "paired": True, "launches": 3}, "--launches must be at least 7"),
        (trend, {"stores": ["."], "threshold": "5"}, "'5' from --threshold"),
        (trend, {"stores": ["."], "form": "html"}, "unknown format 'html'"),
        (bisect, {"good": "nowhere"}, "'nowhere' from --good names no commit"),
        (bisect, {"good": "broken", "bad": "first"}, "'broken' from --good is no ancestor of 'first' from --bad"),
        (bisect, {"good": "first", "backend": "numpy", "path": "sparse"}, "no path 'sparse' of numpy"),
        (bench, {"record": "git:main", "backend_list": "numpy"}, "cannot record in the branch 'main': it is checked out"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:60]),
)
def test_what_was_wrong_is_said(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., None], options: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(checkout)
    with pytest.raises(MlpAccelError, match=re.escape(words)):
        command(**options)


def test_a_mistake_is_a_message_and_exit_code_2(checkout: Path) -> None:
    assert_clear_error(in_folder(checkout, "bisect", "--good", "nowhere"), 2, "'nowhere' from --good names no commit")


def test_commits_that_do_not_touch_the_package_are_not_measured(checkout: Path) -> None:
    result = in_folder(checkout, "bisect", "--good", "first", "--bad", "noted", "--backend", "numpy")
    assert result.returncode == 4, result.stderr
    assert "no slowdown above 3.0% was found" in result.stdout
    result = in_folder(checkout, "trend", "--commits", "first..broken", "--paired", "--backends", "numpy", "--format", "markdown")
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert "the noted one (does not touch the package)" in rows[-2]
    assert "the broken one (not measured: pip install of" in rows[-1]
    assert "- numpy: together +0.0% (+0.0% to +0.0%)" in result.stdout.splitlines()


def test_the_defaults_are_those_of_the_package() -> None:
    parameters = inspect.signature(bisect).parameters
    assert (parameters["launches"].default, parameters["rounds"].default) == (pairs.LAUNCHES, pairs.ROUNDS)
    assert parameters["threshold"].default == f"{THRESHOLD:.0%}"
