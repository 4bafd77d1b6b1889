"""What is found wrong, shown on stand-ins; `tests.installs.try_broken` breaks real installations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl

from mlp_accel.backends import install_hints as system
from mlp_accel.backends.cupy import libraries as cuda_libraries
from mlp_accel.doctor import blas, caches, cupy_installation, numba_threading, variables
from mlp_accel.doctor.findings import Finding, diagnose


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("MLP_ACCEL_", "NUMBA_", "CUPY_", "OMP_", "OPENBLAS_", "MKL_", "MPL")):
            monkeypatch.delenv(name)


def only(findings: Any) -> Finding:
    [finding] = findings
    assert isinstance(finding, Finding)
    assert finding.fix
    return finding


# Environment variables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MLP_ACCEL_BACKENDS", "numpy", "no variable of mlp_accel; those are MLP_ACCEL_BACKEND, "),
        ("NUMBA_NUM_THREADS", "0", "no number of threads"),
        ("NUMBA_NUM_THREADS", "two", "no number of threads"),
        ("NUMBA_THREADING_LAYER", "bogus", "choose one of default, safe, forksafe, threadsafe, tbb, omp, workqueue"),
        ("NUMBA_DISABLE_JIT", "1", "interpret"),
        ("OMP_NUM_THREADS", "4,x", "no number of threads"),
        ("OPENBLAS_NUM_THREADS", "-1", "no number of threads"),
        ("MKL_NUM_THREADS", "1.5", "no number of threads"),
        ("MLP_ACCEL_PATH", "scenic", "is a path of no backend; choose one of auto, loop, cluster, graph, steps, sparse"),
        ("MLP_ACCEL_CUPY_PATH", "graph", "is gone; set MLP_ACCEL_PATH=graph instead"),
        ("MLP_ACCEL_TF32", "yes", "is neither 1 nor 0"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    finding = only(variables.findings())
    assert finding.problem.startswith(name)
    assert words in finding.problem
    assert finding.fix == f"unset {name}"
    assert finding.wrong_value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLP_ACCEL_BACKEND", "numpy"),
        ("MLP_ACCEL_CACHE_DIR", "/tmp"),
        ("MLP_ACCEL_PATH", "sparse"),
        ("MLP_ACCEL_PATH", "loop"),
        ("MLP_ACCEL_PATH", "cluster:4"),
        ("MLP_ACCEL_PATH", ""),
        ("MLP_ACCEL_TF32", "1"),
        ("NUMBA_NUM_THREADS", "2"),
        ("NUMBA_NUM_THREADS", ""),
        ("NUMBA_THREADING_LAYER", "OMP"),
        ("NUMBA_DISABLE_JIT", "0"),
        ("OMP_NUM_THREADS", "4,2"),
        ("MPLBACKEND", "agg"),
    ],
)
def test_a_right_value_is_nothing_to_speak_of(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert list(variables.findings()) == []


# CuPy, Numba, BLAS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wheels", "found"), [([], False), (["cupy-cuda13x"], False), (["cupy-cuda12x", "cupy-cuda13x"], True)])
def test_two_wheels_of_cupy_are_one_too_many(monkeypatch: pytest.MonkeyPatch, wheels: list[str], found: bool) -> None:
    monkeypatch.setattr(cupy_installation, "installed_wheels", lambda: wheels)
    monkeypatch.setattr(cuda_libraries, "driver_cuda_version", lambda: 12080)
    findings = list(cupy_installation.findings())
    assert len(findings) == found
    for finding in findings:
        assert finding.problem.startswith("cupy-cuda12x and cupy-cuda13x are both installed")
        remove = "python -m pip uninstall --yes cupy-cuda12x cupy-cuda13x"
        assert finding.fix == f'{remove} && python -m pip install "cupy-cuda12x[ctk]"'


NO_TBB = {"tbb": "libtbb.so.12: no such file", "omp": None, "workqueue": None}
NO_OPENMP = {**NO_TBB, "omp": "libgomp.so.1: no such file"}
NOTHING = {**NO_OPENMP, "workqueue": "no module named workqueue"}


@pytest.mark.parametrize(
    ("obstacles", "requested", "words", "fix", "wrong_value"),
    [
        (NO_TBB, "", None, "", False),
        (NO_TBB, "tbb", "that layer cannot be loaded (libtbb", "unset NUMBA_THREADING_LAYER", True),
        (NO_TBB, "workqueue", "slower than omp", "unset NUMBA_THREADING_LAYER", False),
        (NO_OPENMP, "", "only its slow threading layer", "libgomp", False),
        (NO_OPENMP, "omp", "that layer cannot be loaded (libgomp", "unset NUMBA_THREADING_LAYER", True),
        (NOTHING, "", "cannot load a threading layer (no module named workqueue)", "force-reinstall --no-deps numba", False),
    ],
)
def test_threading_layers(
    monkeypatch: pytest.MonkeyPatch,
    obstacles: dict[str, str | None],
    requested: str,
    words: str | None,
    fix: str,
    wrong_value: bool,
) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(numba_threading, "obstacle", obstacles.get)
    monkeypatch.setenv("NUMBA_THREADING_LAYER", requested)
    findings = list(numba_threading.findings())
    if words is None:
        assert findings == []
        return
    finding = only(findings)
    assert words in finding.problem
    assert fix in finding.fix
    assert finding.wrong_value == wrong_value


def test_openmp_is_installed_as_the_system_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for systems, command in {"debian": "apt-get install libgomp1", "fedora": "dnf install libgomp", "suse": "zypper"}.items():
        monkeypatch.setattr(system, "distribution", lambda systems=systems: {systems})
        assert command in system.install_openmp()


def test_a_gpu_is_made_visible_by_what_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "in_container", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert system.show_device() == "unset CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert system.show_device().startswith("docker run --gpus all")
    assert system.install_driver().startswith("docker run --gpus all")
    monkeypatch.setattr(system, "in_container", lambda: False)
    monkeypatch.setattr(system, "distribution", lambda: {"ubuntu", "debian"})
    assert system.install_driver() == "sudo ubuntu-drivers install"
    assert system.show_device().startswith("nvidia-smi")


@pytest.mark.parametrize(("library", "variable"), [("openblas", "OPENBLAS_NUM_THREADS"), ("mkl", "MKL_NUM_THREADS")])
def test_a_blas_with_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch, library: str, variable: str) -> None:
    libraries = [{"user_api": "blas", "internal_api": library, "num_threads": 64}, {"user_api": "openmp", "num_threads": 64}]
    libraries[1]["internal_api"] = "openmp"
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: libraries)
    assert list(blas.findings(64)) == []
    finding = only(blas.findings(2))
    assert "64 threads where 2 cores are granted" in finding.problem
    assert finding.fix == f"export {variable}=2"


# Caches ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MLP_ACCEL_CACHE_DIR", "NUMBA_CACHE_DIR", "CUPY_CACHE_DIR"])
def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setenv(name, str(tmp_path / "new" / "folder"))
    assert list(caches.findings()) == []
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind
    (tmp_path / "new").write_text("a file, not a folder")
    finding = only(caches.findings())
    assert finding.problem.startswith(name)
    assert finding.fix == f"unset {name}"
    assert finding.wrong_value


def test_default_caches_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(caches, "cannot_write", lambda folder: f"{folder}: Read-only file system")
    finding = next(iter(caches.findings()))
    assert "compiled at every start" in finding.problem
    assert finding.fix.startswith("export MLP_ACCEL_CACHE_DIR=")
    assert not finding.wrong_value


def test_no_home_folder_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    finding = next(iter(caches.findings()))
    assert finding.problem.startswith("Could not determine home directory")
    assert finding.fix.startswith("export MLP_ACCEL_CACHE_DIR=")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no such permissions")
def test_a_cache_that_is_not_private_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLP_ACCEL_CACHE_DIR", str(tmp_path))
    folder = tmp_path / "numba-0123"
    folder.mkdir(mode=0o700)
    assert list(caches.findings()) == []
    folder.chmod(0o777)
    finding = only(caches.findings())
    assert f"others may write to {folder}" in finding.problem
    assert finding.fix == f"chmod go-w {folder}"


def test_kernels_of_older_versions_are_counted_and_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLP_ACCEL_CACHE_DIR", str(tmp_path))
    current, older, other = (tmp_path / name for name in ("numba-1", "numba-0", "another's"))
    for folder in (current, older, other):
        folder.mkdir()
        (folder / "file").write_text("12345")
    (tmp_path / "numba-link").symlink_to(other)
    monkeypatch.setattr(caches, "_current", lambda: None)
    assert caches.kept() == {"folder": None, "bytes": 0, "older": [], "fastest": []}, "which are older cannot be told"
    monkeypatch.setattr(caches, "_current", lambda: current)
    expected = {"folder": str(current), "bytes": 5, "older": [{"folder": str(older), "bytes": 5}], "fastest": []}
    assert caches.kept() == expected
    assert caches.clean() == [older]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another's", "numba-1", "numba-link"]
    assert caches.clean() == []


def test_wrong_values_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_installation, "installed_wheels", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    monkeypatch.setenv("CUPY_CACHE_DIR", "/dev/null/cache")
    assert [finding.wrong_value for finding in diagnose(1_000_000)] == [True, False]
