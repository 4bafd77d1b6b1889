"""A column is declared once, and every output has it."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from mlp_accel.bench.output import columns
from mlp_accel.bench.output.columns import COLUMNS, EVERYWHERE, Column, Output, cells, columns_of
from mlp_accel.bench.output.html import report
from mlp_accel.bench.output.tables import bench_table, path_lines
from mlp_accel.bench.result_files import read_result
from mlp_accel.bench.results import Result, Run
from tests.bench.conftest import there, times

ROOT = Path(__file__).parents[2]


@pytest.fixture
def result() -> Result:
    return read_result(ROOT / "benchmarks" / "results" / "bench.json")


@pytest.fixture
def readme() -> ModuleType:
    """The script that writes the figures of the README."""
    spec = there(importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py"))
    module = importlib.util.module_from_spec(spec)
    there(spec.loader).exec_module(module)
    return module


def markdown(readme: ModuleType) -> list[list[str]]:
    """The cells of the table in the README."""
    lines = [line for line in readme.epoch_times().splitlines() if line.startswith("|")]
    return [line.strip("| ").split(" | ") for line in lines if not line.startswith("|---")]


def test_a_column_that_is_declared_is_in_every_output(monkeypatch: pytest.MonkeyPatch, result: Result, readme: ModuleType) -> None:
    new = Column(key="test_loss", heading="test\nloss", title="loss on the test set", text="{:.5f}".format, unit="nats")
    monkeypatch.setattr(columns, "COLUMNS", (COLUMNS[0], new, *COLUMNS[1:]))
    values = [f"{run.test_loss:.5f}" for run in result.results if run.epoch_seconds]
    dashes = sum(run.epoch_seconds is None for run in result.results)
    table = bench_table(result)
    assert table.columns[2].header == "test\nloss"
    assert [str(cell) for cell in table.columns[2].cells if cell != "–"] == values
    page = report(result)
    assert "<th>test loss nats</th>" in page
    assert re.findall(rf"<td>({'|'.join(values)})</td>", page) == values
    headings, *rows = markdown(readme)
    assert headings[2] == "loss on the test set"
    assert [row[2] for row in rows] == [*values[:3], *["–"] * dashes, *values[3:]]


def test_every_row_has_every_column_whether_it_has_times_or_not(result: Result, readme: ModuleType) -> None:
    assert {run.epoch_seconds is None for run in result.results} == {True, False}
    assert {len(column._cells) for column in bench_table(result).columns} == {len(result.results)}
    assert len({len(row) for row in markdown(readme)}) == 1
    (table, *_) = re.findall(r"<table>.*?</table>", report(result))
    rows = table.split("<tr>")[1:]
    spanned = [sum(int(span or 1) for span in re.findall(r'<t[hd](?:[^>]*?colspan="(\d+)")?[^>]*>', row)) for row in rows]
    assert set(spanned) == {1 + len(columns_of(Output.HTML))}


@pytest.mark.parametrize("output", list(EVERYWHERE))
def test_an_engine_without_times_says_why_in_one_column(result: Result, output: Output) -> None:
    row = cells(Run(name="cupy", status="failed"), result, output, "failed: no device")
    assert row.count("failed: no device") == 1
    assert set(row) == {"failed: no device", "–"}


def test_what_is_not_known_is_a_dash(result: Result) -> None:
    run = replace(result.results[0], test_accuracy=None, cores_used=None, loss=(None,))
    row = dict(zip([column.key for column in columns_of(Output.HTML)], cells(run, result, Output.HTML, "ok"), strict=True))
    assert (row["test_accuracy"], row["cores_used"], row["loss"]) == ("–", "–", "–")


def test_a_speed_is_that_of_the_reference_even_if_it_is_not_shown(result: Result) -> None:
    (column,) = [column for column in COLUMNS if column.compared]
    numpy, *others = result.results
    assert column.cell(numpy, result) == "1.00"
    hidden = replace(result, results=tuple(others), reference=numpy)
    expected = times(numpy).median / times(others[0]).median
    assert column.cell(others[0], hidden) == column.cell(others[0], result) == f"{expected:.2f}"
    assert column.cell(others[0], replace(hidden, reference=None)) == "–"


def test_every_column_is_a_field_of_the_json_file(result: Result) -> None:
    run = replace(result.results[0], first_start_seconds=1.5, absent=frozenset())
    for column in COLUMNS:
        value = run.to_dict()
        for name in column.key.split("."):
            value = value[name]
        assert value is not None


def test_a_run_whose_threads_rested_more_often_than_once_an_epoch_says_so(result: Result) -> None:
    run = next(run for run in result.results if run.path == "sparse")
    epochs = len(times(run).samples)
    for rests, said in ((epochs, False), (epochs + 1, True)):
        lines = path_lines(replace(result, results=(replace(run, rests=rests),)))
        assert (f"{run.label}: the machine was crowded, its threads rested {rests} times" in lines) == said
