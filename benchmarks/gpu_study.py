"""Every GPU figure, in stages of less than four minutes each: for whoever has a GPU for half an hour.

    python benchmarks/gpu_study.py --dry-run            # the plan
    python benchmarks/gpu_study.py                      # all of it
    python benchmarks/gpu_study.py --only probe,epochs  # some stages

Each stage leaves ``gpu_STAGE.json`` in the output folder, in the form of the result files of ``mlp-accel bench``, written again
after each row, so a stage that is cut short keeps what it has. Rows are known by backend and path, peers by their names. Needs
NumPy, threadpoolctl and CuPy; the peers need PyTorch and JAX, the stage ``tests`` what ``mlp-accel[test]`` installs; what is
missing makes its rows ``unavailable``, with the reason. Exit code 0: all that could run is right; 1: a result is wrong or a row
failed; 2: wrong usage; 3: no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [path for path in (str(HERE), str(HERE.parent)) if path not in sys.path]

from gpu_stages import ours, peers  # noqa: E402
from gpu_stages.rows import BATCH, LAYER_SIZES, LEARNING_RATE, Plan, finished_row, run  # noqa: E402

from mlp_accel.bench.result_files import SCHEMA  # noqa: E402
from mlp_accel.environment import environment  # noqa: E402
from mlp_accel.exit_codes import DIFFERENT, UNAVAILABLE, WRONG_USAGE  # noqa: E402
from mlp_accel.files import check_writable, write_json  # noqa: E402

STAGE_SECONDS = 220.0
"""Limit for the rows of a stage: starting and ending its last process included, it stays below four minutes."""

CLUSTERS = (2, 4, 8, 16)
NETWORKS = tuple(2**power for power in range(11))
HIDDEN = (32, 128, 512, 1024, 2048, 4096)
BATCHES = (32, 128, 512, 2048, 8192)


def path_rows(measure: Callable[..., dict[str, Any]], tf32: bool = True) -> list[Plan]:
    """One row for each way in which we train an epoch."""
    paths = ("loop", "steps", "graph", *(f"cluster:{size}" for size in CLUSTERS))
    rows = [cupy(path, measure) for path in paths]
    return [*rows, cupy("cluster:8", measure, "tf32", tf32=True)] if tf32 else rows


def cupy(path: str, measure: Callable[..., dict[str, Any]] = ours.times, variant: str = "", **arguments: Any) -> Plan:
    """A row of a path."""
    return Plan("cupy", measure, {"path": path, **arguments}, path=path, variant=variant)


def many_rows() -> list[Plan]:
    """K networks at once: in clusters of 8 blocks, and for some K of 2, of which more fit on the GPU but each takes longer."""
    rows = []
    for count in NETWORKS:
        for size in (8, 2) if count in (1, 64, 256, 1024) else (8,):
            rows.append(cupy(f"cluster:{size}", variant=f"k{count}", networks=count, epochs=5, reference=False))
    return rows


def peer_rows() -> list[Plan]:
    """The peers, and our fastest paths again, in one stage. The one that takes longest to start comes last."""
    rows = [cupy(f"cluster:{size}") for size in (8, 16)]
    settings: dict[str, dict[str, Any]] = {
        "torch-eager": {"peer": "torch", "style": "eager"},
        "torch-graphs": {"peer": "torch", "style": "graphs"},
        "torch-graphs-tf32": {"peer": "torch", "style": "graphs", "tf32": True},
        "jax-scan": {"peer": "jax"},
        "jax-scan-tf32": {"peer": "jax", "tf32": True},
        "torch-compile": {"peer": "torch", "style": "compile"},
    }
    return rows + [Plan(name, peers.times, given, "peer") for name, given in settings.items()]


def vmap_rows() -> list[Plan]:
    """JAX vmap over K networks, and our cluster path with the same K, in one stage."""
    rows = []
    for count in (1, 16, 64, 256, 1024):
        options: dict[str, Any] = {"networks": count, "epochs": 3}
        rows.append(Plan("jax-vmap", peers.times, {"peer": "jax", **options}, "peer", variant=f"k{count}"))
        rows.append(cupy("cluster:8", variant=f"k{count}", reference=False, **options))
    return rows


STAGES: dict[str, Callable[[], list[Plan]]] = {
    "probe": lambda: [Plan("cupy", ours.probe)],
    "tests": lambda: [Plan("cupy", ours.gpu_tests, {"timeout": STAGE_SECONDS - 10})],
    "parity": lambda: path_rows(ours.parity),
    "epochs": lambda: path_rows(ours.times),
    "many": many_rows,
    "peers": peer_rows,
    "vmap": vmap_rows,
    "map": lambda: [
        Plan("cupy", ours.op_map, {"hidden": hidden, "batches": BATCHES}, variant=f"hidden{hidden}") for hidden in HIDDEN
    ],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(STAGES), help=f"stages, of {', '.join(STAGES)}", metavar="STAGES")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the result files")
    options = parser.parse_args(arguments)
    stages = [name.strip() for name in options.only.split(",")]
    unknown = [name for name in stages if name not in STAGES]
    if unknown:
        say(f"unknown stage {unknown[0]!r} from --only; choose some of {', '.join(STAGES)}, separated by commas")
        return WRONG_USAGE
    if options.dry_run:
        for name in stages:
            say(plan_text(name, options.output))
        return 0
    for name in stages:
        check_writable(result_file(name, options.output))
    statuses = {row["status"] for name in stages for row in run_stage(name, options.output)["results"]}
    if statuses & {"failed", "mismatch"}:
        return DIFFERENT
    return 0 if "ok" in statuses else UNAVAILABLE


def run_stage(name: str, folder: Path) -> dict[str, Any]:
    """Measure the rows of a stage one after another, each in its own process, as long as there is time."""
    end = time.monotonic() + STAGE_SECONDS
    config = {"layer_sizes": list(LAYER_SIZES), "batch_size": BATCH, "learning_rate": LEARNING_RATE, "activation": "tanh"}
    config |= {"gradient": "exact", "optimizer": "sgd", "dtype": "float32", "stage": name, "data": "mnist"}
    result: dict[str, Any] = {"schema": SCHEMA, "environment": environment(), "config": config, "results": []}
    for plan in STAGES[name]():
        left = end - time.monotonic()
        row = run(plan, left) if left > 5 else finished_row(plan, "failed", "not begun: the time of the stage is up", {})
        result["results"].append(row)
        write_json(str(result_file(name, folder)), result)
        say(f"{name}: {summary_line(row)}")
    return result


def result_file(stage: str, folder: Path) -> Path:
    """Where the results of a stage go."""
    return folder / f"gpu_{stage}.json"


def plan_text(stage: str, folder: Path) -> str:
    """The rows that a stage will measure, as text."""
    rows = [f"    {plan.label}: {plan.measure.__module__}.{plan.measure.__name__}({_keywords(plan)})" for plan in STAGES[stage]()]
    return "\n".join([f"{stage}: at most {STAGE_SECONDS:.0f} s, {len(rows)} rows, to {result_file(stage, folder)}", *rows])


def _keywords(plan: Plan) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in plan.arguments.items())


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
    return " ".join(parts)


def say(text: str) -> None:
    """A line of output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
