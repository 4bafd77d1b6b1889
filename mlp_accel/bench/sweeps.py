"""Speed against batch size or hidden width: the whole protocol at each value, and where one engine overtakes another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

from mlp_accel.bench.engines.engine import CALL_TIMEOUT
from mlp_accel.bench.protocol import run_benchmark
from mlp_accel.bench.result_files import label
from mlp_accel.bench.runs import Listener
from mlp_accel.errors import SettingError

PARAMETERS = {"batch_size": "batch size", "hidden": "hidden units"}
"""What can be swept, and what people call it."""


def check_values(parameter: str, values: Sequence[int], n_train: int) -> None:
    """Refuse values that cannot be swept.

    Raises
    ------
    SettingError
        For fewer than two different values, one below 1, or a batch larger than the training set.
    """
    option = f"--sweep-{parameter.partition('_')[0]}"
    if len(set(values)) < 2 or min(values) < 1:
        raise SettingError(f"{option} needs two or more different positive numbers; got {','.join(map(str, values))}")
    if parameter == "batch_size" and max(values) > n_train:
        raise SettingError(f"{option}: {max(values)} is more than the {n_train} training samples")


def changed(config: dict[str, Any], parameter: str, value: int) -> dict[str, Any]:
    """`config` at one value of a sweep; a hidden width is that of every hidden layer."""
    if parameter == "batch_size":
        return {**config, "batch_size": value}
    n_in, *hidden, n_classes = config["layer_sizes"]
    return {**config, "layer_sizes": [n_in, *[value] * len(hidden), n_classes]}


def run_sweep(
    names: Sequence[str],
    config: dict[str, Any],
    epochs: int,
    parameter: str,
    values: Sequence[int],
    listen: Listener = lambda _: None,
    timeout: float = CALL_TIMEOUT,
) -> dict[str, Any]:
    """Measure epoch times at several values of a setting.

    Parameters
    ----------
    parameter : {"batch_size", "hidden"}
    values : sequence of int
        In rising order each is a benchmark of its own.

    The others are those of `run_benchmark`.

    Returns
    -------
    dict
        ``parameter``, ``cells``: for each value its ``results`` and ``no_faster_path``, ``crossovers``, and ``interrupted`` if
        Ctrl-C ended it early.
    """
    sweep: dict[str, Any] = {"parameter": parameter, "cells": []}
    for value in sorted(set(values)):
        listen(f"{PARAMETERS[parameter]} {value}:")
        result = run_benchmark(names, changed(config, parameter, value), epochs, listen, timeout)
        cell = {"value": value, "results": with_speed(result["results"], config["n_train"])}
        sweep["cells"].append({**cell, "no_faster_path": result["no_faster_path"]})
        if result.get("interrupted"):
            sweep["interrupted"] = True
            break
    found = crossovers(sweep["cells"])
    for crossing in found:
        crossing["samples_per_second"] = config["n_train"] / crossing["seconds"]
    return {**sweep, "crossovers": found}


def with_speed(rows: Sequence[dict[str, Any]], n_train: int) -> list[dict[str, Any]]:
    """Each row with its ``samples_per_second``, from the median epoch."""

    def speed(row: dict[str, Any]) -> float | None:
        return n_train / row["epoch_seconds"]["median"] if row["epoch_seconds"] else None

    return [{**row, "samples_per_second": speed(row)} for row in rows]


def crossovers(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where one engine becomes faster than another, between two neighbouring values; log-log straight lines are assumed.

    Parameters
    ----------
    cells : sequence of dict
        ``value`` and ``results``, in rising order of the value.

    Returns
    -------
    list of dict
        ``value``, ``seconds`` an epoch, ``faster_below`` and ``faster_above``, labels of engines, and ``shown``: whether the two
        are backends or the fastest of all there.
    """
    found = []
    backends = {label(row) for cell in cells for row in cell["results"] if row["kind"] == "backend"}
    for before, after in pairwise(cells):
        first, last = _medians(before), _medians(after)
        for a, b in combinations([name for name in first if name in last], 2):
            left, right = math.log(first[a] / first[b]), math.log(last[a] / last[b])
            if left * right < 0:
                share = left / (left - right)
                value = before["value"] * (after["value"] / before["value"]) ** share
                seconds = first[a] * (last[a] / first[a]) ** share
                below, above = (a, b) if left < 0 else (b, a)
                others = [
                    first[name] * (last[name] / first[name]) ** share for name in first if name in last and name not in (a, b)
                ]
                shown = {a, b} <= backends or seconds <= min(others, default=math.inf)
                crossing = {"value": value, "seconds": seconds, "faster_below": below, "faster_above": above, "shown": shown}
                found.append(crossing)
    return found


def _medians(cell: dict[str, Any]) -> dict[str, float]:
    return {label(row): row["epoch_seconds"]["median"] for row in cell["results"] if row["epoch_seconds"]}
