"""How often `mlp-accel compare` accuses identical code, and how often it finds 10 % more.

    python benchmarks/compare_study.py record      # 7 minutes at most; run it again until it says "complete"
    python benchmarks/compare_study.py resample    # judges comparisons drawn from the record, and writes the summary

A record holds the epoch times of runs of `mlp-accel bench` on the first `SAMPLES` images of MNIST, alternately of one commit and of
the same commit with epochs that take 10 % longer. A resampled comparison draws some files a side from it, without replacement, and
is made and judged as the command does: five files of the commit beside five others of it, and beside five of the slowed one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from planted import slow_down
from records import continued, say, write_record

from mlp_accel.bench.comparison import FASTER, SLOWER, Comparison, compare
from mlp_accel.bench.config import Config
from mlp_accel.bench.gate import builds
from mlp_accel.bench.results import Result, Run, Summary
from mlp_accel.datasets import load

ROOT = Path(__file__).parent.parent
SAME, SLOWED = KINDS = ("same", "slowed")
SLOWDOWN = 0.10
SAMPLES, EPOCHS = 10_000, 12
BENCH = ("bench", "--backends", "numpy,numba", "--threads", "1", "--starts", "1", "--epochs", str(EPOCHS))
GOALS = {SAME: (0.0, 0.01), SLOWED: (0.90, 1.0)}
"""The share of comparisons in which an engine is called slower: at least and at most."""


def record(options: argparse.Namespace) -> None:
    """Add runs to the record until it is complete or the time is up."""
    path = options.folder / "record.json"
    content = continued(
        path, {"samples": SAMPLES, "slowdown": SLOWDOWN, "bench": list(BENCH)}, {"runs": {kind: [] for kind in KINDS}}
    )
    deadline = monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="mlp-accel-study.") as temporary:
        folder = Path(temporary)
        packages = _build(folder, content["commit"])
        _write_data(folder / "mnist.npz")
        for package in packages.values():
            _run(package, folder)  # compiles
        while (kind := min(KINDS, key=lambda name: len(content["runs"][name]))) and monotonic() < deadline:
            if len(content["runs"][kind]) >= options.runs:
                break
            times = _run(packages[kind], folder)
            content["runs"][kind].append(times)
            write_record(path, content)
            medians = ", ".join(f"{label} {np.median(samples):.4f}" for label, samples in times.items())
            say(f"{kind} {len(content['runs'][kind])}/{options.runs}: {medians}")
    done = min(map(len, content["runs"].values())) >= options.runs
    say(f"{path}: {'complete' if done else 'not complete; run this again'}")


def resample(options: argparse.Namespace) -> bool:
    """Judge comparisons drawn from the record, and write the summary; true if the goals are reached."""
    content = json.loads((options.folder / "record.json").read_text())
    results = {kind: [_result(times) for times in content["runs"][kind]] for kind in KINDS}
    rng = np.random.default_rng(0)
    rows = []
    for kind in KINDS:
        found = [_drawn(results, kind, options.files, rng) for _ in range(options.draws)]
        rates = {
            "slower": _rate(found, lambda c: any(row.is_slower() for row in c.results)),
            "each engine slower": _rate(found, lambda c: all(row.is_slower() for row in c.results)),
            "faster": _rate(found, lambda c: any(row.verdict == FASTER for row in c.results)),
        }
        engines = {
            row.label: _rate(found, lambda c, label=row.label: any(r.label == label and r.verdict == SLOWER for r in c.results))
            for row in found[0].results
        }
        least, most = GOALS[kind]
        reached = least <= rates["slower"] <= most
        rows.append({"kind": kind, "draws": options.draws, "rates": rates, "engines_slower": engines, "reached": reached})
        say(f"{kind}: {rates} {engines} {'reached' if reached else 'MISSED'}")
    spread = {
        label: float(np.std([np.log(np.median(times[label])) for times in content["runs"][SAME]], ddof=1))
        for label in content["runs"][SAME][0]
    }
    say(f"spread of the medians of one commit from run to run: { {label: f'{sd:.1%}' for label, sd in spread.items()} }")
    about = {name: content[name] for name in ("commit", "environments", "settings")}
    summary = {"schema": 1, **about, "runs": {kind: len(results[kind]) for kind in KINDS}, "files_a_side": options.files}
    write_record(options.folder / "summary.json", {**summary, "spread_from_run_to_run": spread, "rows": rows})
    return all(row["reached"] for row in rows)


def _drawn(results: dict[str, list[Result]], kind: str, files: int, rng: np.random.Generator) -> Comparison:
    """A comparison of so many files of the commit with others of it, or with so many of the slowed one."""
    picked = rng.choice(len(results[SAME]), 2 * files, replace=False)
    a = [results[SAME][i] for i in picked[:files]]
    if kind == SAME:
        return compare(a, [results[SAME][i] for i in picked[files:]])
    return compare(a, [results[SLOWED][i] for i in rng.choice(len(results[SLOWED]), files, replace=False)])


def _rate(found: Sequence[Comparison], holds: Any) -> float:
    return float(np.mean([holds(comparison) for comparison in found]))


def _result(times: dict[str, list[float]]) -> Result:
    """A result file with nothing but these times."""
    rows = []
    for label, samples in times.items():
        name, _, path = label.partition(" ")
        rows.append(Run(name=name, path=path or None, status="ok", epoch_seconds=Summary.of(samples)))
    return Result(environment={}, config=Config(), results=tuple(rows))


def _run(package: Path, folder: Path) -> dict[str, list[float]]:
    """The epoch times of each engine in one run of the command."""
    command = [sys.executable, "-P", "-m", "mlp_accel", *BENCH, "--data", str(folder / "mnist.npz"), "--json", "-"]
    variables = {**os.environ, "PYTHONPATH": str(package), "MLP_ACCEL_CACHE_DIR": str(folder / "cache")}
    found = subprocess.run(command, cwd=folder, env=variables, capture_output=True, check=False)
    if found.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit status {found.returncode}: {found.stderr[-500:].decode()}")
    rows = [row for row in json.loads(found.stdout)["results"] if row["epoch_seconds"]]
    return {f"{row['name']} {row['path']}": [round(s, 7) for s in row["epoch_seconds"]["samples"]] for row in rows}


def _build(folder: Path, commit: str) -> dict[str, Path]:
    for kind in KINDS:
        source = folder / f"{kind}-source"
        builds.export_commit(ROOT, commit, source)
        if kind == SLOWED:
            slow_down(source, SLOWDOWN)
        builds.install(source, folder / kind)
    return {kind: folder / kind for kind in KINDS}


def _write_data(path: Path) -> None:
    data = load("mnist")
    parts = (data.x_train[:SAMPLES], data.y_train[:SAMPLES], data.x_test[:1000], data.y_test[:1000])
    np.savez(path, x_train=parts[0], y_train=parts[1], x_test=parts[2], y_test=parts[3])


def main() -> int:
    """Run one stage; the exit code of `resample` is 0 if both goals are reached, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("record", "resample"))
    parser.add_argument("--runs", type=int, default=40, help="of each kind in the record")
    parser.add_argument("--minutes", type=float, default=7, help="record stops after this time, to be continued")
    parser.add_argument("--files", type=int, default=5, help="on a side of a resampled comparison")
    parser.add_argument("--draws", type=int, default=10_000, help="resampled comparisons of each kind")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "results" / "compare_study")
    options = parser.parse_args()
    if options.stage == "resample":
        return 0 if resample(options) else 1
    record(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
