"""Result files of older versions are read as what they are: a path keeps its name, and another loop is another path."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mlp_accel.bench.comparison import compare
from mlp_accel.bench.output.figures import plot_bench
from mlp_accel.bench.output.html import report
from mlp_accel.bench.result_files import SCHEMA, label, read_result, up_to_date

FILE = Path(__file__).parent.parent / "data" / "bench_schema_1.json"
"""As version 1 wrote it."""

OLD: dict[str, Any] = json.loads(FILE.read_text())


def test_a_file_of_schema_1_is_brought_up_to_date() -> None:
    assert OLD["schema"] == 1
    result = read_result(FILE)
    assert result["schema"] == SCHEMA
    assert [label(row) for row in result["results"]] == ["numpy fused", "numba sparse", "cupy", "numpy-handwritten"]
    peer = result["results"][-1]
    assert (peer["path"], peer["form"]) == (None, "hand-written loop")
    config = result["config"]
    assert (config["path"], config["optimizer"], config["momentum"], config["weight_decay"]) == (None, "sgd", None, 0.0)
    assert "fused" not in config
    assert up_to_date(result) is result


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("ops", "loop"),
        ("fused epoch skipping zero pixels", "sparse"),
        ("fused loop", "fused"),
        ("cluster of 8", "cluster"),
        ("graph of fused steps", "graph"),
        ("graph of fused steps; not cluster: no room", "graph"),
        ("fused steps", "steps"),
        ("something unheard of", "something unheard of"),
        (None, None),
    ],
)
def test_the_sentences_of_schema_1_have_names(text: str | None, path: str | None) -> None:
    old = {**OLD, "results": [{**OLD["results"][0], "path": text}]}
    assert up_to_date(old)["results"][0]["path"] == path


def test_without_fused_epochs_all_were_restricted_to_the_loop() -> None:
    assert up_to_date({**OLD, "config": {**OLD["config"], "fused": False}})["config"]["path"] == "loop"


def renewed() -> dict[str, Any]:
    """What this version would write of the same machine: another loop of NumPy, and two rows of Numba."""
    result = copy.deepcopy(up_to_date(OLD))
    numpy, numba, *others = result["results"]
    numpy["path"] = "loop"
    return {**result, "results": [numpy, {**numba, "path": "loop"}, numba, *others]}


def test_an_old_file_is_compared_path_by_path_with_a_new_one() -> None:
    comparison = compare(read_result(FILE), renewed())
    ratios = {label(row): row["ratio"] for row in comparison["results"]}
    missing = {"numpy fused": None, "numpy loop": None, "numba loop": None, "cupy": None}
    assert ratios == {"numba sparse": 1, "numpy-handwritten": 1, **missing}
    assert comparison["not_ranked"] is None
    assert comparison["config_differences"] == []
    reasons = {label(row): row["reason"] for row in comparison["results"]}
    assert (reasons["numpy fused"], reasons["numpy loop"]) == ("in B no row", "in A no row")


def with_extras() -> dict[str, Any]:
    cells = [{"value": value, "results": [{**row, "samples_per_second": None} for row in OLD["results"]]} for value in (32, 128)]
    until = [{**row, "seconds": row["epoch_seconds"], "epochs": [1]} for row in OLD["results"]]
    for row in until:
        row.pop("path", None)
    ops = [{"op": "dense", "flops": 1e6, "bytes": 1e5, "seconds": 1e-4}]
    return {
        **OLD,
        "sweeps": [{"parameter": "hidden", "cells": cells, "crossovers": []}],
        "until": {"accuracy": 0.9, "seeds": [0], "max_epochs": 50, "results": until},
        "roofline": [{"name": "numpy", "peak_flops": 1e11, "bandwidth": 1e10, "ops": ops}],
        "reference": OLD["results"][0],
    }


def test_every_part_of_an_old_file_is_brought_up_to_date_and_can_be_shown() -> None:
    result = up_to_date(with_extras())
    assert [label(row) for row in result["until"]["results"]] == [label(row) for row in result["results"]]
    assert {label(row) for cell in result["sweeps"][0]["cells"] for row in cell["results"]} >= {"numba sparse"}
    assert label(result["reference"]) == "numpy fused"
    page = report(with_extras())
    assert "numba sparse" in page
    assert [text.get_text() for text in plot_bench(with_extras()).axes[0].get_yticklabels()][:2] == ["numpy fused", "numba sparse"]
