"""A study of the gate `mlp-accel ab`: how often it cries wolf, and whether it finds a slowdown of 5 %.

    python benchmarks/gate_study.py record quiet      # under 10 minutes; again until it says that it is complete
    python benchmarks/gate_study.py record noisy      # the same, with two busy neighbours
    python benchmarks/gate_study.py real quiet        # 10 gates by the command itself, some 2 minutes each; can be continued
    python benchmarks/gate_study.py real noisy
    python benchmarks/gate_study.py planted quiet     # 20 gates by the command, slowdowns planted in five places; can be continued
    python benchmarks/gate_study.py resample          # seconds: 1,000 gates of each kind from the records, and the summary

Every stage leaves a file in ``results/gate_study/`` and goes on where it was interrupted; ``--quick`` tries all of it at a small
size, in ``build/gate_study``. What is measured is the commit that is checked out, without uncommitted changes.

A record is a long series of launches of four workers: the base, the base as a control, the *same* commit built a second time, and
a slowed build, which is given a twentieth of the samples once more: 5 % more work in the same kernels, and in the same call of
them. A resampled gate draws the launches of its first run, and as many others for its second, from the record without
replacement, ends where the command would end, and is judged as the command judges. Gates share launches: their rates are those of
this record, and the real gates are there to confirm them. The neighbours multiply matrices and stream through memory, two
processes without pause.

The epochs are short ones, of `SAMPLES` training samples, because what tells two builds apart is how closely their turns follow
each other: whole epochs would make a gate twenty times as long and no more certain.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from planted import PLACES, plant
from records import continued, say, write_record

from mlp_accel.bench.gate import builds
from mlp_accel.bench.gate.launches import BASE, CONTROL, HEAD, LAUNCHES, run_launch, summarize, write_inputs
from mlp_accel.bench.gate.measures import EPOCH, ROUNDS
from mlp_accel.bench.gate.paired import INCONCLUSIVE, NO_SLOWDOWN, SLOWER, Floats, combine, decide_in_turn
from mlp_accel.training.recipes import RECIPES

ROOT = Path(__file__).parent.parent
CONDITIONS, BACKENDS, KINDS = ("quiet", "noisy"), ("numpy", "numba"), ("itself", "slowed")
SLOWED = "slowed"
THRESHOLD, SLOWDOWN = 0.03, 0.05
SMALL_THRESHOLD, SMALL_SLOWDOWN = 0.01, 0.03
"""What is asked for beside the goals: the launches of the same commit, as if each had taken so much longer."""

WORKER_OF_KIND = {"itself": HEAD, "slowed": SLOWED}
GOALS: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("itself", "quiet"): {NO_SLOWDOWN: (0.95, 1), SLOWER: (0, 0.005)},
    ("itself", "noisy"): {NO_SLOWDOWN: (0.80, 1), SLOWER: (0, 0.005)},
    ("slowed", "quiet"): {SLOWER: (0.99, 1)},
    ("slowed", "noisy"): {SLOWER: (0.99, 1)},
}
"""The share of gates with this verdict: at least and at most."""

NEIGHBOUR = """
import os, numpy as np, threadpoolctl
threadpoolctl.threadpool_limits(1)
parent, a, stream = os.getppid(), np.ones((300, 300), np.float32), np.ones(8_000_000)
while os.getppid() == parent:
    for _ in range(20):
        a @ a
    stream *= 1.0
