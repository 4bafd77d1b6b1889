"""Results over commits: one series for each engine, machine and work, in the order of the commits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlp_accel.bench.history.trend import find_series
from mlp_accel.bench.output.history import change_lines, plot_trend, trend_table
from mlp_accel.bench.output.markdown import markdown_table
from mlp_accel.plots import save_figure
from tests.bench.history.test_store import result

COMMITS = [f"{number:02x}".ljust(40, "0") for number in range(12)]
ORDER = {commit: number for number, commit in enumerate(COMMITS)}


def test_a_change_is_told_with_its_commit_and_its_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = [(1.0 if number < 7 else 1.1) * np.exp(0.005 * rng.normal()) for number in range(12) for _ in range(2)]
    results = [result(COMMITS[i // 2], seconds, date=f"2026-01-{30 - i:02}") for i, seconds in enumerate(times)]
    shuffled = [results[i] for i in rng.permutation(24)]
    (series,) = find_series(shuffled, ORDER)
    assert [point.commit for point in series.points] == [COMMITS[i // 2] for i in range(24)]
    (change,) = series.changes
    assert (change.commit, change.before) == (COMMITS[7][:10], COMMITS[6][:10])
    assert change.change == pytest.approx(0.1, abs=0.01)
    assert [level[:2] for level in series.levels] == [(0, 14), (14, 24)]
    (line,) = change_lines([series])
    assert line.startswith(f"numpy loop: slower by {change.change:.1%} from {COMMITS[7][:10]} on, after {COMMITS[6][:10]}")
    assert find_series(results, ORDER, threshold=0.2)[0].changes == ()
    assert series.to_dict()["changes"][0]["commit"] == COMMITS[7][:10]
    assert "| numpy loop | 24 | " in markdown_table(trend_table([series]))
    save_figure(plot_trend([series]), tmp_path / "a.png")


def test_machines_and_work_are_never_put_into_one_series(tmp_path: Path) -> None:
    first = result()
    wide = replace(first, config=replace(first.config, layer_sizes=(784, 512, 10)))
    more = replace(first, config=replace(first.config, threads=4))
    others = [result(cpu="another $CPU$"), result(host="a"), wide, more, result(gpu=["A, driver 1"]), result(gpu=["A, driver 2"])]
    series = find_series([first, *others], None)
    assert [len(found.points) for found in series] == [1, 1, 1, 1, 1, 2]
    save_figure(plot_trend(series), tmp_path / "a.png")
    assert change_lines(series) == ["no change of a level was seen"]


def test_without_the_commits_runs_are_in_the_order_of_their_dates_and_changed_sources_are_marked() -> None:
    results = [result(COMMITS[i], 1.0, date=f"2026-01-0{9 - i}", dirty=i == 2) for i in range(4)]
    (series,) = find_series(results, None)
    assert [point.label for point in series.points] == [COMMITS[i][:10] + "+" * (i == 2) for i in (3, 2, 1, 0)]


def test_a_change_within_one_commit_is_not_the_codes() -> None:
    results = [result(COMMITS[0], 1.0 if i < 8 else 1.5, date=f"2026-01-{i + 10}") for i in range(16)]
    (line,) = change_lines(find_series(results, ORDER))
    assert f"within the runs of {COMMITS[0][:10]}: something else than the code has changed" in line


def test_nothing_is_drawn_as_nothing(tmp_path: Path) -> None:
    assert find_series([], ORDER) == []
    save_figure(plot_trend([]), tmp_path / "a.png")
