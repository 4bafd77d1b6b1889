"""Paths are tried in a process of their own: what travels there, what faults cost, and what is kept on disk."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlp_accel import BackendUnavailableError
from mlp_accel.backends.cupy import verdicts
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.backends.cupy.elementwise import activation_source, rule_source
from mlp_accel.backends.cupy.portable import packed, unpacked
from mlp_accel.backends.paths import Task
from tests.backends.cupy.emulator import FOLDER_VARIABLE
from tests.backends.cupy.fake_cupy import FakeCupy
from tests.backends.cupy.small import ACTIVATIONS, RULES, SGD, TANH, rule_of, trainer_by

ROOT = Path(__file__).parents[3]
STAND_IN = Path(__file__).parent / "stand_in"
TRIED_ELSEWHERE, FILE = verdicts.tried_elsewhere, verdicts._file
SMALL = Task((20, 12, 5), 16, "float32", "uint8", 1.0, TANH, "exact", SGD)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_travels_as_what_was_recorded_of_it(activation: str) -> None:
    task = replace(SMALL, activation=ACTIVATIONS[activation])
    there = unpacked(json.loads(json.dumps(packed(task))))
    assert activation_source(there.activation) == activation_source(task.activation)
    assert there.activation.name == task.activation.name
    assert replace(there, activation=TANH, rule=SGD) == replace(task, activation=TANH, rule=SGD)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_travels_as_what_was_recorded_of_it(rule: str) -> None:
    task = replace(SMALL, rule=rule_of(rule))
    there = unpacked(json.loads(json.dumps(packed(task))))
    assert rule_source(there.rule) == rule_source(task.rule)
    assert there.rule.n_slots == task.rule.n_slots


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def elsewhere(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernels: str) -> Callable[..., Path]:
    """Paths are tried in real processes, in which kernels have faults; returns the folder of the verdicts."""

    def put(seconds: float = 60.0, **faults: str) -> Path:
        monkeypatch.setattr(verdicts, "tried_elsewhere", TRIED_ELSEWHERE)
        monkeypatch.setattr(verdicts, "_file", FILE)
        monkeypatch.setattr(verdicts, "SECONDS_TO_TRY", seconds)
        monkeypatch.setenv("MLP_ACCEL_CACHE_DIR", str(tmp_path))
        monkeypatch.setenv(FOLDER_VARIABLE, kernels)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(STAND_IN)]))
        monkeypatch.setenv("FAKE_CUPY", json.dumps({"faults": faults}))
        return tmp_path / verdicts.FOLDER

    return put


def test_a_path_that_is_right_is_tried_once_for_all_processes(cupy: FakeCupy, elsewhere: Callable[..., Path]) -> None:
    folder = elsewhere()
    assert trainer_by("graph", CupyBackend()).taken.name == "graph"
    assert [entry for entry in cupy.events if entry.startswith("launch")] == []
    (file,) = folder.iterdir()
    content = json.loads(file.read_text())
    assert (content["problem"], content["where"], content["path"]) == (None, "in a process of its own", "graph")
    assert {"gpu", "driver", "cupy", "nvrtc", "kernels", "tf32"} <= set(content)
    elsewhere(forward_0="crash")
    assert trainer_by("graph", CupyBackend()).taken.name == "graph"  # another backend finds the verdict
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("sticky", "it fails (CUDARuntimeError: cudaErrorIllegalAddress: an illegal memory access was encountered)"),
        ("hang", "it hangs: two steps did not end within 9 s"),
        ("crash", "it fails: its trial ended with signal 11"),
        ("nan", "its results are wrong: after two steps they differ from the loop by nan"),
    ],
)
def test_a_fault_costs_its_path_alone_and_is_remembered(
    cupy: FakeCupy, elsewhere: Callable[..., Path], caplog: pytest.LogCaptureFixture, fault: str, reason: str
) -> None:
    folder = elsewhere()
    assert trainer_by("graph", CupyBackend()).taken.name == "graph"  # which also compiles for the emulator
    elsewhere(seconds=9.0 if fault == "hang" else 60.0, train_epoch=fault)
    for _ in range(2):
        trainer = trainer_by(None, CupyBackend())
        assert trainer.taken.name == "graph"
        assert f"not cluster: {reason}" in str(trainer.taken)
        elsewhere()  # nothing is tried again
    assert reason in caplog.text
    files = [file for file in folder.iterdir() if json.loads(file.read_text())["path"] == "cluster"]
    assert files, "one for each kernel of the path"
    assert any(f"(kept in {file}; without that file it is tried again)" in str(trainer.taken) for file in files)
    assert np.isfinite(trainer.epoch().losses[0])


def test_where_a_second_context_is_refused_the_path_is_tried_here_which_is_said(
    cupy: FakeCupy, elsewhere: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = elsewhere(context="busy")
    with caplog.at_level(logging.WARNING, "mlp_accel"):
        assert trainer_by("steps", CupyBackend()).taken.name == "steps"
    assert "the path steps is tried in this process" in caplog.text
    assert "cudaErrorDevicesUnavailable" in caplog.text
    (file,) = folder.iterdir()
    assert "in the training's own process" in json.loads(file.read_text())["where"]


def test_a_trial_here_that_breaks_the_context_is_an_error_and_the_next_process_passes_over_the_path(
    cupy: FakeCupy, elsewhere: Callable[..., Path]
) -> None:
    folder = elsewhere(context="busy")
    cupy.faults["train_epoch"] = "sticky"
    with pytest.raises(BackendUnavailableError, match="the trial of the path cluster has broken the GPU context of this process"):
        trainer_by(None, CupyBackend())
    (file,) = folder.iterdir()
    assert "cudaErrorIllegalAddress" in json.loads(file.read_text())["problem"]
    cupy.dead = False
    assert trainer_by(None, CupyBackend()).taken.name == "graph"


def test_a_trial_here_that_never_ends_is_found_by_the_next_process(
    cupy: FakeCupy, elsewhere: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = elsewhere(context="busy")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlp_accel.backends.cupy.paths.base.problem_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer_by("steps", CupyBackend())
    monkeypatch.undo()
    assert json.loads(next(folder.iterdir()).read_text())["problem"] == verdicts.NEVER_ENDED


def test_a_process_that_cannot_be_started_is_a_refusal(
    cupy: FakeCupy, elsewhere: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere()
    monkeypatch.setattr(sys, "executable", str(ROOT / "no-python"))
    assert trainer_by("steps", CupyBackend()).taken.name == "steps"
    assert "it cannot be started" in caplog.text


def test_a_cache_that_cannot_be_written_is_said(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(verdicts, "_file", FILE)
    monkeypatch.setenv("MLP_ACCEL_CACHE_DIR", str(tmp_path / "file"))
    assert trainer_by("steps", CupyBackend()).taken.name == "steps"
    assert "paths are tried at every start, because the verdicts cannot be kept" in caplog.text
