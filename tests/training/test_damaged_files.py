"""Damaged files are refused; `tests.training.mutations` does it by the thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="no module resource")
def test_damaged_files_are_refused_by_an_error_of_their_kind_in_little_memory() -> None:
    command = [sys.executable, "-m", "tests.training.mutations", "1000"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    found = json.loads(result.stdout)
    assert found["model: refused"] + found["checkpoint: refused"] > 800
    assert found["megabytes more"] < 20
