"""Rows that run other programs: the tests that need a GPU, compute-sanitizer, and Nsight Compute."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_stages.device import gpu_backend
from gpu_stages.rows import UnavailableError, say

ROOT = Path(__file__).resolve().parents[2]
SMALL_TRAINING = Path(__file__).with_name("small_training.py")
KEPT_LINES = 60
TEST_SECONDS = 60
"""After so long a test counts as hung, where pytest-timeout is installed."""

SANITIZER_FOUND = 86
"""The exit code that compute-sanitizer is asked to give where it has found something."""

NCU_SECTIONS = ("SpeedOfLight", "LaunchStats", "Occupancy", "WarpStateStats", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis")


def gpu_tests(arguments: tuple[str, ...], seconds: float) -> dict[str, Any]:
    """Run the tests that need a GPU; those that lack a package are skipped, or fail by name, and the others go on."""
    gpu_backend()
    if find_spec("pytest") is None:
        raise UnavailableError("pytest is not installed: python -m pip install -e '.[test]'")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "--tb=short",
        "-m",
        "cupy",
        "--require-backend",
        "cupy",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--continue-on-collection-errors", "-o", "filterwarnings=default"]  # a warning of other versions is no failure here
    if find_spec("xdist") and "no:xdist" not in arguments:
        command += ["-n", str(max(1, min(8, (os.cpu_count() or 2) // 2)))]
    if find_spec("pytest_timeout"):
        command += [f"--timeout={TEST_SECONDS}", "--timeout-method=thread"]
    code, lines = _run([*command, *arguments], seconds)
    verdicts = [found for line in lines if (found := re.search(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b", line)) and "::" in line]
    counts = Counter(found.group(1).lower() for found in verdicts if not found.string.startswith(("FAILED", "ERROR", "SKIPPED")))
    bad = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if code is None:
        verdict: str | None = f"pytest did not end within {seconds:.0f} s; so far: {dict(counts)}"
    else:
        verdict = None if code == 0 else f"pytest: exit status {code}: {dict(counts)}"
    return {"mismatch": verdict, "tests": dict(counts), "failed": bad, "output": lines[-KEPT_LINES:]}


def sanitizer(tool: str, path: str, seconds: float) -> dict[str, Any]:
    """Train two minibatches under a tool of compute-sanitizer: memcheck, racecheck or synccheck."""
    program = _need("compute-sanitizer")
    gpu_backend()
    command = [program, "--tool", tool, "--error-exitcode", str(SANITIZER_FOUND), "--print-limit", "20"]
    code, lines = _run([*command, sys.executable, str(SMALL_TRAINING), path], seconds)
    said = [line for line in lines if "=========" in line]
    if any("not supported" in line for line in said):
        raise UnavailableError(next(line for line in said if "not supported" in line))
    summary = next((line.strip("= ") for line in reversed(said) if "SUMMARY" in line), "no summary")
    verdict = f"{tool}: {summary}" if code == SANITIZER_FOUND else _failed(tool, code, seconds)
    return {"mismatch": verdict, "summary": summary, "output": said[-KEPT_LINES:]}


def profile(path: str, kernel: str, seconds: float) -> dict[str, Any]:
    """What Nsight Compute says of one launch of a kernel, in a small training; the clocks are left as they are."""
    program = _need("ncu")
    gpu_backend()
    sections = [part for section in NCU_SECTIONS for part in ("--section", section)]
    command = [program, "--clock-control", "none", "--kernel-name", f"regex:{kernel}", "--launch-count", "1", *sections]
    code, lines = _run([*command, sys.executable, str(SMALL_TRAINING), path], seconds)
    return {"mismatch": _failed("ncu", code, seconds), "output": lines[-3 * KEPT_LINES :]}


def _need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise UnavailableError(f"{program} is not on the PATH")
    return found


def _failed(what: str, code: int | None, seconds: float) -> str | None:
    if code is None:
        return f"{what} did not end within {seconds:.0f} s"
    return None if code == 0 else f"{what}: exit status {code}"


def _run(command: list[str], seconds: float) -> tuple[int | None, list[str]]:
    """Exit code (None if it was stopped) and lines of output of a program; they are printed, too, as they come."""
    say(f"$ {' '.join(command)}")
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                lines.append(line.rstrip())
                say(lines[-1])

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    process.wait()
    timer.cancel()
    reader.join(timeout=2)  # a child of it may still hold its output
    return None if stopped.is_set() else process.returncode, list(lines)
