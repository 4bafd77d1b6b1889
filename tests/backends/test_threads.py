"""How many threads are used, and that they are given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from mlp_accel import History, evaluate, get_backend, init_params, mini_batch_sgd
from mlp_accel.backends import threads as module
from mlp_accel.backends.threads import available_cores, cgroup_cores, thread_count


def test_argument_before_environment_before_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 8)
    monkeypatch.setattr(module, "cgroup_cores", lambda: 2.5)
    assert thread_count() == 3
    monkeypatch.setenv("MLP_ACCEL_NUM_THREADS", "5")
    assert thread_count() == 5
    assert thread_count(4) == 4
    monkeypatch.setenv("MLP_ACCEL_NUM_THREADS", "")
    assert thread_count() == 3


def test_the_default_is_no_more_than_numba_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 8)
    monkeypatch.setattr(module, "cgroup_cores", lambda: None)
    for value, expected in {"3": 3, "64": 8, "": 8, "0": 8, "many": 8}.items():  # what makes no sense is for doctor to say
        monkeypatch.setenv("NUMBA_NUM_THREADS", value)
        assert thread_count() == expected
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert thread_count(4) == 4


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "9"])
def test_a_wrong_value_is_an_error_that_names_the_source_and_the_range(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 8)
    monkeypatch.setenv("MLP_ACCEL_NUM_THREADS", value)
    with pytest.raises(ValueError, match=rf"'{value}' from the environment variable MLP_ACCEL_NUM_THREADS.*1 to 8"):
        thread_count()


@pytest.mark.parametrize("value", [1.9, 1.0, "1.5", [1]])
def test_an_argument_that_is_no_whole_number_is_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"from the argument threads is no number of threads; this process can use 1 to"):
        thread_count(value)


def test_a_whole_number_of_numpy_is_a_whole_number() -> None:
    assert thread_count(np.int64(1)) == 1  # type: ignore[arg-type]


def test_the_control_groups_limit_is_read(tmp_path: Path) -> None:
    assert cgroup_cores(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cgroup_cores(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cgroup_cores(tmp_path) == 1.5


def test_the_limit_of_an_old_control_group_is_read(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_cores(tmp_path) == 3
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_cores(tmp_path) is None


@pytest.mark.parametrize(("own", "around", "expected"), [("max", "200000", 2), ("300000", "max", 3), ("50000", "200000", 0.5)])
def test_the_smallest_limit_on_the_way_up_counts(tmp_path: Path, own: str, around: str, expected: float) -> None:
    (tmp_path / "system" / "job").mkdir(parents=True)
    (tmp_path / "system" / "cpu.max").write_text(f"{around} 100000\n")
    (tmp_path / "system" / "job" / "cpu.max").write_text(f"{own} 100000\n")
    membership = tmp_path / "membership"
    membership.write_text("0::/system/job\n")
    assert cgroup_cores(tmp_path, membership) == expected


def test_old_control_groups_lie_in_one_another_too(tmp_path: Path) -> None:
    (tmp_path / "cpu" / "job").mkdir(parents=True)
    (tmp_path / "cpu" / "job" / "cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu" / "job" / "cpu.cfs_period_us").write_text("100000\n")
    membership = tmp_path / "membership"
    membership.write_text("5:memory:/job\n4:cpu,cpuacct:/job\n0::/../outside\n")
    assert cgroup_cores(tmp_path, membership) == 1.5


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.skipif(available_cores() < 2, reason="one core: there is no number of threads to change")
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_training_limits_blas_and_numba_threads_and_gives_them_back(name: str) -> None:
    numba = pytest.importorskip("numba")
    inside = []

    def look(_: History) -> None:
        inside.append((blas_threads(), numba.get_num_threads()))

    before = blas_threads(), numba.get_num_threads()
    x, y = np.random.default_rng(0).random((20, 5)), np.arange(20) % 3
    mini_batch_sgd(x, y, init_params([5, 4, 3]), backend=get_backend(name), epochs=1, threads=1, callbacks=[look])
    assert inside[0][0] == {1}
    if name == "numba":
        assert inside[0][1] == 1
    assert (blas_threads(), numba.get_num_threads()) == before


@pytest.mark.skipif(available_cores() < 2, reason="one core: there is no number of threads to change")
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_evaluation_uses_as_many_threads_as_training_would(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    backend, inside = get_backend(name), []
    classify = backend.classify

    def look(*arguments: Any) -> Any:
        inside.append((blas_threads(), numba.get_num_threads()))
        return classify(*arguments)

    monkeypatch.setattr(backend, "classify", look)
    before = blas_threads(), numba.get_num_threads()
    arguments = (backend, init_params([5, 4, 3]), np.random.default_rng(0).random((20, 5)), np.arange(20) % 3, "tanh")
    monkeypatch.setenv("MLP_ACCEL_NUM_THREADS", "1")
    evaluate(*arguments)
    monkeypatch.setenv("MLP_ACCEL_NUM_THREADS", "2")
    evaluate(*arguments)
    evaluate(*arguments, threads=1)
    assert [blas for blas, _ in inside] == [{1}, {2}, {1}]
    if name == "numba":
        assert [count for _, count in inside] == [1, 2, 1]
    assert (blas_threads(), numba.get_num_threads()) == before
    with pytest.raises(ValueError, match="0 from the argument threads is no number of threads"):
        evaluate(*arguments, threads=0)
