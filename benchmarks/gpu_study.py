"""Every GPU figure, in the order in which one needs to know it, made so that no fault wastes the time of a GPU.

    python benchmarks/gpu_study.py --dry-run              # the plan: stages, their limits, and commands of at most nine minutes
    python benchmarks/gpu_study.py --dry-run --minutes 15 # the same for a quarter of an hour
    python benchmarks/gpu_study.py                        # all of it, in one command
    python benchmarks/gpu_study.py --only probe,epochs    # some stages
    python benchmarks/gpu_study.py --only epochs --rows cluster:8

A command leaves one result file, ``gpu_STAGES.json``, in the form of those of ``mlp-accel bench``, and beside it a log with all
that was printed. The file is there from the start and written anew at each row, so whenever a command is ended it says what was
done and what was not. Rows are measured in processes of their own: NaN, a crash, a hang, a missing package or a dead GPU context is
one row that is ``mismatch``, ``failed`` or ``unavailable``, with the reason, and the rest goes on. Needs NumPy, threadpoolctl and
CuPy; the peers need PyTorch and JAX, the stage ``tests`` pytest, the stage ``tools`` compute-sanitizer and ncu.

Exit code 0: all that could run is right; 1: a result is wrong or a row failed; 2: wrong usage; 3: no GPU.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [path for path in (str(HERE), str(HERE.parent)) if path not in sys.path]

from gpu_stages import device, ours, peers, tools  # noqa: E402
from gpu_stages.cases import BATCH, DEEP, FLOATS, LEARNING_RATE, MNIST, TABLE, Case  # noqa: E402
from gpu_stages.rows import Effort, Plan, finished_row, say  # noqa: E402
from gpu_stages.worker import Workers  # noqa: E402

from mlp_accel.bench.result_files import SCHEMA  # noqa: E402
from mlp_accel.environment import environment  # noqa: E402
from mlp_accel.exit_codes import DIFFERENT, UNAVAILABLE, WRONG_USAGE  # noqa: E402
from mlp_accel.files import check_writable, write_json  # noqa: E402

MINUTES = 25.0
COMMAND_SECONDS = 540.0
PLANNED_SHARE = 0.8
"""Of the minutes that one has, the stages take so much together. The rest is for starting machines, and for a second try."""

CLUSTERS = (8, 16, 4, 2)
NETWORKS = (1, 64, 256, 16, 1024, 128, 512, 8, 32, 2, 4)
VMAP = (64, 256, 1, 1024, 16)
HIDDEN = (32, 512, 128, 2048)
BATCHES = (128, 1024, 32, 8192)
"""Each in the order in which one needs to know it: what there is no time for are the last."""

Rows = list[Plan]


@dataclass(frozen=True)
class Stage:
    """Rows that answer one question.

    Attributes
    ----------
    asks : str
    seconds : float
        Limit for all rows together where the whole study has `MINUTES`, and in proportion where it has more or fewer. What a stage
        does not need is left to those after it.
    rows : callable
        Makes them, those first that one needs to know most.
    """

    asks: str
    seconds: float
    rows: Callable[[Effort, float], Rows]


def probe(effort: Effort, limit: float) -> Rows:
    """What the GPU is, and what launches and barriers cost."""
    rows = [Plan("cupy", device.describe, {"effort": effort}, variant="device", seconds=8)]
    rows.append(Plan("cupy", device.launches, {"effort": effort}, variant="launches", seconds=3))
    kinds = [("sends", size) for size in CLUSTERS] + [("cluster_barriers", size) for size in CLUSTERS] + [("block_barriers", 1)]
    for what, size in kinds:
        arguments = {"what": what, "cluster": size, "effort": effort}
        rows.append(Plan("cupy", device.exchange, arguments, variant=f"{what}:{size}", seconds=2, limit=20))
    return rows


def ways(measure: Callable[..., dict[str, Any]], effort: Effort) -> Rows:
    """One row for each way in which we train an epoch."""
    fast = [of_path(f"cluster:{size}", measure, effort) for size in CLUSTERS[:2]]
    others = [of_path(path, measure, effort) for path in ("graph", "loop", "cluster", "steps")]
    floats = [of_path(path, measure, effort, case) for case in (FLOATS, TABLE) for path in ("graph", "cluster")]
    rest = [of_path(f"cluster:{size}", measure, effort) for size in CLUSTERS[2:]]
    tf32 = [of_path(path, measure, effort, tf32=True) for path in ("cluster:8", "graph")]
    return [*fast, *others, *floats, *rest, of_path("graph", measure, effort, DEEP), *tf32]


def of_path(
    path: str, measure: Callable[..., dict[str, Any]], effort: Effort, case: Case = MNIST, *, tf32: bool = False, networks: int = 1
) -> Plan:
    """A row of a path."""
    variant = [str(case)] * (case is not MNIST) + ["tf32"] * tf32 + [f"k{networks}"] * (networks > 1)
    arguments: dict[str, Any] = {"path": path, "case": case, "tf32": tf32, "effort": effort}
    arguments |= {"networks": networks} if networks > 1 else {}
    return Plan("cupy", measure, arguments, path=path, variant=" ".join(variant))


def gpu_tests(effort: Effort, limit: float) -> Rows:
    """The tests that need a GPU: of the paths first, then all others."""
    of_paths = "tests/backends/cupy/test_gpu.py"
    rows = []
    for variant, arguments, share in (("paths", (of_paths,), 0.6), ("others", ("tests", f"--ignore={of_paths}"), 0.4)):
        seconds = share * limit - 6
        given: dict[str, Any] = {"arguments": arguments, "seconds": seconds}
        rows.append(Plan("cupy", tools.gpu_tests, given, variant=variant, seconds=share * limit, limit=seconds + 6))
    return rows


def many(effort: Effort, limit: float) -> Rows:
    """K networks at once: with the cluster that the path takes, and for some K with others."""
    rows = [of_path("cluster", ours.times, effort, networks=count) for count in NETWORKS]
    return rows + [of_path(f"cluster:{size}", ours.times, effort, networks=256) for size in (8, 4, 2, 16)]


def all_peers(effort: Effort, limit: float) -> Rows:
    """The peers, and our fastest path again, in one stage. The one that takes longest to start comes last."""
    rows = [of_path("cluster", ours.times, effort)]
    rows += [peer("torch-graphs", "graphs", effort), peer("torch-eager", "eager", effort), peer("jax-scan", "", effort)]
    for case in (FLOATS, TABLE):
        rows += [peer("torch-graphs", "graphs", effort, case), peer("jax-scan", "", effort, case)]
    rows += [peer("torch-compile", "compile", effort, limit=100)]
    return [*rows, peer("torch-graphs", "graphs", effort, tf32=True), peer("jax-scan", "", effort, tf32=True)]


def peer(
    name: str,
    style: str,
    effort: Effort,
    case: Case = MNIST,
    *,
    tf32: bool = False,
    networks: int = 1,
    limit: float = 60,
) -> Plan:
    """A row of a peer."""
    variant = [str(case)] * (case is not MNIST) + ["tf32"] * tf32 + [f"k{networks}"] * (name == "jax-vmap")
    arguments: dict[str, Any] = {"peer": name.partition("-")[0], "style": style, "tf32": tf32, "case": case}
    arguments |= {"networks": networks, "effort": effort}
    return Plan(name, peers.times, arguments, "peer", variant=" ".join(variant), seconds=18, limit=limit)


def vmap(effort: Effort, limit: float) -> Rows:
    """JAX vmap over K networks; our paths with the same K are in the stage `many`."""
    return [peer("jax-vmap", "", effort, networks=count) for count in VMAP]


def whole_map(effort: Effort, limit: float) -> Rows:
    """Which way is fastest, by size of the hidden layer and of the minibatch."""
    cells = [(hidden, batch) for batch in BATCHES for hidden in HIDDEN]
    return [
        Plan("cupy", ours.cell, {"hidden": hidden, "batch": batch, "effort": effort}, variant=f"{hidden}/{batch}", seconds=6)
        for hidden, batch in cells
    ]


def programs(effort: Effort, limit: float) -> Rows:
    """compute-sanitizer on two minibatches, and Nsight Compute."""
    rows = []
    for tool, path in (("memcheck", "cluster"), ("racecheck", "cluster"), ("memcheck", "graph"), ("synccheck", "cluster")):
        given = {"tool": tool, "path": path, "seconds": 50.0}
        rows.append(Plan("cupy", tools.sanitizer, given, path=path, variant=tool, seconds=15, limit=55))
        if tool == "racecheck":
            given = {"path": path, "kernel": "train", "seconds": 50.0}
            rows.append(Plan("cupy", tools.profile, given, path=path, variant="ncu", seconds=15, limit=55))
    return rows


STAGES = {
    "probe": Stage("What is this GPU, and what do launches and barriers cost?", 50, probe),
    "parity": Stage("Does each path compute what NumPy computes?", 110, lambda effort, limit: ways(ours.parity, effort)),
    "tests": Stage("Do the tests pass that need a GPU?", 240, gpu_tests),
    "epochs": Stage("How long does an epoch take, by each path?", 165, lambda effort, limit: ways(ours.times, effort)),
    "many": Stage("How many networks are trained in a second?", 145, many),
    "peers": Stage("How long do PyTorch and JAX take?", 210, all_peers),
    "vmap": Stage("How many networks does JAX train in a second?", 90, vmap),
    "map": Stage("Who is fastest, CPU or GPU, and does the rule for large layers hold?", 100, whole_map),
    "tools": Stage("Does compute-sanitizer find anything, and what does Nsight Compute say?", 90, programs),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; returns the exit code."""
    options = _parser().parse_args(arguments)
    names = [name.strip() for name in options.only.split(",")] if options.only else list(STAGES)
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        say(f"unknown stage {unknown[0]!r} from --only; choose some of {', '.join(STAGES)}, separated by commas")
        return WRONG_USAGE
    effort = Effort(options.seconds, options.samples)
    command = Command({name: plan(name, effort, options.minutes, options.rows) for name in names}, options.minutes)
    if not command.rows:
        say(f"no row has any of {options.rows!r} from --rows in its name; --dry-run lists them")
        return WRONG_USAGE
    if options.dry_run:
        say("\n".join(plan_text(command, options.minutes)))
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    statuses = {row["status"] for row in run(command, options.output / f"gpu_{name_of(names)}.json", effort)}
    if statuses & {"failed", "mismatch"}:
        return DIFFERENT
    return 0 if "ok" in statuses else UNAVAILABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"stages, of {', '.join(STAGES)}; by default all", metavar="STAGES")
    parser.add_argument(
        "--rows", default="", help="only rows with one of these in their names, as --dry-run prints them", metavar="TEXTS"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for the whole study; by default %(default)g")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the result file and the log")
    parser.add_argument("--seconds", type=float, default=Effort().seconds, help="of work for a figure; by default %(default)g")
    parser.add_argument("--samples", type=int, help="train on so many samples only: to try the study itself")
    return parser


