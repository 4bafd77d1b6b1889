"""Comparing result files: what differs comes first, and nothing is ranked that cannot be."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_accel.bench.comparison import Comparison, compare, differences, ratio_interval
from mlp_accel.bench.result_files import SCHEMA, ResultFileError, read_result, result_of
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
    return compare(result_of(a), result_of(b))


def test_a_result_is_as_fast_as_itself() -> None:
    comparison = compared(RESULT, RESULT)
    numpy, cupy = comparison.results
    assert (numpy.ratio, numpy.verdict) == (1, "no difference seen")
    assert there(numpy.interval)[0] < 1 < there(numpy.interval)[1]
    assert (cupy.ratio, cupy.verdict, cupy.reason) == (None, None, "in A and B unavailable: no device")
    assert not comparison.environment_differences
    assert not comparison.config_differences


def test_the_slower_one_is_named_whichever_comes_first() -> None:
    slower, faster = compared(RESULT, changed()), compared(changed(), RESULT)
    assert slower.results[0].ratio == pytest.approx(3)
    assert slower.results[0].verdict == "B is slower"
    assert faster.results[0].verdict == "B is faster"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("cpu", "another CPU", "different machines (cpu)"),
        ("cores", 64, "different machines (cores)"),
        ("batch_size", 32, "different work (batch_size)"),
    ],
)
def test_what_cannot_be_compared_is_not_ranked_and_says_so(field: str, value: Any, reason: str) -> None:
    comparison = compared(RESULT, changed(**{field: value}))
    assert (comparison.not_ranked or "").startswith(reason)
    assert comparison.results[0].ratio == pytest.approx(3)
    assert comparison.results[0].verdict is None


def test_software_and_threads_differ_but_can_be_ranked() -> None:
    comparison = compared(RESULT, changed(numpy="3.0", variables={"B": "2"}, threads=1, date="tomorrow", load_before=[9]))
    assert comparison.environment_differences == (
        ("numpy", "2.0", "3.0"),
        ("variables.A", "1", None),
        ("variables.B", None, "2"),
    )
    assert comparison.config_differences == (("threads", 2, 1),)
    assert comparison.results[0].verdict == "B is slower"


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


def test_a_few_epochs_have_a_ratio_but_no_verdict() -> None:
    short = changed()
    short["results"][0]["epoch_seconds"]["samples"] = [3.0, 3.1]
    row = compared(RESULT, short).results[0]
    assert row.ratio == pytest.approx(3.05 / 1.1)
    assert (row.interval, row.verdict) == (None, None)
    assert "fewer than 5 epochs" in str(row.reason)


@given(st.lists(st.floats(0.1, 10), min_size=5, max_size=20), st.lists(st.floats(0.1, 10), min_size=5, max_size=20))
@settings(max_examples=20, deadline=None)
def test_the_interval_holds_the_ratio_and_turns_over_with_it(a: list[float], b: list[float]) -> None:
    low, high = ratio_interval(a, b)
    assert low <= np.median(b) / np.median(a) * (1 + 1e-12)
    assert high >= np.median(b) / np.median(a) * (1 - 1e-12)
    assert (low, high) == ratio_interval(a, b)  # seeded


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = (rng.lognormal(np.log([[1.0], [1.2]]), 0.1, (2, 15)) for _ in range(150))
    intervals = [ratio_interval(list(a), list(b)) for a, b in samples]
    covered = np.mean([low <= 1.2 <= high for low, high in intervals])
    assert 0.88 <= covered <= 1


objects = st.recursive(
    st.none() | st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text(max_size=2), inner), max_leaves=8
)


@given(st.dictionaries(st.text(max_size=2), objects), st.dictionaries(st.text(max_size=2), objects))
@settings(max_examples=40, deadline=None)
def test_equal_objects_alone_have_no_differences_and_they_turn_over(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert differences(a, a) == []
    assert {name: (x, y) for name, y, x in differences(b, a)} == {name: (x, y) for name, x, y in differences(a, b)}


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
        ('{"schema": 1, "environment": {}, "config": {}, "results": [3]}', r"results\[0\]: is no object"),
        ('{"schema": 1, "environment": {}, "config": {}, "results": [{"name": "a"}]}', r"results\[0\]: has no field status"),
        (json.dumps({**RESULT, "results": [{**RESULT["results"][0], "path": 3}]}), "path is no text"),
        (json.dumps({**RESULT, "results": [{**RESULT["results"][0], "epoch_seconds": {"samples": []}}]}), "has no samples"),
        (json.dumps({**RESULT, "results": [{**RESULT["results"][0], "epoch_seconds": {"samples": [0]}}]}), "positive numbers"),
        (json.dumps({**RESULT, "results": [{**RESULT["results"][0], "epoch_seconds": {"samples": [float("nan")]}}]}), "positive"),
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
