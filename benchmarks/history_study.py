"""Does `mlp-accel trend --paired` add up, and does `mlp-accel bisect` find the commit? Slowdowns of a known size, in commits.

    python benchmarks/history_study.py trend numpy     # 10 commits of +1 % each: about 6 minutes
    python benchmarks/history_study.py trend numba
    python benchmarks/history_study.py bisect          # 10 bisections over 16 commits, one of which costs 5 %: 7 minutes at most;
                                                       # run it again until it says "complete"

Both run the command as a user does, in a clone of this repository with commits on top of its last one. Of the commits that are
bisected each touches the package, one costs 5 %, and one cannot be built: never the one before the one that is looked for, because
between these two no measurement can tell.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from planted import slow_down
from records import continued, say, write_record

from mlp_accel.bench.gate import builds

ROOT = Path(__file__).parent.parent
BACKENDS = ("numpy", "numba")
CREEP, CREEPING = 0.01, 10
SLOWDOWN, COMMITS, BISECTIONS = 0.05, 16, 10
WITHIN = 0.015
"""How far the sum of a chain may be from the truth."""

NO_PROJECT = "this is no TOML"
TREND = ("--launches", "8", "--rounds", "60")
BISECT = ("--launches", "7", "--rounds", "40")


def trend(backend: str, options: argparse.Namespace) -> bool:
    """One chain of commits, each slower by `CREEP`; true if their sum is right."""
    path = options.folder / "trend.json"
    content = continued(path, {"creep": CREEP, "commits": CREEPING, "options": options.trend or TREND}, {"runs": []})
    with tempfile.TemporaryDirectory(prefix="mlp-accel-study.") as temporary:
        clone = _clone(Path(temporary), content["commit"])
        for number in range(1, CREEPING + 1):
            slow_down(clone, CREEP)
            _commit(clone, f"slower by one per cent, {number}")
        start = monotonic()
        arguments = ("trend", "--commits", f"HEAD~{CREEPING}..HEAD", "--paired", "--backends", backend)
        report = _command(clone, *arguments, *(options.trend or TREND))
    chain, truth = report["chains"][backend], (1 + CREEP) ** CREEPING - 1
    total = chain["total"]
    low, high = total["interval"]
    found: dict[str, Any] = {
        "backend": backend,
        "truth": truth,
        "total": total["change"],
        "interval": [low, high],
        "direct": chain["direct"]["change"],
        "steps": [step["change"]["change"] for step in chain["steps"]],
        "seconds": round(monotonic() - start, 1),
        "reached": abs(total["change"] - truth) <= WITHIN,
    }
    content["runs"].append(found)
    write_record(path, content)
    say(f"{backend}: {total['change']:+.2%} ({low:+.2%} to {high:+.2%}), directly {found['direct']:+.2%}; it is {truth:+.2%}")
    return bool(found["reached"])


def bisect(options: argparse.Namespace) -> bool:
    """Add bisections until there are enough or the time is up; true if every one has found the commit."""
    path = options.folder / "bisect.json"
    content = continued(path, {"slowdown": SLOWDOWN, "commits": COMMITS, "options": options.bisect or BISECT}, {"runs": []})
    deadline = monotonic() + 60 * options.minutes
    longest = 0.0
    while len(content["runs"]) < options.bisections and monotonic() + longest < deadline:
        number = len(content["runs"])
        content["runs"].append(_bisection(number, content["commit"], options.bisect or BISECT))
        longest = max(longest, content["runs"][-1]["seconds"])
        write_record(path, content)
        say(f"{number + 1}/{options.bisections}: {content['runs'][-1]}")
    done = len(content["runs"]) >= options.bisections
    right = [run["right"] for run in content["runs"]]
    say(f"{path}: {sum(right)} of {len(right)} right; {'complete' if done else 'not complete; run this again'}")
    return all(right)


def _bisection(number: int, commit: str, arguments: Sequence[str]) -> dict[str, Any]:
    rng = random.Random(number)
    culprit = rng.randint(1, COMMITS)
    broken = rng.choice([i for i in range(1, COMMITS) if i not in (culprit, culprit - 1)])
    backend = BACKENDS[number % 2]
    with tempfile.TemporaryDirectory(prefix="mlp-accel-study.") as temporary:
        clone = _clone(Path(temporary), commit)
        project = clone / "pyproject.toml"
        sound = project.read_text()
        names = []
        for position in range(1, COMMITS + 1):
            project.write_text(NO_PROJECT if position == broken else sound)
            with (clone / "mlp_accel" / "training" / "trainer.py").open("a") as file:
                file.write(f"# {position}\n")
            if position == culprit:
                slow_down(clone, SLOWDOWN)
            names.append(_commit(clone, f"number {position}"))
        start = monotonic()
        report = _command(clone, "bisect", "--good", f"HEAD~{COMMITS}", "--bad", "HEAD", "--backend", backend, *arguments)
    found = [names.index(candidate["commit"]) + 1 for candidate in report.get("candidates", [])]
    return {
        "backend": backend,
        "culprit": culprit,
        "broken": broken,
        "found": found,
        "left_out": len(report.get("left_out", {})),
        "change": (report.get("change") or {}).get("change"),
        "seconds": round(monotonic() - start, 1),
        "right": found == [culprit],
    }


def _clone(folder: Path, commit: str) -> Path:
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(clone)], check=True)
    subprocess.run(["git", "-C", str(clone), "checkout", "--quiet", "--detach", commit], check=True)
    return clone


def _commit(clone: Path, subject: str) -> str:
    identity = ["-c", "user.name=study", "-c", "user.email=study@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(clone), *identity, "commit", "--quiet", "--all", "--message", subject], check=True)
    return builds.resolve(clone, "HEAD")


def _command(clone: Path, *arguments: str) -> dict[str, Any]:
    """The report of the command of this package, in the clone; an empty one if it wrote none."""
    report = clone.parent / "report.json"
    command = [sys.executable, "-P", "-m", "mlp_accel", *arguments, "--json", str(report)]
    subprocess.run(command, cwd=clone, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    content: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    return content


def main() -> int:
    """Run one stage; the exit code is 0 if what it has found is right, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("trend", "bisect"))
    parser.add_argument("backend", nargs="?", choices=BACKENDS, default=BACKENDS[0], help="of the stage trend")
    parser.add_argument("--bisections", type=int, default=BISECTIONS)
    parser.add_argument("--minutes", type=float, default=7, help="no bisection is begun that might end after this time")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "results" / "history_study")
    parser.add_argument("--quick", action="store_true", help="a small trial, in build/history_study")
    options = parser.parse_args()
    options.trend = options.bisect = None
    if options.quick:
        options.folder, options.bisections = ROOT / "build" / "history_study", 1
        options.trend = options.bisect = ("--launches", "7", "--rounds", "6")
    return 0 if (bisect(options) if options.stage == "bisect" else trend(options.backend, options)) else 1


if __name__ == "__main__":
    sys.exit(main())
