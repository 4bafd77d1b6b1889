"""Comparing result files: what differs comes first, and nothing is ranked that cannot be."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_accel.bench.comparison import FASTER, NO_DIFFERENCE, SLOWER, Comparison, compare, differences
from mlp_accel.bench.result_files import SCHEMA, ResultFileError, read_result, result_of
from mlp_accel.bench.results import Result
from tests.bench.conftest import there

RESULT: dict[str, Any] = {
    "schema": SCHEMA,
    "environment": {"date": "today", "cpu": "a CPU", "cores": 2, "numpy": "2.0", "load_before": [0.1], "variables": {"A": "1"}},
    "config": {"layer_sizes": [784, 32, 10], "batch_size": 128, "data": "mnist", "threads": 2},
    "results": [
        {
            "name": "numpy",
            "path": "loop",
            "status": "ok",
            "reason": None,
            "epoch_seconds": {"samples": [1.0, 1.1, 1.2, 1.05, 1.15, 1.1]},
        },
        {"name": "cupy", "path": None, "status": "unavailable", "reason": "no device", "epoch_seconds": None},
    ],
}


def changed(**fields: Any) -> dict[str, Any]:
    """The result with other fields in its environment or config, and times that are three times as long."""
    result = copy.deepcopy(RESULT)
    for name, value in fields.items():
        result["config" if name in ("batch_size", "threads") else "environment"][name] = value
    result["results"][0]["epoch_seconds"]["samples"] = [3 * s for s in RESULT["results"][0]["epoch_seconds"]["samples"]]
    return result


def compared(a: dict[str, Any], b: dict[str, Any]) -> Comparison:
    return compare([result_of(a)], [result_of(b)])


def runs(rng: np.random.Generator, n: int, times: dict[str, float], spread: float = 0.01) -> list[Result]:
    """Results of `n` runs that differ from each other: of each engine the median epoch, and what runs differ by."""
    found = []
    for _ in range(n):
        rows = []
        for name, seconds in times.items():
            samples = list(seconds * np.exp(spread * rng.normal()) * np.exp(0.001 * rng.normal(size=5)))
            rows.append({**RESULT["results"][0], "name": name, "epoch_seconds": {"samples": samples}})
        found.append(result_of({**RESULT, "results": rows}))
    return found


def test_one_file_a_side_has_a_ratio_and_no_verdict() -> None:
    comparison = compared(RESULT, changed())
    numpy, cupy = comparison.results
    assert numpy.ratio == pytest.approx(3)
    assert (numpy.interval, numpy.p, numpy.verdict) == (None, None, None)
    assert "the spread between runs is unknown" in str(comparison.not_ranked)
    assert (cupy.ratio, cupy.verdict, cupy.reason) == (None, None, "in A and B unavailable: no device")
    assert not comparison.environment_differences
    assert not comparison.config_differences


def test_the_slower_one_is_named_whichever_comes_first() -> None:
    rng = np.random.default_rng(0)
    a, b = runs(rng, 5, {"numpy": 1.0, "numba": 1.0}), runs(rng, 5, {"numpy": 1.1, "numba": 1.0})
    numpy, numba = compare(a, b).results
    assert (numpy.verdict, numba.verdict) == (SLOWER, NO_DIFFERENCE)
    low, high = there(numpy.interval)
    assert low < there(numpy.ratio) < high
    assert 1.05 < low < 1.1 < high < 1.15
    assert numpy.is_slower(0.05)
    assert not numpy.is_slower(0.15), "it is slower, but not by as much"
    assert [row.verdict for row in compare(b, a).results] == [FASTER, NO_DIFFERENCE]


def test_too_few_files_say_how_many_it_takes() -> None:
    rng = np.random.default_rng(0)
    for n_a, n_b in ((2, 2), (4, 4), (3, 5)):
        comparison = compare(runs(rng, n_a, {"numpy": 1.0}), runs(rng, n_b, {"numpy": 9.0}))
        assert f"{n_a} and {n_b} files can never reach p < 0.01" in str(comparison.not_ranked)
        assert "give 5 on each side" in str(comparison.not_ranked)
        assert there(comparison.results[0].interval)[0] > 1
        assert comparison.results[0].verdict is None


def test_an_engine_that_lacks_a_file_has_a_ratio_but_no_verdict() -> None:
    rng = np.random.default_rng(0)
    a, b = runs(rng, 5, {"numpy": 1.0, "numba": 1.0}), runs(rng, 5, {"numpy": 2.0, "numba": 2.0})
    lost = replace(b[0].results[1], status="failed", reason="it crashed", epoch_seconds=None)
    b[0] = replace(b[0], results=(b[0].results[0], lost))
    numpy, numba = compare(a, b).results
    assert (numpy.verdict, numba.verdict) == (SLOWER, None)
    assert there(numba.ratio) == pytest.approx(2, rel=0.1)
    assert numba.reason == "in 1 of 5 files of B failed: it crashed"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("cpu", "another CPU", "different machines (cpu)"),
        ("cores", 64, "different machines (cores)"),
        ("gpu", ["NVIDIA H100, 81559 MiB, driver 580.1"], "different machines (gpu)"),
        ("host", "the other one", "different machines (host)"),
        ("batch_size", 32, "different work (batch_size)"),
    ],
)
def test_what_cannot_be_compared_is_not_ranked_and_says_so(field: str, value: Any, reason: str) -> None:
    comparison = compared(labelled(RESULT), labelled(changed(**{field: value})))
    assert (comparison.not_ranked or "").startswith(reason)
    assert comparison.results[0].ratio == pytest.approx(3)
    assert comparison.results[0].verdict is None


def labelled(result: dict[str, Any]) -> dict[str, Any]:
    """The result, of a machine with a GPU and a label."""
    known = {"gpu": ["NVIDIA H200, 143771 MiB, driver 570.86.15"], "host": "this one"}
    return {**result, "environment": {**known, **result["environment"]}}


def test_a_new_driver_makes_no_other_machine() -> None:
    renewed = changed(gpu=["NVIDIA H200, 143771 MiB, driver 580.1"])
    comparison = compared(labelled(RESULT), labelled(renewed))
    assert "different machines" not in str(comparison.not_ranked)
    assert [name for name, *_ in comparison.environment_differences] == ["gpu"]


def test_files_of_one_side_are_of_one_machine_too() -> None:
    comparison = compare([result_of(RESULT), result_of(changed(cpu="another CPU"))], [result_of(RESULT)])
    assert str(comparison.not_ranked).startswith("different machines (cpu)")
    assert comparison.environment_differences == (("cpu", ["a CPU", "another CPU"], ["a CPU"]),)


def test_software_and_threads_differ_but_can_be_ranked() -> None:
    comparison = compared(RESULT, changed(numpy="3.0", variables={"B": "2"}, threads=1, date="tomorrow", load_before=[9]))
    assert comparison.environment_differences == (
        ("numpy", ["2.0"], ["3.0"]),
        ("variables.A", ["1"], [None]),
        ("variables.B", [None], ["2"]),
    )
    assert comparison.config_differences == (("threads", [2], [1]),)
    assert "different" not in str(comparison.not_ranked)


def test_an_engine_that_only_one_of_them_has_keeps_its_row() -> None:
    other = copy.deepcopy(RESULT)
    other["results"][0]["name"] = "numba"
    rows = {row.name: row for row in compared(RESULT, other).results}
    assert list(rows) == ["numpy", "cupy", "numba"]
    assert rows["numpy"].reason == "in B no row"
    assert rows["numba"].reason == "in A no row"


def test_a_path_is_only_ever_compared_with_itself() -> None:
    other = copy.deepcopy(RESULT)
    other["results"].append({**other["results"][0], "path": "sparse"})
    rows = {(row.name, row.path): row for row in compared(RESULT, other).results}
    assert list(rows) == [("numpy", "loop"), ("cupy", None), ("numpy", "sparse")]
    assert rows["numpy", "loop"].ratio == 1
    assert rows["numpy", "sparse"].reason == "in A no row"


objects = st.recursive(
    st.none() | st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text(max_size=2), inner), max_leaves=8
)


@given(st.dictionaries(st.text(max_size=2), objects), st.dictionaries(st.text(max_size=2), objects))
@settings(max_examples=40, deadline=None)
def test_equal_objects_alone_have_no_differences_and_they_turn_over(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert differences([a, a], [a]) == []
    assert {name: (x, y) for name, y, x in differences([b], [a])} == {name: (x, y) for name, x, y in differences([a], [b])}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no field schema"),
        ('{"schema": 3}', "has the schema 3; this version reads schema 1 and 2"),
        ('{"schema": 1, "environment": {}, "config": {}}', "the field results is missing"),
        ('{"schema": 1, "environment": {}, "config": [], "results": []}', "the field config is missing or is no dict"),
        ('{"schema": 1, "environment": {}, "config": {}, "results": [3]}', r"results\[0\] must be an object; got 3"),
        ('{"schema": 1, "environment": {}, "config": {}, "results": [{"name": "a"}]}', r"results\[0\] has no field status"),
        (json.dumps({**RESULT, "results": [{**RESULT["results"][0], "path": 3}]}), r"results\[0\].path must be a text; got 3"),
        (json.dumps({**RESULT, "results": [{**RESULT["results"][0], "epoch_seconds": {"samples": []}}]}), "has no samples"),
        (
            json.dumps({**RESULT, "results": [{**RESULT["results"][0], "epoch_seconds": {"samples": [0]}}]}),
            r"samples\[0\] must be a positive number",
        ),
        (
            json.dumps({**RESULT, "results": [{**RESULT["results"][0], "epoch_seconds": {"samples": [float("nan")]}}]}),
            "NaN is no number",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ResultFileError, match=words) as caught:
        read_result(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(ResultFileError, match="cannot be read"):
            read_result(path)
    binary = tmp_path / "picture.png"
    binary.write_bytes(b"\x89PNG\xff")
    with pytest.raises(ResultFileError, match="is not JSON"):
        read_result(binary)