"""


def record(condition: str, options: argparse.Namespace) -> None:
    """Add launches to the record of a condition until it is complete or the time is up."""
    path = options.folder / f"record_{condition}.json"
    content = continued(
        path,
        {"launches_of_each_backend": options.launches, "rounds": options.rounds},
        {"launches": {backend: [] for backend in BACKENDS}},
    )
    deadline = monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="mlp-accel-study.") as temporary, _neighbours(condition):
        folder = Path(temporary)
        workers = _build(folder, content["commit"])
        while (backend := _shortest(content["launches"])) is not None and monotonic() < deadline:
            launches = content["launches"][backend]
            if len(launches) >= options.launches:
                break
            config = _config(backend, folder / "inputs.npz")
            launch = run_launch(workers, config, options.rounds, random.Random(len(launches))).seconds
            launches.append({name: [round(s, 7) for s in seconds] for name, seconds in launch.items()})
            write_record(path, content)
            summary = summarize(launch)
            change = {name: f"{np.expm1(summary[name]['log_ratio']):+.1%}" for name in (CONTROL, HEAD, SLOWED)}
            say(f"{condition} {backend} launch {len(launches)}/{options.launches}: {change}")
    done = min(map(len, content["launches"].values())) >= options.launches
    say(f"{path}: {'complete' if done else 'not complete; run this again'}")


def real(condition: str, options: argparse.Namespace) -> None:
    """Add gates by the command itself, in a clone: a build against itself, and against the slowed one."""
    path = options.folder / f"real_{condition}.json"
    content = continued(path, {"gates": options.gates, "options": options.ab}, {"real": []})
    deadline = monotonic() + 60 * options.minutes
    with _neighbours(condition):
        while len(content["real"]) < options.gates and monotonic() < deadline:
            number = len(content["real"])
            kind, backend = KINDS[number % 2], BACKENDS[number // 2 % 2]
            place = "kernels" if kind == SLOWED else None
            gate = _real_gate(place, ("--backends", backend, *options.ab), content["commit"])
            content["real"].append({"kind": kind, "backend": backend, **gate})
            write_record(path, content)
            say(f"{condition} gate {number + 1}/{options.gates}: {kind}, {backend}: {content['real'][-1]}")
    say(f"{path}: {'complete' if len(content['real']) >= options.gates else 'not complete; run this again'}")


def planted(condition: str, options: argparse.Namespace) -> None:
    """Add gates by the command itself, each of a slowdown in the next of `PLACES`."""
    path = options.folder / f"planted_{condition}.json"
    content = continued(path, {"gates": options.gates, "slowdown": SLOWDOWN, "options": options.ab}, {"planted": []})
    gates, total = content["planted"], options.gates * len(PLACES)
    deadline = monotonic() + 60 * options.minutes
    longest: dict[str, float] = {}
    with _neighbours(condition):
        while len(gates) < total:
            name = list(PLACES)[len(gates) % len(PLACES)]
            if gates and monotonic() + longest.get(name, 0) > deadline:
                break
            place = PLACES[name]
            ab_options = ("--backends", place.backend, "--measure", place.measure, *options.ab, *place.options)
            gate = {"place": name, "backend": place.backend, "measure": place.measure}
            gates.append({**gate, **_real_gate(name, ab_options, content["commit"])})
            longest[name] = max(longest.get(name, 0), gates[-1]["seconds"])
            write_record(path, content)
            say(f"{condition} gate {len(gates)}/{total}: {gates[-1]}")
    found = {name: [gate["verdict"] == SLOWER for gate in gates if gate["place"] == name] for name in PLACES}
    say("; ".join(f"{name}: {sum(verdicts)} of {len(verdicts)} found" for name, verdicts in found.items()))
    say(f"{path}: {'complete' if len(gates) >= total else 'not complete; run this again'}")


def resample(options: argparse.Namespace) -> bool:
    """Judge gates drawn from the records, and write the summary; true if every goal is reached."""
    rows: list[dict[str, Any]] = []
    small: list[dict[str, Any]] = []
    sources: dict[str, Any] = {}
    for condition in CONDITIONS:
        content = json.loads((options.folder / f"record_{condition}.json").read_text())
        sources[condition] = {name: content[name] for name in ("commit", "environments", "settings")}
        for backend in BACKENDS:
            launches = [summarize(launch) for launch in content["launches"][backend]]
            verdicts, taken = _resampled(launches, HEAD, options.draws, SMALL_THRESHOLD, SMALL_SLOWDOWN)
            rates = _rates(verdicts)
            small.append({"condition": condition, "backend": backend, "rates": rates, "launches_taken": taken})
            say(f"slower by {SMALL_SLOWDOWN:.0%}, threshold {SMALL_THRESHOLD:.0%}, {condition}, {backend}: {rates}")
            for kind in KINDS:
                verdicts, taken = _resampled(launches, WORKER_OF_KIND[kind], options.draws, THRESHOLD, 0.0)
                rates = _rates(verdicts)
                sizes = [launch[WORKER_OF_KIND[kind]]["log_ratio"] for launch in launches]
                row: dict[str, Any] = {
                    "kind": kind,
                    "condition": condition,
                    "backend": backend,
                    "launches": len(launches),
                    "gates": options.draws,
                    "launches_taken": taken,
                }
                rows.append({**row, "median_change": float(np.expm1(np.median(sizes))), **_judged(kind, condition, rates)})
    for condition in CONDITIONS:
        path = options.folder / f"real_{condition}.json"
        gates = json.loads(path.read_text())["real"] if path.exists() else []
        for kind in KINDS:
            verdicts = [gate["verdict"] for gate in gates if gate["kind"] == kind]
            if verdicts:
                row = {"kind": kind, "condition": condition, "backend": "real gates, both", "gates": len(verdicts)}
                rows.append({**row, **_judged(kind, condition, _rates(verdicts))})
    for row in rows:
        say(f"{row['kind']}, {row['condition']}, {row['backend']}: {row['rates']} {'reached' if row['reached'] else 'MISSED'}")
    write_record(options.folder / "summary.json", {"schema": 1, "records": sources, "rows": rows, "small_slowdowns": small})
    return all(row["reached"] for row in rows)


def _resampled(
    launches: Sequence[dict[str, Any]], worker: str, draws: int, threshold: float, more: float
) -> tuple[list[str], float]:
    """Verdicts of gates: the launches of a run, and those of a second one on suspicion, without replacement.

    Parameters
    ----------
    more : float
        Makes every launch of the worker slower by this share.

    Returns
    -------
    verdicts : list of str
    launches : float
        The median gate took so many.
    """
    if len(launches) < 2 * LAUNCHES:
        raise SystemExit(f"a gate needs {2 * LAUNCHES} launches for two runs; the record has {len(launches)}")
    rng = np.random.default_rng(0)
    drawn = np.array([rng.choice(len(launches), 2 * LAUNCHES, replace=False) for _ in range(draws)])

    def series(picked: Any) -> tuple[Any, Any]:
        values: dict[str, Floats] = {
            name: np.array([launch[name]["log_ratio"] for launch in launches])[picked] for name in (worker, CONTROL)
        }
        return decide_in_turn(values[worker] + math.log1p(more), values[CONTROL], threshold)

    (first, n_first), (second, n_second) = series(drawn[:, :LAUNCHES]), series(drawn[:, LAUNCHES:])
    once = first == NO_SLOWDOWN
    pairs = zip(first, second, strict=True)
    verdicts = [NO_SLOWDOWN if one == NO_SLOWDOWN else combine(str(one), str(other)) for one, other in pairs]
    return verdicts, float(np.median(n_first + np.where(once, 0, n_second)))


def _rates(verdicts: Sequence[str]) -> dict[str, float]:
    return {verdict: float(np.mean([found == verdict for found in verdicts])) for verdict in (NO_SLOWDOWN, SLOWER, INCONCLUSIVE)}


def _judged(kind: str, condition: str, rates: dict[str, float]) -> dict[str, Any]:
    goals = GOALS[kind, condition]
    return {"rates": rates, "goals": goals, "reached": all(low <= rates[name] <= high for name, (low, high) in goals.items())}


def _shortest(launches: dict[str, list[Any]]) -> str | None:
    """The backends take turns: what happens on the machine happens to both."""
    return min(launches, key=lambda name: len(launches[name]), default=None)


def _build(folder: Path, commit: str) -> dict[str, Path]:
    """The four workers, each with the build that it runs."""
    write_inputs(folder / "inputs.npz", _config(BACKENDS[0], folder))
    for name in (BASE, HEAD, SLOWED):
        source = folder / f"{name}-source"
        builds.export_commit(ROOT, commit, source)
        if name == SLOWED:
            plant(source, "kernels", SLOWDOWN)
        builds.install(source, folder / name)
    return {BASE: folder / BASE, CONTROL: folder / BASE, HEAD: folder / HEAD, SLOWED: folder / SLOWED}


def _config(backend: str, inputs: Path) -> dict[str, Any]:
    settings = RECIPES["default"]
    names = ("hidden", "activation", "gradient", "dtype", "batch_size", "seed")
    config = {**{name: getattr(settings, name) for name in names}, **settings.optimizer_settings(), "path": "auto"}
    return {**config, "backend": backend, "threads": 1, "data": "mnist", "inputs": str(inputs)}


def _real_gate(place: str | None, ab_options: Sequence[str], commit: str) -> dict[str, Any]:
    """One run of the command, in a clone of its own: of a slowdown in one of `PLACES`, or of nothing."""
    with tempfile.TemporaryDirectory(prefix="mlp-accel-study.") as temporary:
        clone, report = Path(temporary) / "clone", Path(temporary) / "ab.json"
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(clone)], check=True)
        subprocess.run(["git", "-C", str(clone), "checkout", "--quiet", "--detach", commit], check=True)
        if place is not None:
            plant(clone, place, SLOWDOWN)
        command = [sys.executable, "-P", "-m", "mlp_accel", "ab", "--base", "HEAD", "--json", str(report), *ab_options]
        own = {**os.environ, "PYTHONPATH": str(ROOT)}  # what is planted must not slow down the command itself
        start = monotonic()
        process = subprocess.run(command, cwd=clone, env=own, check=False)
        seconds = monotonic() - start
        if not report.exists():
            raise SystemExit(f"{' '.join(command)} wrote no report; its exit status is {process.returncode}")
        (row,) = json.loads(report.read_text())["results"]
    runs = [{name: run[name] for name in ("verdict", "change", "control", "p", "detectable")} for run in row["runs"]]
    figures = {"exit_status": process.returncode, "seconds": round(seconds, 1), "runs": runs}
    return {"verdict": row["verdict"], "reason": row["reason"], **figures}


@contextmanager
def _neighbours(condition: str) -> Iterator[None]:
    """Two busy processes, if the condition is noisy."""
    processes = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(2 if condition == "noisy" else 0)]
    try:
        yield
        if any(process.poll() is not None for process in processes):
            raise SystemExit("a neighbour has died: what was recorded may not have been noisy")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> int:
    """Run one stage; the exit code of `resample` is 0 if every goal is reached, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("record", "real", "planted", "resample"))
    parser.add_argument("condition", nargs="?", choices=CONDITIONS, help="of every stage but resample")
    parser.add_argument("--launches", type=int, default=4 * LAUNCHES, help="of each backend in a record")
    parser.add_argument("--rounds", type=int, default=ROUNDS[EPOCH], help="epochs of each worker in a launch")
    parser.add_argument("--gates", type=int, help="real: in all, every second of the slowed build [10]; planted: of each place [4]")
    parser.add_argument("--draws", type=int, default=1000, help="resampled gates of each kind")
    parser.add_argument("--minutes", type=float, default=9, help="a stage stops after this time, to be continued")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "results" / "gate_study")
    parser.add_argument("--quick", action="store_true", help="a small trial, in build/gate_study")
    options = parser.parse_args()
    options.ab = []
    options.gates = options.gates or (4 if options.stage == "planted" else 10)
    if options.quick:
        options.launches, options.rounds, options.draws = 2 * LAUNCHES, 6, 100
        options.gates = 1 if options.stage == "planted" else 2
        options.folder, options.ab = ROOT / "build" / "gate_study", ["--launches", "7", "--rounds", "6"]
    if options.stage == "resample":
        return 0 if resample(options) else 1
    if options.condition is None:
        parser.error(f"{options.stage} needs a condition: quiet or noisy")
    {"record": record, "real": real, "planted": planted}[options.stage](options.condition, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
