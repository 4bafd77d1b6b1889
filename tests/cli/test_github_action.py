"""The Action, with the environment variables that GitHub sets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlp_accel.cli.github_action import annotation, fetch, find_base, run_action
from mlp_accel.errors import SettingError

ROOT = Path(__file__).parents[2]
IDENTITY = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *IDENTITY, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, str]:
    """What `actions/checkout` makes of a pull request: the merge commit alone; and the commit it is merged into."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "main")
    for name in ("one", "two"):
        (origin / name).write_text("")
        git(origin, "add", "-A")
        git(origin, "commit", "-q", "-m", name)
        if name == "one":
            git(origin, "branch", "change")
    base = git(origin, "rev-parse", "main")
    git(origin, "checkout", "-q", "change")
    (origin / "three").write_text("")
    git(origin, "add", "-A")
    git(origin, "commit", "-q", "-m", "three")
    git(origin, "checkout", "-q", "--detach", "main")
    git(origin, "merge", "-q", "--no-ff", "-m", "merged", "change")
    git(origin, "update-ref", "refs/pull/7/merge", "HEAD")
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")  # as GitHub does
    clone.mkdir()
    git(clone, "init", "-q")
    git(clone, "remote", "add", "origin", f"file://{origin}")
    git(clone, "fetch", "-q", "--depth=1", "origin", "refs/pull/7/merge")
    git(clone, "checkout", "-q", "--detach", "FETCH_HEAD")
    return clone, base


def test_the_base_is_what_the_pull_request_is_merged_into_and_is_fetched(checkout: tuple[Path, str]) -> None:
    clone, base = checkout
    assert find_base(clone, {"GITHUB_REF": "refs/pull/7/merge"}) == base
    with pytest.raises(subprocess.CalledProcessError):
        git(clone, "cat-file", "-e", f"{base}^{{commit}}")
    fetch(clone, base)
    assert git(clone, "cat-file", "-t", base) == "commit"
    with pytest.raises(SettingError, match=r"'0000.*' is not here and cannot be fetched"):
        fetch(clone, "0" * 40)


def test_the_base_may_be_named_or_stand_in_the_event(checkout: tuple[Path, str], tmp_path: Path) -> None:
    clone, _ = checkout
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"base": {"sha": "abc"}}}))
    assert find_base(clone, {"GITHUB_REF": "refs/heads/x", "GITHUB_EVENT_PATH": str(event)}) == "abc"
    assert find_base(clone, {"GATE_BASE": " v1 ", "GITHUB_EVENT_PATH": str(event)}) == "v1"
    event.write_text(json.dumps({"pull_request": None}))
    with pytest.raises(SettingError, match="no pull request"):
        find_base(clone, {"GITHUB_REF": "refs/heads/x", "GITHUB_EVENT_PATH": str(event)})


def test_the_annotation_says_what_was_found_and_commands_nothing() -> None:
    rows = [{"backend": "numba", "verdict": "slower", "reason": "slower by 5.0%\n::error::\x1b[2J"}]
    assert annotation(1, rows) == r"::error title=mlp-accel gate%3A Slower::numba: slower: slower by 5.0%25%0A::error::\x1b[2J"
    assert annotation(0, []).startswith("::notice title=mlp-accel gate%3A No slowdown found::")
    assert annotation(4, []).startswith("::warning title=mlp-accel gate%3A Inconclusive::")
    assert annotation(2, []) == "::error title=mlp-accel gate%3A Failed::see the log of this step"


@pytest.mark.parametrize(
    ("code", "strict", "expected", "level", "verdict"),
    [
        (0, "", 0, "notice", "no slowdown found"),
        (1, "", 1, "error", "slower"),
        (4, "", 0, "warning", "inconclusive"),
        (4, "true", 4, "warning", "inconclusive"),
        (3, "", 3, "error", "failed"),
    ],
)
def test_what_the_gate_says_goes_to_the_summary_the_outputs_and_an_annotation(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: int,
    strict: str,
    expected: int,
    level: str,
    verdict: str,
) -> None:
    """The command is replaced by one that notes how it was called, and ends as the gate would."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "base")
    stand_in = """
import json, pathlib, sys
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
row = {"backend": "numba", "verdict": "as planned", "reason": " ".join(sys.argv[1:])}
pathlib.Path(options["--json"]).write_text(json.dumps({"results": [row]}))
print("| a table |")
sys.exit(CODE)""".replace("CODE", str(code))
    (tmp_path / "mlp_accel.py").write_text(stand_in)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    files = {name: str(tmp_path / name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    github = {"GITHUB_WORKSPACE": str(tmp_path), "RUNNER_TEMP": str(tmp_path), **files}
    inputs = {"GATE_BASE": "HEAD", "GATE_OPTIONS": "--hidden '64,32'", "GATE_FAIL_ON_INCONCLUSIVE": strict}
    assert run_action({**os.environ, **github, **inputs}) == expected
    folder = tmp_path / "mlp-accel-gate"
    output = capfd.readouterr().out
    assert output.startswith(
        f"::{level} title=mlp-accel gate%3A {verdict.capitalize()}::numba: as planned: ab --base HEAD --hidden 64,32"
    )
    assert f"--plot {folder / 'gate.png'} --format markdown" in output
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text() == "### mlp-accel gate\n\n| a table |\n"
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == f"verdict={verdict}\nfolder={folder}\n"
    assert (folder / "gate.md").read_text() == "| a table |\n"


def test_a_command_that_leaves_no_report_has_found_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python itself ends with 1, which otherwise means slower."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "base")
    (tmp_path / "mlp_accel.py").write_text("raise ValueError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    files = {name: str(tmp_path / name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    github = {"GITHUB_WORKSPACE": str(tmp_path), "RUNNER_TEMP": str(tmp_path), **files}
    assert run_action({**os.environ, **github, "GATE_BASE": "HEAD"}) == 70
    assert (tmp_path / "GITHUB_OUTPUT").read_text().startswith("verdict=failed\n")


def steps() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: action.yml cannot be read")
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    return found


def test_no_input_is_part_of_a_script() -> None:
    for step in steps():
        assert "${{" not in step.get("run", "")


def run_gate_step(workspace: Path, temporary: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The step ``Gate`` of action.yml, as a runner would run it."""
    (step,) = [step for step in steps() if step.get("id") == "gate"]
    files = {name: str(temporary / name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    github = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(workspace), "RUNNER_TEMP": str(temporary), **files}
    inputs = {"PYTHON": sys.executable, "GATE_BACKENDS": "numpy", "GATE_THRESHOLD": "3%", "GATE_OPTIONS": "", **variables}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **github, **inputs}
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_mistake_is_an_annotation(checkout: tuple[Path, str], tmp_path: Path) -> None:
    clone, _ = checkout
    done = run_gate_step(clone, tmp_path, GITHUB_REF="refs/heads/main")
    assert done.returncode == 2, done.stderr
    assert done.stdout == "::error title=mlp-accel gate::this is no pull request, so there is no base: give the input `base`\n"
    done = run_gate_step(clone, tmp_path, GITHUB_REF="refs/pull/7/merge", GATE_OPTIONS="--launches 3")
    assert done.returncode == 2
    assert "--launches must be at least 7" in done.stderr
    assert done.stdout == "::error title=mlp-accel gate%3A Failed::see the log of this step\n"
    assert "verdict=failed" in (tmp_path / "GITHUB_OUTPUT").read_text()
    assert "failed with exit status 2" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
