"""Result files of older versions are read as what they are: a path keeps its name, and another loop is another path."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from mlp_accel.bench.comparison import compare
from mlp_accel.bench.config import Config
from mlp_accel.bench.output.figures import plot_bench
from mlp_accel.bench.output.html import report
from mlp_accel.bench.result_files import SCHEMA, ResultFileError, read_result, result_of, up_to_date
from mlp_accel.bench.results import Result, Run

FILE = Path(__file__).parent.parent / "data" / "bench_schema_1.json"
"""As version 1 wrote it."""

OLD: dict[str, Any] = json.loads(FILE.read_text())


def test_a_file_of_schema_1_is_brought_up_to_date() -> None:
    assert OLD["schema"] == 1
    result = read_result(FILE)
    assert result.schema == SCHEMA
    assert [run.label for run in result.results] == ["numpy fused", "numba sparse", "cupy", "numpy-handwritten"]
    peer = result.results[-1]
    assert (peer.path, peer.form) == (None, "hand-written loop")
    config = result.config
    assert (config.path, config.optimizer, config.momentum, config.weight_decay) == (None, "sgd", None, 0.0)
    assert "fused" not in config.to_dict()
    current = up_to_date(OLD)
    assert up_to_date(current) is current


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


def renewed() -> Result:
    """What this version would write of the same machine: another loop of NumPy, and two rows of Numba."""
    result = read_result(FILE)
    numpy, numba, *others = result.results
    return replace(result, results=(replace(numpy, path="loop"), replace(numba, path="loop"), numba, *others))


def test_an_old_file_is_compared_path_by_path_with_a_new_one() -> None:
    comparison = compare([read_result(FILE)], [renewed()])
    ratios = {row.label: row.ratio for row in comparison.results}
    missing = {"numpy fused": None, "numpy loop": None, "numba loop": None, "cupy": None}
    assert ratios == {"numba sparse": 1, "numpy-handwritten": 1, **missing}
    assert "different" not in str(comparison.not_ranked)
    assert comparison.config_differences == ()
    reasons = {row.label: row.reason for row in comparison.results}
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
    result = result_of(with_extras())
    (until,) = result.until
    assert result.reference
    assert (until.config, until.with_preparation) == (None, False)
    assert [race.label for race in until.results] == [run.label for run in result.results]
    assert {run.label for cell in result.sweeps[0].cells for run in cell.results} >= {"numba sparse"}
    assert result.reference.label == "numpy fused"
    page = report(result_of(with_extras()))
    assert "numba sparse" in page
    assert "Seconds of training to 90.00% on the test set" in page, "an old time begins with the first epoch"
    assert [text.get_text() for text in plot_bench(result_of(with_extras())).axes[0].get_yticklabels()][:2] == [
        "numpy fused",
        "numba sparse",
    ]


# What is read is what is written ----------------------------------------------------------------------------------------------

CURRENT = Path(__file__).parents[2] / "benchmarks" / "results" / "bench.json"


def test_a_file_that_is_read_and_written_is_the_same() -> None:
    content = json.loads(CURRENT.read_text())
    assert content["schema"] == SCHEMA
    written = read_result(CURRENT).to_dict()
    assert written == content
    assert json.dumps(written) == json.dumps(content), "the order of the fields too"


@pytest.mark.parametrize("content", [OLD, with_extras()], ids=["results", "every part"])
def test_a_file_of_schema_1_is_written_as_one_of_this_schema(content: dict[str, Any]) -> None:
    assert result_of(content).to_dict() == up_to_date(content)
    assert result_of(result_of(content).to_dict()) == result_of(content)


def test_what_this_version_does_not_know_or_a_file_does_not_have_is_written_as_it_was() -> None:
    row = {"name": "cupy", "path": "graph", "status": "ok", "epoch_seconds": None, "variant": "k64", "device_seconds": {"min": 1}}
    content = {"schema": SCHEMA, "environment": {}, "config": {"stage": "many"}, "results": [row]}
    result = result_of(content)
    assert result.to_dict() == content
    assert (result.config.batch_size, result.results[0].kind) == (128, "backend"), "defaults"
    assert replace(result, config=replace(result.config, batch_size=32)).to_dict()["config"] == {"stage": "many", "batch_size": 32}


def test_a_result_cannot_be_changed() -> None:
    result = read_result(CURRENT)
    with pytest.raises(FrozenInstanceError):
        result.results[0].status = "ok"  # type: ignore[misc]


def test_a_new_row_leaves_out_what_its_worker_did_not_say() -> None:
    row = Run(name="cupy", status="unavailable", reason="no device").to_dict()
    assert not Run.OPTIONAL & row.keys()
    assert row["epoch_seconds"] is None
    assert {"interrupted", "sweeps", "until"}.isdisjoint(Result(environment={}, config=Config(), results=()).to_dict())


@pytest.mark.parametrize(
    "part", [{"sweeps": [{}]}, {"until": {"accuracy": 0.9}}, {"roofline": 3}, {"reference": 3}, {"no_faster_path": [3]}], ids=str
)
def test_a_part_that_is_not_what_it_should_be_is_no_crash(tmp_path: Path, part: dict[str, Any]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"schema": SCHEMA, "environment": {}, "config": {}, "results": [], **part}))
    with pytest.raises(ResultFileError, match=r"a\.json"):
        read_result(path)
