"""What ``action.yml`` runs on GitHub: the gate on a pull request, with a summary, an annotation and a picture.

It is told everything by environment variables: what GitHub sets in every job, and ``GATE_…`` for the inputs of the action.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_accel.cli.console import MARKDOWN, printable
from mlp_accel.errors import MlpAccelError, SettingError
from mlp_accel.exit_codes import DIFFERENT, INTERNAL_ERROR, OK, UNDECIDED, WRONG_USAGE
from mlp_accel.files import write_text

MERGE = re.compile(r"refs/pull/\d+/merge")
"""What `actions/checkout` checks out for a pull request: the base with the pull request merged into it."""

VERDICTS = {OK: "no slowdown found", DIFFERENT: "slower", UNDECIDED: "inconclusive"}
LEVELS = {OK: "notice", UNDECIDED: "warning"}
"""Of the annotation; any other is an error."""


def run_action(variables: Mapping[str, str]) -> int:
    """Run the gate as GitHub asks for it; returns the exit code of the step."""
    workspace = Path(variables.get("GITHUB_WORKSPACE") or Path.cwd())
    folder = Path(variables.get("RUNNER_TEMP") or workspace) / "mlp-accel-gate"
    shutil.rmtree(folder, ignore_errors=True)  # of a job before this one, on a machine that is kept
    folder.mkdir(parents=True)
    base = find_base(workspace, variables)
    fetch(workspace, base)
    code, summary = _gate(workspace, folder, base, variables)
    report = folder / "gate.json"
    content = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {"results": []}
    if code in VERDICTS and not content["results"]:
        code = INTERNAL_ERROR  # no verdict of the gate: Python itself ends with 1
    _append(variables, "GITHUB_STEP_SUMMARY", summary)
    _append(variables, "GITHUB_OUTPUT", f"verdict={VERDICTS.get(code, 'failed')}\nfolder={folder}\n")
    sys.stdout.write(f"{annotation(code, content['results'])}\n")
    return OK if code == UNDECIDED and variables.get("GATE_FAIL_ON_INCONCLUSIVE") != "true" else code


def find_base(workspace: Path, variables: Mapping[str, str]) -> str:
    """The commit to compare with: the input, or what the pull request is merged into.

    Raises
    ------
    SettingError
        If neither is there.
    """
    if base := variables.get("GATE_BASE", "").strip():
        return base
    if MERGE.fullmatch(variables.get("GITHUB_REF", "")):
        parents = re.findall(r"^parent (\w+)$", _git(workspace, "cat-file", "commit", "HEAD"), re.MULTILINE)
        if len(parents) == 2:
            return str(parents[0])
    event = variables.get("GITHUB_EVENT_PATH")
    content = json.loads(Path(event).read_text(encoding="utf-8")) if event else {}
    base = (content.get("pull_request") or {}).get("base", {}).get("sha")
    if not base:
        raise SettingError("this is no pull request, so there is no base: give the input `base`")
    return str(base)


def fetch(workspace: Path, base: str) -> None:
    """Get the base from the repository if it is not here: a checkout on GitHub has one commit alone.

    Raises
    ------
    SettingError
        If it cannot be had.
    """
    known = ["git", "-C", str(workspace), "cat-file", "-e", f"{base}^{{commit}}"]
    if subprocess.run(known, capture_output=True, check=False).returncode == 0:
        return
    try:
        _git(workspace, "fetch", "--no-tags", "--depth=1", "origin", "--", base)
    except subprocess.CalledProcessError as error:
        raise SettingError(f"the base {base!r} is not here and cannot be fetched: {error.stderr.strip()}") from error


def annotation(code: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the gate has found as a command of GitHub's workflows, which shows it beside the pull request."""
    level, title = LEVELS.get(code, "error"), VERDICTS.get(code, "failed").capitalize()
    text = "\n".join(f"{row['backend']}: {row['verdict']}: {row['reason']}" for row in rows)
    return f"::{level} title=mlp-accel gate%3A {title}::{_escaped(text or 'see the log of this step')}"


def _gate(workspace: Path, folder: Path, base: str, variables: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and Markdown of `mlp-accel ab`; what it says on the way goes to the log."""
    options = [
        f"--{name}={variables[f'GATE_{name.upper()}']}"
        for name in ("backends", "threshold")
        if variables.get(f"GATE_{name.upper()}")
    ]
    files = ["--json", str(folder / "gate.json"), "--plot", str(folder / "gate.png"), "--format", MARKDOWN]
    more = shlex.split(variables.get("GATE_OPTIONS", ""))
    command = [sys.executable, "-P", "-m", "mlp_accel", "ab", "--base", base, *options, *more, *files]
    done = subprocess.run(command, cwd=workspace, env=dict(variables), stdout=subprocess.PIPE, text=True, check=False)
    summary = done.stdout or f"The gate failed with exit status {done.returncode}; the log of this step says why.\n"
    write_text(folder / "gate.md", summary)
    return done.returncode, f"### mlp-accel gate\n\n{summary}"


def _append(variables: Mapping[str, str], name: str, text: str) -> None:
    """Add to a file that GitHub names, if it does; else it goes to the log."""
    if variables.get(name):
        with Path(variables[name]).open("a", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(f"{name}:\n{text}")


def _escaped(text: str) -> str:
    """A message of a workflow command, in one line."""
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _git(workspace: Path, *arguments: str) -> str:
    command = ["git", "-C", str(workspace), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Run it for this job; a mistake is one annotation and exit code 2."""
    try:
        return run_action(os.environ)
    except (MlpAccelError, ValueError) as error:
        sys.stdout.write(f"::error title=mlp-accel gate::{_escaped(str(error))}\n")
        return WRONG_USAGE


if __name__ == "__main__":
    sys.exit(main())