def plan(name: str, effort: Effort, minutes: float, having: str = "") -> tuple[float, Rows]:
    """The limit of a stage in seconds, and its rows."""
    whole = sum(stage.seconds for stage in STAGES.values())
    limit = min(COMMAND_SECONDS, STAGES[name].seconds * PLANNED_SHARE * 60 * minutes / whole)
    return limit, [row for row in STAGES[name].rows(effort, limit) if any(text in row.label for text in having.split(","))]


@dataclass(frozen=True)
class Command:
    """Stages that are run one after another.

    Attributes
    ----------
    stages : dict
        Limit and rows by the name of the stage.
    """

    stages: dict[str, tuple[float, Rows]]
    minutes: float

    @property
    def rows(self) -> list[tuple[str, Plan]]:
        """All rows, each with the name of its stage."""
        return [(name, row) for name, (_, rows) in self.stages.items() for row in rows]

    @property
    def seconds(self) -> float:
        """Limit of all stages together."""
        return sum(limit for limit, _ in self.stages.values())


def run(command: Command, file: Path, effort: Effort) -> list[dict[str, Any]]:
    """Measure all rows as long as there is time; the finished ones."""
    log = file.with_suffix(".log")
    check_writable(file)
    log.write_text("", encoding="utf-8")
    results = {id(row): finished_row(row, "failed", "not begun: the command was ended before", {}) for _, row in command.rows}
    config = {"layer_sizes": list(MNIST.layer_sizes), "batch_size": BATCH, "learning_rate": LEARNING_RATE, "activation": "tanh"}
    config |= {"gradient": "exact", "optimizer": "sgd", "dtype": "float32", "data": "mnist", "stages": list(command.stages)}
    config |= {"minutes": command.minutes, "seconds_per_figure": effort.seconds, "samples": effort.samples}
    content: dict[str, Any] = {"schema": SCHEMA, "environment": environment(), "config": config}

    def keep(stage: str, plan: Plan, row: dict[str, Any]) -> None:
        results[id(plan)] = {**row, "stage": stage}
        write_json(str(file), {**content, "results": list(results.values())})

    before = signal.signal(signal.SIGTERM, _end)
    workers, end = Workers(log), time.monotonic()
    try:
        for stage, (limit, rows) in command.stages.items():
            end += limit
            for row in rows:
                keep(stage, row, finished_row(row, "failed", "begun, and the command was ended in it", {}))
                begin = time.monotonic()
                finished = workers.run(row, end - begin)
                keep(stage, row, {**finished, "row_seconds": round(time.monotonic() - begin, 2)})
                tell(f"{stage}: {summary_line(results[id(row)])}", log)
    finally:
        workers.end()
        signal.signal(signal.SIGTERM, before)
    tell(f"{file}\n{log}", log)
    return list(results.values())


