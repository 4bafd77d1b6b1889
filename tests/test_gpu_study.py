"""The study of the GPU as far as it goes without one: its plan, its files, peers on the CPU, our rows and faults on the shim."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel import backends as registry
from mlp_accel.backends.cupy import probe as cupy_probe
from mlp_accel.backends.cupy import verdicts
from tests.backends.cupy.conftest import try_in_this_process
from tests.backends.cupy.emulator import FOLDER_VARIABLE, need_compiler
from tests.backends.cupy.fake_cupy import FakeCupy

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
STAND_IN = Path(__file__).parent / "backends" / "cupy" / "stand_in"
SOON = 120.0
"""Seconds after which something should have happened on a machine that is busy."""


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_study")


@pytest.fixture
def little(study: Any) -> Any:
    """How much is done for a figure: next to nothing."""
    return study.Effort(seconds=0.001, samples=150)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of compiled kernels that all processes share."""
    return str(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch, study: Any, kernels: str) -> None:
    """In this process CuPy is the stand-in."""
    need_compiler()
    monkeypatch.setenv(FOLDER_VARIABLE, kernels)
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy())
    for module in (study.device, study.ours):
        monkeypatch.setattr(module, "unavailable", registry.unavailable.__wrapped__)
    monkeypatch.setattr(cupy_probe, "check_cuda_libraries", lambda: None)
    monkeypatch.setattr(verdicts, "tried_elsewhere", try_in_this_process)
    monkeypatch.setattr(verdicts, "_file", lambda subject: None)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernels: str) -> Callable[..., None]:
    """In processes that this one starts CuPy is the stand-in, with faults."""
    need_compiler()

    def put(**faults: str) -> None:
        for folder in (ROOT, STAND_IN):
            monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(STAND_IN)]))
        monkeypatch.setenv("FAKE_CUPY", json.dumps({"faults": faults}))
        monkeypatch.setenv(FOLDER_VARIABLE, kernels)
        monkeypatch.setenv("MLP_ACCEL_CACHE_DIR", str(tmp_path / "cache"))

    return put


def rows_of(folder: Path, name: str) -> dict[str, Any]:
    """The rows of a result file by stage and label."""
    content = json.loads((folder / f"gpu_{name}.json").read_text())
    assert content["schema"] == 2
    labels = (" ".join(filter(None, (row["name"], row["path"], row["variant"]))) for row in content["results"])
    return {f"{row.get('stage')}: {label}": row for label, row in zip(labels, content["results"], strict=True)}


# The plan -------------------------------------------------------------------------------------------------------------------------


