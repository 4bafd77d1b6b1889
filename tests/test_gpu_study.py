"""The study of the GPU as far as it goes without one: its plan, its files, the peers on the CPU, our rows on the shim."""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel import backends as registry
from mlp_accel.backends.cupy import probe as cupy_probe
from mlp_accel.datasets import Dataset
from tests.backends.cupy.emulator import need_compiler
from tests.backends.cupy.fake_cupy import FakeCupy

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_study")


@pytest.fixture
def few_samples(study: Any, mnist: Dataset, monkeypatch: pytest.MonkeyPatch) -> int:
    """MNIST, but 150 samples of it."""
    few = Dataset(mnist.name, mnist.x_train[:150], mnist.y_train[:150], mnist.x_test[:50], mnist.y_test[:50])
    for module in (study.ours, study.peers):
        monkeypatch.setattr(module, "load", lambda _: few)
    return 150


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch, study: Any) -> None:
    need_compiler()
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy())
    monkeypatch.setattr(study.ours, "unavailable", registry.unavailable.__wrapped__)
    monkeypatch.setattr(cupy_probe, "check_cuda_libraries", lambda: None)


def test_the_plan_names_every_stage_row_and_file(study: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert study.main(["--dry-run", "--output", str(tmp_path)]) == 0
    plan = capsys.readouterr().out
    for stage in study.STAGES:
        assert f"{stage}: at most 220 s" in plan
        assert str(tmp_path / f"gpu_{stage}.json") in plan
    for path in ("loop", "steps", "graph", *(f"cluster:{size}" for size in (2, 4, 8, 16))):
        assert plan.count(f"    cupy {path}: ") >= 2, path  # parity and epochs
    for peer in ("torch-eager", "torch-graphs", "torch-compile", "jax-scan", "jax-vmap k1024"):
        assert f"    {peer}: " in plan
    assert "cupy cluster:8 k1024: " in plan
    for stage in study.STAGES.values():
        rows = [(row.name, row.path, row.variant) for row in stage()]
        assert len(set(rows)) == len(rows)
    assert study.STAGE_SECONDS < 240
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_stage_is_wrong_usage(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["--only", "probe,speed"]) == 2
    assert "unknown stage 'speed' from --only; choose some of probe, tests, parity" in capsys.readouterr().out


@pytest.mark.skipif(registry.unavailable("cupy") is None, reason="there is a GPU: the study itself shows more")
def test_without_a_gpu_each_row_says_so_in_the_result_file(study: Any, tmp_path: Path) -> None:
    assert study.main(["--only", "probe", "--output", str(tmp_path)]) == 3
    result = json.loads((tmp_path / "gpu_probe.json").read_text())
    assert (result["schema"], result["config"]["stage"]) == (2, "probe")
    assert {"cpu", "commit", "date"} <= set(result["environment"])
    (row,) = result["results"]
    assert (row["name"], row["kind"], row["status"], row["epoch_seconds"]) == ("cupy", "backend", "unavailable", None)
    assert row["reason"]


def test_a_row_that_hangs_dies_or_fails_costs_only_itself(study: Any) -> None:
    start = time.monotonic()
    row = study.run(study.Plan("cupy", functools.partial(time.sleep, 300)), 2)
    assert time.monotonic() - start < 60
    assert (row["status"], row["reason"]) == ("failed", "stopped after 2 s: the time of the stage is up")
    row = study.run(study.Plan("cupy", functools.partial(os._exit, 7)), 200)
    assert (row["status"], row["reason"]) == ("failed", "the process died with exit code 7")
    row = study.run(study.Plan("cupy", divmod, {}), 200)
    assert (row["status"], row["epoch_seconds"]) == ("failed", None)
    assert "TypeError" in row["reason"]


def test_a_loss_that_is_not_finite_is_a_mismatch_and_no_number_of_the_file(study: Any) -> None:
    plan = study.Plan("cupy", dict, {"loss": [2.0, float("nan")], "deep": [{"number": float("inf")}]}, path="graph")
    row = study.run(plan, 200)
    assert (row["status"], row["reason"]) == ("mismatch", "a loss is not finite")
    assert (row["loss"], row["deep"], row["path"]) == ([2.0, None], [{"number": None}], "graph")


@pytest.mark.parametrize("path", ["cluster:8", "graph"])
def test_our_rows_hold_a_path_to_numpy(study: Any, few_samples: int, emulated: None, path: str) -> None:
    fields = study.ours.parity(path)
    assert fields["mismatch"] is None
    assert 0 < fields["steps_parameter_difference"] < 2e-5


def test_our_rows_have_both_clocks(study: Any, few_samples: int, emulated: None) -> None:
    fields = study.ours.times("cluster:8", networks=2, epochs=1)
    assert fields["mismatch"] is None
    assert len(fields["epoch_seconds"]["samples"]) == len(fields["device_seconds"]["samples"]) == 1
    assert len(fields["loss"]) == 2
    assert fields["model_epochs_per_second"] == pytest.approx(2 / fields["epoch_seconds"]["median"])


@pytest.mark.parametrize(("peer", "networks"), [("torch", 1), ("jax", 1), ("jax", 2)])
def test_the_peers_train_as_numpy_does(study: Any, few_samples: int, peer: str, networks: int) -> None:
    pytest.importorskip(peer, reason=f"{peer} is not installed")
    fields = study.peers.times(peer, "eager", networks=networks, epochs=1, device="cpu")
    assert fields["mismatch"] is None
    assert fields["device_seconds"] is None
    assert len(fields["loss"]) == 2
    assert np.isfinite(fields["loss"]).all()


def test_a_peer_with_another_loss_is_a_mismatch(study: Any, few_samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    right = study.peers.JaxEngine.read
    monkeypatch.setattr(study.peers.JaxEngine, "read", lambda self: ([1.1 * right(self)[0][0]], None))
    fields = study.peers.times("jax", epochs=1, device="cpu")
    assert "the loss of the first epoch is" in fields["mismatch"]
