"""Two results of `mlp-accel bench` side by side: first what differs around them, then the ratios of their times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlp_accel.bench.protocol import MIN_EPOCHS
from mlp_accel.bench.result_files import SCHEMA

MACHINE = ("cpu", "cores", "cgroup_cores", "simd_bits", "gpu")
"""Fields of the environment that tell machines apart."""

WORK = ("layer_sizes", "activation", "gradient", "optimizer", "momentum", "weight_decay", "dtype", "batch_size", "data")
"""Settings that say what is computed; the others say how."""

ALWAYS_DIFFERENT = ("date", "load_before")
RESAMPLES, SEED = 9999, 0

Difference = tuple[str, Any, Any]


def compare(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Compare two results as `read_result` gives them.

    Returns
    -------
    dict
        ``environment_differences`` and ``config_differences``: lists of ``[field, in a, in b]``; ``not_ranked``: why no verdicts
        are given, or None; ``results``: for each engine ``name``, ``path``, ``reason`` (why it has no ratio), ``seconds`` (the
        medians), ``ratio`` (of the medians, b / a), ``interval`` (95 %, bootstrap) and ``verdict`` (None if not ranked).
    """
    environment = differences(a["environment"], b["environment"], ignore=ALWAYS_DIFFERENT)
    config = differences(a["config"], b["config"])
    not_ranked = _not_comparable(a, b)
    rows_a, rows_b = ({(row["name"], row.get("path")): row for row in result["results"]} for result in (a, b))
    rows = [_compare_rows(key, rows_a.get(key), rows_b.get(key)) for key in dict.fromkeys([*rows_a, *rows_b])]
    for row in rows:
        row["verdict"] = _verdict(row["interval"]) if row["interval"] and not not_ranked else None
    return {
        "schema": SCHEMA,
        "environment_differences": environment,
        "config_differences": config,
        "not_ranked": not_ranked,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "results": rows,
    }


def differences(a: dict[str, Any], b: dict[str, Any], ignore: Sequence[str] = ()) -> list[Difference]:
    """Fields in which two objects differ, those of nested objects with dotted names; a missing one counts as None."""
    found: list[Difference] = []
    for name in dict.fromkeys([*a, *b]):
        one, other = a.get(name), b.get(name)
        if name in ignore or one == other:
            continue
        if isinstance(one, dict) or isinstance(other, dict):
            inner = differences(one if isinstance(one, dict) else {}, other if isinstance(other, dict) else {})
            found += [(f"{name}.{key}", *values) for key, *values in inner]
        else:
            found.append((name, one, other))
    return found


def ratio_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """95 % interval of ``median(b) / median(a)``: percentile bootstrap (B. Efron, "Bootstrap methods", Ann. Stat. 7, 1979).

    It covers the spread within the two runs; what changed on the machine between them it cannot know.
    """
    rng = np.random.default_rng(SEED)
    medians = [np.median(rng.choice(samples, (RESAMPLES, len(samples))), axis=1) for samples in (np.array(a), np.array(b))]
    low, high = np.percentile(medians[1] / medians[0], [2.5, 97.5])
    return float(low), float(high)


def _not_comparable(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """Why the times of two results say nothing about the code."""
    known = [name for name in MACHINE if name in a["environment"] and name in b["environment"]]  # an older file says less
    if machine := [name for name in known if a["environment"][name] != b["environment"][name]]:
        return f"different machines ({', '.join(machine)}): their ratios tell of the machines, not of the code"
    if work := [name for name in WORK if a["config"].get(name) != b["config"].get(name)]:
        return f"different work ({', '.join(work)}): their ratios tell of the work, not of the code"
    return None


def _compare_rows(key: tuple[str, str | None], a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": key[0], "path": key[1], "reason": None, "seconds": [None, None], "ratio": None}
    row["interval"] = None
    reasons: dict[str, str] = {}
    for index, (label, side) in enumerate((("A", a), ("B", b))):
        if side is None:
            reasons[label] = "no row"
        elif side["status"] != "ok" or not side["epoch_seconds"]:
            reasons[label] = f"{side['status']}: {side.get('reason')}"
        else:
            row["seconds"][index] = float(np.median(side["epoch_seconds"]["samples"]))
    if a is None or b is None or reasons:
        same = len(reasons) == 2 and reasons["A"] == reasons["B"]
        parts = [f"in A and B {reasons['A']}"] if same else [f"in {label} {reason}" for label, reason in reasons.items()]
        return row | {"reason": "; ".join(parts)}
    samples = a["epoch_seconds"]["samples"], b["epoch_seconds"]["samples"]
    row["ratio"] = row["seconds"][1] / row["seconds"][0]
    if min(map(len, samples)) < MIN_EPOCHS:
        return row | {"reason": f"fewer than {MIN_EPOCHS} epochs: no interval, no verdict"}
    return row | {"interval": ratio_interval(*samples)}


def _verdict(interval: tuple[float, float]) -> str:
    low, high = interval
    return "B is slower" if low > 1 else "B is faster" if high < 1 else "no difference seen"
