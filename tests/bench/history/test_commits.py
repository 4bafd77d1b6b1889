"""Commits that are measured again: sums and bisections of launches that were never run, so that the truth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_accel.bench.gate import builds
from mlp_accel.bench.gate.launches import BASE, HEAD, Launch, LaunchError
from mlp_accel.bench.history import pairs
from mlp_accel.bench.history.bisect import bisect
from mlp_accel.bench.history.chain import UNCHANGED, measure_chain
from mlp_accel.bench.history.git import Commit
from mlp_accel.bench.history.pairs import Bench, Builds, NotMeasuredError, estimate
from mlp_accel.bench.output.history import bisect_lines, bisect_table, chain_lines, chain_table, plot_chains
from mlp_accel.plots import save_figure


class InventedBuilds(Builds):
    """Builds that were never made; some cannot be."""

    def __init__(self, broken: Collection[str]) -> None:
        super().__init__(Path(), Path())
        self.broken = broken

    def of(self, commit: Commit) -> Path:
        if commit.hash in self.broken:
            raise NotMeasuredError("it cannot be built")
        return Path(commit.hash)


class InventedBench(Bench):
    """Times of builds that were never made: each commit has its cost."""

    def __init__(self, costs: dict[str, float], broken: Collection[str] = (), noise: float = 0.003) -> None:
        super().__init__(InventedBuilds(broken), {"seed": 0})
        self.costs, self.broken, self.noise = costs, broken, noise
        self.noises = np.random.default_rng(0)
        self.measured: list[tuple[str, str]] = []

    def pair(self, base: Commit, head: Commit) -> list[float]:
        for commit in (base, head):
            self.builds.of(commit)
        self.measured.append((base.hash, head.hash))
        change = math.log(self.costs[head.hash] / self.costs[base.hash])
        return list(change + self.noise * self.noises.normal(size=self.launches))


def commits_of(costs: list[float], unchanged: tuple[int, ...] = ()) -> tuple[list[Commit], dict[str, float]]:
    packages = [0]
    for number in range(1, len(costs)):
        packages.append(packages[-1] + (number not in unchanged))
    commits = [Commit(f"{number:040x}", f"commit {number}", str(packages[number])) for number in range(len(costs))]
    return commits, {commit.hash: cost for commit, cost in zip(commits, costs, strict=True)}


# Sums ------------------------------------------------------------------------------------------------------------------------


def test_an_estimate_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = math.expm1(5 * math.log(1.01))
    found = [estimate(*(list(math.log(1.01) + 0.004 * rng.standard_t(4, 10)) for _ in range(5))) for _ in range(200)]
    covered = np.mean([low <= truth <= high for low, high in (one.interval for one in found)])
    assert 0.9 <= covered <= 0.99
    assert np.mean([one.change for one in found]) == pytest.approx(truth, abs=0.001)


def test_launches_that_were_disturbed_do_not_count() -> None:
    assert estimate([0.01] * 8 + [5.0, -7.0]).change == pytest.approx(math.expm1(0.01))
    assert estimate().interval == (0, 0)
    with pytest.raises(ValueError, match="at least 7"):
        estimate([0.1])


def test_a_chain_adds_up_and_sees_creep(tmp_path: Path) -> None:
    commits, costs = commits_of([1.01**number for number in range(11)])
    chain = measure_chain(InventedBench(costs), commits)
    assert chain.total.change == pytest.approx(1.01**10 - 1, abs=0.015)
    assert chain.total.interval[0] < 1.01**10 - 1 < chain.total.interval[1]
    assert chain.direct is not None
    assert chain.direct.change == pytest.approx(1.01**10 - 1, abs=0.01)
    assert chain.creep(0.03)
    assert not chain.creep(0.2)
    assert "it creeps: no commit alone is slower by more than 3%, together they are" in chain_lines(chain, "numpy", 0.03)[-1]
    assert chain_table(chain, "numpy").row_count == 10
    json.dumps(chain.to_dict(), allow_nan=False)
    save_figure(plot_chains({"numpy": chain}), tmp_path / "a.png")


def test_a_commit_that_does_not_build_is_measured_together_with_the_next() -> None:
    commits, costs = commits_of([1.0, 9.9, 1.1, 1.1], unchanged=(3,))
    bench = InventedBench(costs, broken={commits[1].hash})
    chain = measure_chain(bench, commits)
    assert bench.measured == [(commits[0].hash, commits[2].hash)]
    assert [step.reason for step in chain.steps] == ["not measured: it cannot be built", None, UNCHANGED]
    assert chain.total.change == pytest.approx(0.1, abs=0.01)
    assert chain.direct is None, "there was one measurement: it is the direct one"
    with pytest.raises(NotMeasuredError):
        measure_chain(InventedBench(costs, broken={commits[0].hash}), commits)


# Bisections ------------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 24), st.data())
@settings(max_examples=60, deadline=None)
def test_a_bisection_finds_the_commit_or_all_that_it_can_be(n: int, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(1, n - 1))
    broken = data.draw(st.sets(st.integers(1, n - 2), max_size=n)) if n > 2 else set()
    unchanged = data.draw(st.sets(st.integers(1, n - 1).filter(lambda number: number != culprit), max_size=n))
    commits, costs = commits_of([1.0 if number < culprit else 1.05 for number in range(n)], tuple(unchanged))
    names = {commits[number].hash for number in broken}
    last = next(commit for commit in commits if commit.package == commits[-1].package)
    bench = InventedBench(costs, names - {last.hash, commits[0].hash})
    found = bisect(bench, commits, threshold=0.03)
    assert commits[culprit] in found.candidates
    if len(found.candidates) > 1:  # all but the last of them could not be measured
        assert {commit.hash for commit in found.candidates[:-1]} <= set(bench.broken)
    assert found.change is not None
    assert found.change.change == pytest.approx(0.05, abs=0.02)
    assert len(bench.measured) <= 2 + math.ceil(math.log2(n))
    json.dumps(found.to_dict(), allow_nan=False)
    assert bisect_table(found).row_count == len(found.candidates)
    assert len(bisect_lines(found)) == 2 + len(found.left_out)


def test_a_bisection_of_what_is_not_slower_says_so() -> None:
    for costs_of in ([1.0, 1.0, 1.0], [1.05, 1.0, 1.0], [1.0, 1.02, 1.02]):
        commits, costs = commits_of(costs_of)
        found = bisect(InventedBench(costs), commits, threshold=0.03)
        assert (found.candidates, found.change) == ((), None)
    commits, costs = commits_of([1.0, 1.0], unchanged=(1,))
    bench = InventedBench(costs)
    assert bisect(bench, commits, threshold=0.03).candidates == ()
    assert bench.measured == []


def test_a_commit_that_is_neither_fast_nor_slow_is_left_out() -> None:
    commits, costs = commits_of([1.0, 1.03, 1.0604, 1.0604])
    bench = InventedBench(costs)
    found = bisect(bench, commits, threshold=0.03)
    assert list(found.left_out) == [commits[1].label]
    assert [commit.subject for commit in found.candidates] == ["commit 1", "commit 2"]


# Real builds and launches ----------------------------------------------------------------------------------------------------


def test_a_commit_is_built_once_and_one_that_cannot_be_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[str] = []

    def install(source: Path, target: Path) -> None:
        made.append(target.name)
        if target.name.startswith("b"):
            raise builds.BuildError("pip install failed")

    monkeypatch.setattr(builds, "export_commit", lambda *_: None)
    monkeypatch.setattr(builds, "install", install)
    found = Builds(tmp_path, tmp_path)
    first, same, bad = Commit("a1", "", "one"), Commit("a2", "", "one"), Commit("b1", "", "two")
    assert found.of(first) == found.of(same) == tmp_path / "a1"
    for _ in range(2):
        with pytest.raises(NotMeasuredError, match="pip install failed"):
            found.of(bad)
    assert made == ["a1", "b1"]


def test_a_pair_is_the_gates_launches_of_two_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[dict[str, Path]] = []

    def launch(pair: dict[str, Path], config: Any, rounds: int, rng: Any) -> Launch:
        seen.append(pair)
        return Launch({BASE: [1.0] * rounds, HEAD: [1.1] * rounds}, {})

    monkeypatch.setattr(pairs, "run_launch", launch)
    bench = Bench(Builds(tmp_path, tmp_path), {"seed": 0}, launches=7, rounds=6)
    monkeypatch.setattr(bench.builds, "of", lambda commit: tmp_path / commit.hash)
    a, b = Commit("a", "", ""), Commit("b", "", "")
    assert bench.pair(a, b) == pytest.approx([math.log(1.1)] * 7)
    assert seen == [{BASE: tmp_path / "a", HEAD: tmp_path / "b"}] * 7
    monkeypatch.setattr(pairs, "run_launch", failing)
    with pytest.raises(NotMeasuredError, match="head: it died"):
        bench.pair(a, b)


def failing(*_: object) -> Launch:
    raise LaunchError("head: it died")
