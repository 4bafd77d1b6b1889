"""A Dask cluster as workers, in this process; that its processes can be lost is shown by `benchmarks/tune_drills.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlp_accel.tune import grid, tune
from mlp_accel.tune.cluster import DaskMissingError, DaskWorkers, connect
from mlp_accel.tune.data import UnfitWorkerError
from mlp_accel.tune.executors import ClusterLostError
from mlp_accel.tune.worker import versions
from tests.tune.test_search import SPACE, numbers

distributed: Any = pytest.importorskip("distributed", reason="needs the extra dask")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as found:
        yield found


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_cluster_finds_what_one_process_finds(client: Any, clouds: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        expected = tune(SPACE, str(clouds), seeds=3, backend="numpy", executor=executor, threads=1)
    for given in (DaskWorkers(client), client.get_executor()):
        found = tune(SPACE, str(clouds), seeds=3, backend="numpy", executor=given)
        assert (found.missing, found.failed) == (0, [])
        assert numbers(found.rows) == numbers(expected.rows)


def test_it_says_how_many_workers_there_are_and_where(client: Any) -> None:
    workers = DaskWorkers(client)
    assert workers.slots == 2
    assert str(workers).startswith(f"Dask at {client.scheduler.address}, 2 workers")


def test_a_worker_with_other_versions_is_named_before_anything_is_trained(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlp_accel.tune.cluster.versions", lambda: {**versions(), "numpy": "1.0"})
    with pytest.raises(UnfitWorkerError, match=r"the worker at inproc://.*numpy .* in place of 1\.0"):
        DaskWorkers(client)


def test_where_no_scheduler_is_that_is_said() -> None:
    with pytest.raises(ClusterLostError, match="no Dask scheduler at nonsense"), connect("nonsense://x"):
        pass


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DaskMissingError, match=r"pip install 'mlp-accel\[dask\]'"), connect("local"):
        pass


def test_settings_go_to_workers_by_name(client: Any, clouds: Path) -> None:
    found = tune(
        grid(optimizer=["adam"], schedule=["cosine"], hidden=[4]), str(clouds), backend="numpy", executor=DaskWorkers(client)
    )
    assert found.rows[0]["settings"]["optimizer"] == "adam"