def test_the_plan_names_every_stage_and_row(study: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert study.main(["--dry-run", "--output", str(tmp_path)]) == 0
    plan = capsys.readouterr().out
    for stage in study.STAGES:
        assert re.search(rf"^{stage}: at most \d+ s, about \d+ s\. ", plan, re.MULTILINE)
    for path in ("loop", "steps", "graph", "cluster", *(f"cluster:{size}" for size in (2, 4, 8, 16))):
        assert plan.count(f"    cupy {path}: ") >= 2, path  # parity and epochs
    for peer in ("torch-eager", "torch-graphs", "torch-compile", "jax-scan", "jax-vmap k1024"):
        assert f"    {peer}: " in plan
    for row in ("cupy sends:8", "cupy cluster_barriers:16", "cupy cluster k1024", "cupy cluster racecheck", "cupy cluster ncu"):
        assert f"    {row}: " in plan
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("minutes", [25, 15, 10])
def test_the_plan_keeps_to_the_minutes_and_each_command_to_nine(
    study: Any, capsys: pytest.CaptureFixture[str], minutes: int
) -> None:
    assert study.main(["--dry-run", "--minutes", str(minutes)]) == 0
    plan = capsys.readouterr().out
    commands = re.findall(r"--minutes (\d+) --only (\S+) --output DIR   # at most ([\d.]+) min", plan)
    assert [stage for _, only, _ in commands for stage in only.split(",")] == list(study.STAGES)
    assert all(float(at_most) <= 9 for *_, at_most in commands)
    assert sum(float(at_most) for *_, at_most in commands) <= 0.81 * minutes
    limits = dict(re.findall(r"^(\w+): at most (\d+) s", plan, re.MULTILINE))
    for _, only, _ in commands:  # a printed command has the same limits
        assert study.main(["--dry-run", "--minutes", str(minutes), "--only", only]) == 0
        again = dict(re.findall(r"^(\w+): at most (\d+) s", capsys.readouterr().out, re.MULTILINE))
        assert again == {stage: limits[stage] for stage in only.split(",")}


def test_rows_of_a_stage_differ_in_their_names(study: Any, little: Any) -> None:
    for stage in study.STAGES.values():
        rows = [(row.name, row.path, row.variant) for row in stage.rows(little, 100.0)]
        assert len(set(rows)) == len(rows)


def test_a_stage_or_a_row_that_there_is_not_is_wrong_usage(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["--only", "probe,speed"]) == 2
    assert "unknown stage 'speed' from --only; choose some of probe, parity, tests" in capsys.readouterr().out
    assert study.main(["--only", "probe", "--rows", "cluster:9"]) == 2
    assert "no row has any of 'cluster:9' from --rows in its name" in capsys.readouterr().out


# Processes, files -----------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(registry.unavailable("cupy") is None, reason="there is a GPU: the study itself shows more")
def test_without_a_gpu_each_row_says_so_in_the_result_file(study: Any, tmp_path: Path) -> None:
    assert study.main(["--only", "probe", "--rows", "device,launches", "--output", str(tmp_path)]) == 3
    content = json.loads((tmp_path / "gpu_probe.json").read_text())
    assert content["config"]["stages"] == ["probe"]
    assert {"cpu", "commit", "date"} <= set(content["environment"])
    assert len(content["results"]) == 2
    for row in content["results"]:
        assert (row["name"], row["kind"], row["status"], row["epoch_seconds"]) == ("cupy", "backend", "unavailable", None)
        assert row["reason"]


def test_a_row_that_hangs_dies_or_fails_costs_only_itself(study: Any, tmp_path: Path) -> None:
    workers, child = study.Workers(tmp_path / "log"), tmp_path / "child"
    plans = {
        "good": study.Plan("cupy", dict, {"answer": np.float32(1.5)}),
        "hangs": study.Plan("cupy", functools.partial(os.system, f"sleep 300 & echo $! > {child}; wait"), limit=4),
        "dies": study.Plan("cupy", functools.partial(os._exit, 7)),
        "fails": study.Plan("cupy", divmod, {}),
        "still good": study.Plan("cupy", dict, {"answer": 2}),
    }
    begin = time.monotonic()
    rows = {name: workers.run(plan, 200.0) for name, plan in plans.items()}
    workers.end()
    assert time.monotonic() - begin < SOON
    expected = {"good": "ok", "hangs": "failed", "dies": "failed", "fails": "failed", "still good": "ok"}
    assert {name: row["status"] for name, row in rows.items()} == expected
    assert (rows["good"]["answer"], rows["still good"]["answer"]) == (1.5, 2)
    assert rows["hangs"]["reason"] == "stopped after 4 s"
    assert is_dead(int(child.read_text()))
    assert rows["dies"]["reason"] == "the process died (exit code 7)"
    assert rows["fails"]["reason"].startswith("TypeError: ")
    assert "TypeError" in (tmp_path / "log").read_text()
    assert workers.run(plans["good"], 1.0)["reason"] == "not begun: the time of the stage is up"


def is_dead(process: int) -> bool:
    """Whether it has ended, even if nobody has asked about it yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_what_failed_in_a_used_process_is_tried_once_more_in_a_new_one(study: Any, tmp_path: Path) -> None:
    """A row may have broken the context of its process without showing it."""
    workers = study.Workers(tmp_path / "log")
    assert workers.run(study.Plan("cupy", dict), 200.0)["status"] == "ok"
    row = workers.run(study.Plan("cupy", divmod), 200.0)
    workers.end()
    assert row["failed_before"].startswith("in a process that had measured other rows: TypeError")


def test_numbers_that_json_lacks_are_none_and_a_loss_that_is_not_finite_is_a_mismatch(study: Any, tmp_path: Path) -> None:
    workers = study.Workers(tmp_path / "log")
    plan = study.Plan("cupy", dict, {"loss": [2.0, float("nan")], "deep": [{"number": float("inf")}]}, path="graph")
    row = workers.run(plan, 200.0)
    workers.end()
    assert (row["status"], row["reason"]) == ("mismatch", "a loss is not finite")
    assert (row["loss"], row["deep"], row["path"]) == ([2.0, None], [{"number": None}], "graph")


def test_a_command_that_is_killed_has_left_its_file_and_log_and_no_process(tmp_path: Path, stand_in: Callable[..., None]) -> None:
    stand_in(nothing="hang")
    command = [sys.executable, str(BENCHMARKS / "gpu_study.py"), "--only", "probe", "--rows", "launches,block_barriers"]
    for sign in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen([*command, "--output", str(tmp_path)], start_new_session=True, stdout=subprocess.DEVNULL)
        wait_until(
            lambda: (tmp_path / "gpu_probe.log").exists() and "--- cupy launches" in (tmp_path / "gpu_probe.log").read_text()
        )
        group = members(process.pid)
        assert len(group) >= 1
        process.send_signal(sign)
        process.wait()
        for member in group:
            wait_until(functools.partial(is_dead, member))
        begun, not_begun = json.loads((tmp_path / "gpu_probe.json").read_text())["results"]
        assert (begun["status"], begun["reason"]) == ("failed", "begun, and the command was ended in it")
        assert (not_begun["status"], not_begun["reason"]) == ("failed", "not begun: the command was ended before")
        (tmp_path / "gpu_probe.log").unlink()


def members(session: int) -> list[int]:
    """The processes of a session, but for the one that it is called after."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[3] == str(session):
                found.append(int(path.parent.name))
    return [process for process in found if process != session]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


# Every stage on the stand-in, with faults -----------------------------------------------------------------------------------------


LITTLE = ["--samples", "40", "--seconds", "0.001"]


def test_each_fault_costs_its_row_alone(
    study: Any, stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(nothing="sticky", cluster_barriers="crash", block_barriers="hang", finish_layer="nan", forward_0="memory")
    chosen = {
        "probe": ("cupy device", "cupy launches", "cupy cluster_barriers:2", "cupy block_barriers:1"),
        "parity": ("cupy loop",),
        "epochs": ("cupy steps",),
    }
    for name, labels in chosen.items():
        stage = study.STAGES[name]
        monkeypatch.setitem(study.STAGES, name, replace(stage, rows=functools.partial(_chosen, stage.rows, labels)))
    only = ["--minutes", "1000", "--only", ",".join(chosen), "--output", str(tmp_path), *LITTLE]
    assert study.main(only) == 1
    found = rows_of(tmp_path, "probe-parity-epochs")
    verdicts = {label: (row["status"], str(row["reason"])) for label, row in found.items()}
    reasons = {
        "probe: cupy device": ("ok", "None"),
        "probe: cupy launches": ("failed", "CUDARuntimeError: cudaErrorIllegalAddress"),
        "probe: cupy cluster_barriers:2": ("failed", "the process died (signal SIGSEGV)"),
        "probe: cupy block_barriers:1": ("failed", "stopped after 10 s"),
        "parity: cupy loop": ("mismatch", "the loss is nan in epoch 1"),
        "epochs: cupy steps": ("failed", "DeviceMemoryError: out of memory on cuda:0"),
    }
    assert verdicts.keys() == reasons.keys()
    for label, (status, reason) in reasons.items():
        assert verdicts[label][0] == status, (label, verdicts[label])
        assert verdicts[label][1].startswith(reason), (label, verdicts[label])
    log = (tmp_path / "gpu_probe-parity-epochs.log").read_text()
    assert log.index("probe: cupy device ok") < log.index("--- cupy launches") < log.index("Traceback")


def _chosen(rows: Any, labels: tuple[str, ...], *arguments: Any) -> list[Any]:
    """Some of the rows, with limits for a machine that is busy; that of the one that hangs is short."""
    limits = {"block_barriers:1": 10.0}
    return [replace(row, limit=limits.get(row.variant, 500.0)) for row in rows(*arguments) if row.label in labels]


def test_our_rows_hold_a_path_to_numpy(study: Any, little: Any, emulated: None) -> None:
    fields = study.ours.parity("graph", little, study.TABLE)
    assert fields["mismatch"] is None
    assert 0 < fields["parameter_difference"] < 2e-5
    assert fields["loss"] == pytest.approx([fields["numpy_loss"]], rel=1e-5)


def test_our_rows_have_both_clocks_and_each_network_is_held_to_numpy(
    study: Any, little: Any, emulated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = study.ours.times("steps", little, study.TABLE, networks=2)
    assert fields["mismatch"] is None
    assert fields["epochs"] == fields["epoch_seconds"]["of_samples"] == len(fields["device_seconds"]["samples"])
    assert fields["taken"] == "steps"
    assert set(fields["clocks"]) == {"before", "after"}
    assert fields["model_epochs_per_second"] == pytest.approx(2 / fields["epoch_seconds"]["median"])
    last = study.ours.trainer
    monkeypatch.setattr(study.ours, "trainer", lambda *a, first_seed=0, **k: last(*a, first_seed=first_seed and 7, **k))
    assert study.ours.times("steps", little, study.TABLE, networks=2)["mismatch"].startswith("the first loss of network 1 is ")


def test_the_map_says_who_is_fastest_and_what_the_rule_takes(
    study: Any, little: Any, emulated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(capability="80", shared_limit=166_912))
    fields = study.ours.cell(4, 16, replace(little, samples=32))
    assert {"loop", "graph", "numpy"} <= set(fields["seconds_per_step"])
    assert fields["rule"] == "graph"
    assert fields["fastest"] in fields["seconds_per_step"]
    assert fields["rule_costs"] == fields["seconds_per_step"]["graph"] / fields["seconds_per_step"][fields["fastest_on_gpu"]]


def test_the_clock_of_the_gpu_is_waited_for(study: Any) -> None:
    timing = importlib.import_module("gpu_stages.timing")
    speeds, work = iter([345.0, 1200.0, 1980.0, 1980.0, 1980.0]), []
    timing.warm_up(lambda: work.append(1), 0.0, lambda: {"sm_mhz": next(speeds)})
    assert next(speeds) == 1980.0
    assert len(work) == 4
    timing.warm_up(lambda: work.append(1), 0.0, lambda: None)
    assert len(work) == 6


# Other programs -------------------------------------------------------------------------------------------------------------------

SOME_TESTS = """
import time
import pytest

pytestmark = pytest.mark.cupy

def test_passes(): pass
def test_fails(): assert 1 == 2
def test_lacks(): pytest.importorskip("no_such_package")
def test_hangs(): time.sleep({seconds})
"""


@pytest.mark.parametrize(("hang", "verdict"), [(0, "pytest: exit status 1: "), (300, "pytest did not end within 10 s; so far: ")])
def test_the_gpu_tests_are_counted_even_if_one_hangs(study: Any, emulated: None, tmp_path: Path, hang: int, verdict: str) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(SOME_TESTS.format(seconds=hang))
    fields = study.tools.gpu_tests(("-p", "tests.conftest", str(file), "-p", "no:xdist"), 10.0 if hang else 300.0)
    assert fields["mismatch"].startswith(verdict)
    if not hang:
        assert fields["tests"] == {"passed": 2, "failed": 1, "skipped": 1}
        assert any("test_fails" in line for line in fields["output"])


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("echo '========= ERROR SUMMARY: 0 errors'", None),
        ("echo '========= ERROR SUMMARY: 2 errors'; exit 86", "memcheck: ERROR SUMMARY: 2 errors"),
        ("exit 9", "memcheck: exit status 9"),
        ("sleep 300", "memcheck did not end within 1 s"),
    ],
)
def test_what_compute_sanitizer_finds_is_a_mismatch(
    study: Any, emulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, verdict: str | None
) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert study.tools.sanitizer("memcheck", "cluster", 1.0 if "sleep" in script else 300.0)["mismatch"] == verdict


def test_tools_that_are_not_there_or_cannot_run_are_unavailable(
    study: Any, emulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(study.device.UnavailableError, match="ncu is not on the PATH"):
        study.tools.profile("cluster", "train", 1.0)
    program = tmp_path / "compute-sanitizer"
    program.write_text("#!/bin/sh\necho '========= Error: Device not supported'\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(study.device.UnavailableError, match="Device not supported"):
        study.tools.sanitizer("memcheck", "cluster", 300.0)


def test_the_small_training_for_the_tools_runs(stand_in: Callable[..., None]) -> None:
    stand_in()
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu_stages" / "small_training.py", "loop"], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:11]) == (0, "loop: loss "), done.stderr


# Peers ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "networks", "case"), [("torch", 1, "MNIST"), ("torch", 1, "TABLE"), ("jax", 1, "TABLE"), ("jax", 2, "MNIST")]
)
def test_the_peers_train_as_numpy_does(study: Any, little: Any, peer: str, networks: int, case: str) -> None:
    pytest.importorskip(peer, reason=f"{peer} is not installed")
    fields = study.peers.times(peer, "eager", little, case=getattr(study, case), networks=networks, device="cpu")
    assert fields["mismatch"] is None
    assert fields["device_seconds"] is None
    assert np.isfinite(fields["loss"]).all()


def test_a_peer_with_another_loss_is_a_mismatch(study: Any, little: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    right = study.peers.JaxEpochs._read
    monkeypatch.setattr(study.peers.JaxEpochs, "_read", lambda self: ([1.1 * right(self)[0][0]], None))
    assert "its first loss is" in study.peers.times("jax", "", little, device="cpu")["mismatch"]


@pytest.mark.parametrize("peer", ["torch", "jax"])
def test_a_peer_that_is_not_there_or_sees_no_gpu_is_unavailable(
    study: Any, little: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, peer: str
) -> None:
    monkeypatch.setitem(sys.modules, peer, None)
    with pytest.raises(ModuleNotFoundError):
        study.peers.times(peer, "graphs", little)
