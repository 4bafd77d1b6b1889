"""The environment report names what a time depends on."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from mlp_accel import environment as module
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.libraries import loaded_libraries
from mlp_accel.bench.protocol import run_benchmark
from mlp_accel.environment import environment, frequency_governor, gpus, simd_bits
from tests.bench.conftest import there


def test_it_names_what_a_time_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    report = environment()
    for name in ("cpu", "cores", "python", "numpy", "blas", "mlp_accel", "system", "date", "simd", "load_before"):
        assert report[name], name
    for name in ("cgroup_cores", "frequency_governor", "gpu", "simd_bits", "commit", "dirty"):
        assert name in report
    assert report["variables"]["OMP_NUM_THREADS"] == "3"
    json.dumps(report)


def test_a_machine_has_the_label_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "host" not in environment(), "names of hosts are not written unasked"
    monkeypatch.setenv("MLP_ACCEL_HOST", "rack 3")
    assert environment()["host"] == "rack 3"


def test_the_governors_of_all_cores_are_read(tmp_path: Path) -> None:
    assert frequency_governor(tmp_path) is None
    for core, governor in enumerate(["powersave", "performance", "powersave"]):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n")
    assert frequency_governor(tmp_path) == "performance, powersave"


@pytest.mark.parametrize(
    ("found", "bits"), [(["SSE", "AVX2", "AVX512F"], 512), (["X86_V2", "X86_V3"], 256), (["NEON", "ASIMD"], 128), ([], None)]
)
def test_the_widest_vectors_count(monkeypatch: pytest.MonkeyPatch, found: list[str], bits: int | None) -> None:
    monkeypatch.setattr(module, "simd_extensions", lambda: found)
    assert simd_bits() == bits


def test_gpus_are_those_that_the_driver_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 580.65.06'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpus() == ["NVIDIA H200, 143771 MiB, driver 580.65.06"]
    fake.write_text("#!/bin/sh\nexit 9\n")
    assert gpus() == []


def test_the_worker_says_what_it_computes_with(config: Config) -> None:
    """With the compiled kernels on disk by then, a second process takes them from there."""
    for _ in range(2):
        (row,) = run_benchmark(["numba"], replace(config, epochs=1)).results
    assert row.llvm_target
    assert any("openblas" in pool or "mkl" in pool for pool in there(row.thread_pools))
    assert there(row.versions)["numba_threading_layer"]
    assert row.compiled_code == "from the cache"
    (row,) = run_benchmark(["numpy"], replace(config, epochs=1)).results
    assert (row.llvm_target, row.compiled_code) == (None, None)


def test_code_that_is_compiled_now_is_said_to_be(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    (row,) = run_benchmark(["numba"], replace(config, epochs=1)).results
    assert row.compiled_code == "compiled now"


def test_libraries_are_reported_in_types_that_json_knows() -> None:
    json.dumps(loaded_libraries())