def _end(*_: object) -> NoReturn:
    """On SIGTERM: leave by the `finally` of `run`."""
    raise SystemExit(128 + signal.SIGTERM)


def name_of(stages: Sequence[str]) -> str:
    """What the files of a command are called after."""
    return "study" if list(stages) == list(STAGES) else "-".join(stages)


def plan_text(command: Command, minutes: float) -> list[str]:
    """Stages, rows and commands, in lines."""
    lines = []
    for name, (limit, rows) in command.stages.items():
        lines.append(f"{name}: at most {limit:.0f} s, about {sum(row.seconds for row in rows):.0f} s. {STAGES[name].asks}")
        expected = 0.0
        for row in rows:
            expected += row.seconds
            late = "" if expected <= limit else ", if there is time"
            lines.append(f"    {row.label}: {row.measure.__module__}.{row.measure.__name__}, about {row.seconds:.0f} s{late}")
    groups: list[dict[str, float]] = [{}]
    for name, (limit, _) in command.stages.items():
        if sum(groups[-1].values()) + limit > COMMAND_SECONDS:
            groups.append({})
        groups[-1][name] = limit
    lines.append(f"in all at most {command.seconds / 60:.1f} of {minutes:g} minutes, in {len(groups)} commands:")
    for group in groups:
        at_most = f"at most {sum(group.values()) / 60:.1f} min"
        lines.append(
            f"    python benchmarks/gpu_study.py --minutes {minutes:g} --only {','.join(group)} --output DIR   # {at_most}"
        )
    return lines


def summary_line(row: dict[str, Any]) -> str:
    """What became of a row, in a line."""
    parts = [*filter(None, (row["name"], row["path"], row["variant"])), row["status"]]
    if row["reason"]:
        parts.append(f"({row['reason']})")
    for key, label in (("epoch_seconds", "wall"), ("device_seconds", "device")):
        if row.get(key):
            parts.append(f"{label} {row[key]['median'] * 1000:.3f} ms")
    if row.get("networks", 1) > 1 and row["status"] == "ok":
        parts.append(f"{row['model_epochs_per_second']:,.0f} model epochs/s")
    for key in ("alone_seconds", "launch_seconds", "graph_node_seconds"):
        if row.get(key):
            parts.append(f"{key.removesuffix('_seconds')} {row[key] * 1e6:.2f} us")
    if "fastest" in row:
        on_gpu = f"on the GPU {row['fastest_on_gpu']}; the rule takes {row['rule']} (x {row['rule_costs']:.2f})"
        parts.append(f"{row['fastest']} is fastest, {on_gpu}")
    if "tests" in row:
        parts.append(str(row["tests"]))
    return " ".join(parts)


def tell(text: str, log: Path) -> None:
    """A line of output, in the log, too."""
    say(text)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
