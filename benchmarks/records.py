"""Records of studies that take several runs: they are of one commit and one set of settings, and are gone on with."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlp_accel.bench.gate import builds
from mlp_accel.environment import environment
from mlp_accel.files import write_text

ROOT = Path(__file__).resolve().parents[1]


def continued(path: Path, settings: Mapping[str, Any], empty: Mapping[str, Any]) -> dict[str, Any]:
    """What the file holds so far, with one more environment; a new record with what `empty` has if there is none.

    Raises
    ------
    SystemExit
        If the file is of another commit or other settings.
    """
    commit, settings = builds.resolve(ROOT, "HEAD"), json.loads(json.dumps(settings))
    if path.exists():
        content: dict[str, Any] = json.loads(path.read_text())
        if (content["commit"], content["settings"]) != (commit, settings):
            raise SystemExit(f"{path} is of another commit or other settings; remove it to start again")
    else:
        content = {"schema": 1, "commit": commit, "settings": settings, "environments": [], **empty}
    content["environments"].append(environment())
    return content


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write the record whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content) + "\n")


def say(line: str) -> None:
    """A line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
