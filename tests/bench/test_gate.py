"""The gate: what it does with real workers, and with builds that fail, lie or lack something."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlp_accel
from mlp_accel import harness
from mlp_accel.bench.gate import builds
from mlp_accel.bench.gate import launches as gate
from mlp_accel.bench.gate import worker as gate_worker
from mlp_accel.bench.gate.launches import BASE, CONTROL, HEAD, GateSettings, Launch, LaunchError, run_gate, run_launch, write_inputs
from mlp_accel.bench.gate.measures import MEASURES
from mlp_accel.bench.gate.paired import INCONCLUSIVE, NO_SLOWDOWN, SLOWER
from mlp_accel.bench.gate.plot import plot_gate
from mlp_accel.cli.ab import _lines


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("inputs")
    y = rng.integers(0, 3, 300)
    x = (rng.normal(size=(300, 8)) + 3 * np.eye(3, 8)[y]).astype(np.float32)
    np.savez(folder / "clouds.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    config = {
        "backend": "numpy",
        "dtype": "float32",
        "threads": 1,
        "activation": "tanh",
        "gradient": "exact",
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "momentum": None,
        "weight_decay": 0.0,
        "path": "auto",
        "batch_size": 16,
        "seed": 0,
        "hidden": [6],
        "data": str(folder / "clouds.npz"),
        "inputs": str(folder / "inputs.npz"),
    }
    assert write_inputs(folder / "inputs.npz", config) == config["data"]
    return config


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_package(tmp_path_factory.mktemp("build"))


def copy_package(folder: Path, planted: str = "", module: str = "training/trainer") -> Path:
    """A build: a copy of the package, with `planted` at the end of one of its modules."""
    ignored = shutil.ignore_patterns("mnist", "__pycache__")
    package = shutil.copytree(Path(mlp_accel.__file__).parent, folder / "mlp_accel", ignore=ignored)
    with (package / f"{module}.py").open("a") as file:
        file.write(f"\n{planted}\n")
    return folder


def test_a_launch_times_every_build_in_every_round(config: dict[str, Any], build: Path) -> None:
    launch = run_launch({BASE: build, HEAD: build}, config, 7, random.Random(0))
    assert {name: len(times) for name, times in launch.seconds.items()} == {BASE: 7, HEAD: 7}
    assert all(0 < time < 10 for times in launch.seconds.values() for time in times)
    assert launch.paths == {BASE: "loop", HEAD: "loop"}


def test_the_package_that_is_measured_is_the_one_in_the_build(config: dict[str, Any], build: Path, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"head: .* not from the build in"):
        run_launch({BASE: build, HEAD: tmp_path}, config, 1, random.Random(0))  # empty: this process's own would be found


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ("del Trainer", "head: ImportError: cannot import name 'Trainer'"),
        ("import os\nTrainer.epoch = lambda self: os._exit(7)", "head: the worker died in 'warm_up': exit status 7"),
        ("Trainer.epoch = lambda self: EpochResult([float('nan')], [0], 0)", "head does not compute .* the loss is nan"),
        (
            "_i = Trainer.__init__\ndef half(s, x, y, *a, **k): _i(s, x[:150], y[:150], *a, **k)\nTrainer.__init__ = half",
            "not compute",
        ),
    ],
)
def test_a_build_that_fails_or_computes_something_else_is_inconclusive_with_the_reason(
    config: dict[str, Any], build: Path, tmp_path: Path, planted: str, reason: str
) -> None:
    with pytest.raises(LaunchError, match=reason):
        run_launch({BASE: build, HEAD: copy_package(tmp_path, planted)}, config, 1, random.Random(0))
    result = run_gate(build, tmp_path, config, GateSettings(threshold=0.03, launches=7, rounds=6))
    assert (result["verdict"], result["runs"]) == (INCONCLUSIVE, [])
    assert result["reason"].startswith("a run failed: head")


def test_builds_train_with_the_optimizer_and_the_path_that_they_are_told(config: dict[str, Any], build: Path) -> None:
    told = {**config, "optimizer": "adamw", "weight_decay": 0.1, "learning_rate": 0.01, "path": "loop"}
    assert run_launch({BASE: build, HEAD: build}, told, 1, random.Random(0)).paths == {BASE: "loop", HEAD: "loop"}
    with pytest.raises(LaunchError, match="has no path 'sparse'"):
        run_launch({BASE: build}, {**told, "path": "sparse"}, 1, random.Random(0))
    with pytest.raises(LaunchError, match="has no setting momentum"):
        run_launch({BASE: build}, {**told, "momentum": 0.9}, 1, random.Random(0))


def test_a_harness_of_another_version_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    assert harness.VERSION == gate_worker.HARNESS_VERSION
    other = copy_package(tmp_path, "VERSION = 99", "harness")
    with pytest.raises(LaunchError, match=r"head: .*harness has the version 99; this worker knows 1"):
        run_launch({HEAD: other}, config, 1, random.Random(0))


def test_the_harness_trains_as_the_package_does(config: dict[str, Any]) -> None:
    with np.load(config["inputs"]) as inputs:
        x, y, params = inputs["x"], inputs["y"], [(inputs["w0"], inputs["b0"]), (inputs["w1"], inputs["b1"])]
    names = ("backend", "dtype", "threads", "batch_size", "learning_rate", "activation", "gradient", "seed", "path")
    given = {**{name: config[name] for name in names}, "optimizer": "momentum", "settings": {"momentum": 0.5, "weight_decay": None}}
    training = harness.MeasuredTraining(x, y, params, **given)
    history = mlp_accel.mini_batch_sgd(
        *(x, y, params),
        epochs=3,
        batch_size=16,
        learning_rate=0.1,
        optimizer="momentum",
        momentum=0.5,
        backend="numpy",
        threads=1,
    )
    assert [training.epoch() for _ in range(3)] == history.loss
    assert (training.device, training.path) == ("cpu", "loop")


# Builds that are older than the harness ----------------------------------------------------------------------------------------

OLDER_PACKAGE = {
    "__init__": "",
    "backends": """
import contextlib
class OldBackend:
    device = "cpu"
    epoch_path = "ops"
    @contextlib.contextmanager
    def limit_threads(self, count):
        yield
    def synchronize(self):
        pass
def get_backend(name, dtype):
    return OldBackend()""",
    "training": """
import dataclasses
@dataclasses.dataclass
class SGDStep:
    learning_rate: float
    activation: str
    gradient: str
class Trainer:
    def __init__(self, x, y, params, step, backend, *, batch_size, seed):
        assert (step.learning_rate, step.activation, step.gradient, batch_size, seed) == (0.1, "tanh", "exact", 16, 0)
        self.backend = backend
    def epoch(self):
        self.backend.epoch_path = "its fused epoch"
        return 0.5, 0.75, 0.01""",
}
"""What the worker knows of the form that the package had."""


def test_a_build_without_a_harness_is_measured_in_the_form_that_it_had(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mlp_accel").mkdir()
    for name, source in OLDER_PACKAGE.items():
        (tmp_path / "mlp_accel" / f"{name}.py").write_text(source)
    launch = run_launch({BASE: tmp_path, CONTROL: tmp_path}, {**config, "path": "sparse"}, 3, random.Random(0))
    assert launch.paths == {BASE: "its fused epoch", CONTROL: "its fused epoch"}
    assert all(len(times) == 3 for times in launch.seconds.values())


OLDER_COMMIT = "5506066"


def test_the_last_commit_without_a_harness_computes_what_this_one_does(config: dict[str, Any], build: Path, tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    known = subprocess.run(
        ["git", "-C", str(root), "cat-file", "-e", f"{OLDER_COMMIT}^{{commit}}"], capture_output=True, check=False
    )
    if known.returncode:
        pytest.skip(f"the commit {OLDER_COMMIT} is not here")
    assert not builds.has_file(root, OLDER_COMMIT, "mlp_accel/harness.py")
    builds.export_commit(root, OLDER_COMMIT, tmp_path / "base")
    launch = run_launch({BASE: tmp_path / "base", HEAD: build}, config, 2, random.Random(0))
    assert launch.paths == {BASE: "fused loop", HEAD: "loop"}


COST = """
_ticks, _epoch = [0.0], Trainer.epoch
def epoch(self):
    _ticks[0] += {}
    return _epoch(self)
Trainer.epoch, time.perf_counter = epoch, lambda: _ticks[0]"""
"""A clock that moves with the epochs alone, so that the test does not depend on how busy the machine is."""


def test_a_build_that_takes_longer_is_slower(config: dict[str, Any], tmp_path: Path) -> None:
    base, slow = (copy_package(tmp_path / str(cost), COST.format(cost)) for cost in (1.0, 1.05))
    heard: list[str] = []
    result = run_gate(base, slow, config, GateSettings(threshold=0.03, launches=7, rounds=6), listen=heard.append)
    assert result["verdict"] == SLOWER, result["reason"]
    first, second = result["runs"]
    assert first["change"] == pytest.approx(0.05)
    assert first["control"] == pytest.approx(0)
    assert len(second["launches"]) == 7
    assert any("once more" in line for line in heard)
    json.dumps(result, allow_nan=False)


def invented_launches(monkeypatch: pytest.MonkeyPatch, *runs: tuple[float, float]) -> None:
    """Launches that were never run: for each run, what head and control cost more than the base."""
    rng = np.random.default_rng(0)
    costs = (pair for pair in runs for _ in range(10))

    def launch(builds: Any, config: Any, rounds: int, rng_of_order: Any) -> Launch:
        head, control = next(costs)
        costs_of_each = ((BASE, 1), (HEAD, 1 + head), (CONTROL, 1 + control))
        seconds = {name: list(cost * rng.normal(1, 0.01, rounds)) for name, cost in costs_of_each}
        return Launch(seconds, dict.fromkeys(seconds, "loop"))

    monkeypatch.setattr(gate, "run_launch", launch)


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ([(0, 0)], NO_SLOWDOWN),
        ([(-0.2, 0)], NO_SLOWDOWN),
        ([(0.05, 0), (0.05, 0)], SLOWER),
        ([(0.05, 0), (0, 0)], INCONCLUSIVE),
        ([(0, 0.05), (0, 0)], NO_SLOWDOWN),
        ([(0, 0.05), (0, -0.05)], INCONCLUSIVE),
        ([(0.05, 0.05), (0.05, 0)], INCONCLUSIVE),
    ],
)
def test_suspicion_has_a_second_run(monkeypatch: pytest.MonkeyPatch, runs: list[tuple[float, float]], verdict: str) -> None:
    invented_launches(monkeypatch, *runs)
    monkeypatch.setattr(gate, "LOOKS", ())  # all of them have ten launches
    result = run_gate(Path("a"), Path("b"), {"backend": "numpy", "seed": 0}, GateSettings(threshold=0.03))
    assert result["verdict"] == verdict
    assert len(result["runs"]) == len(runs)
    environment = {"cpu": "a CPU", "date": "2026-01-01T00:00:00"}
    unavailable = {"backend": "cupy", "verdict": "unavailable", "reason": "not installed", "runs": []}
    report = {"environment": environment, "config": {"base": "main", "threads": 1, "threshold": 0.03}}
    figure = plot_gate({**report, "results": [result, unavailable]})
    assert len([axes for axes in figure.axes if axes.axison]) == len(runs)
    assert figure.axes[0].get_title(loc="left") == f"numpy loop: {verdict}"


def test_a_gate_with_nothing_wrong_ends_after_four_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    invented_launches(monkeypatch, (0, 0))
    result = run_gate(Path("a"), Path("b"), {"backend": "numpy", "seed": 0}, GateSettings(threshold=0.03))
    (run,) = result["runs"]
    assert (result["verdict"], len(run["launches"])) == (NO_SLOWDOWN, 4)
    assert 0.03 < run["detectable"] < 0.05, "of a whole series"
    json.dumps(result, allow_nan=False)


# What else is measured ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [measure for measure in MEASURES if measure != "epoch"])
def test_what_a_process_does_once_is_measured_in_a_new_one_each_round(config: dict[str, Any], build: Path, measure: str) -> None:
    launch = run_launch({BASE: build, HEAD: build}, {**config, "measure": measure}, 1, random.Random(0))
    assert {name: len(times) for name, times in launch.seconds.items()} == {BASE: 1, HEAD: 1}
    if measure == "memory":
        assert all(1e7 < size < 1e10 for (size,) in launch.seconds.values())
    else:
        assert all(0 < time < 100 for (time,) in launch.seconds.values())
    assert launch.paths == dict.fromkeys((BASE, HEAD), "only imported" if measure == "import" else "loop")


LATE = "import time\n_clock = time.perf_counter\ntime.perf_counter = lambda: _clock() + 1000"
"""A clock that is put forward when this is executed."""

LATE_TRAINER = f"""
_init = Trainer.__init__
def late(self, *arguments, **settings):
    _init(self, *arguments, **settings)
    exec({LATE!r}, globals())
Trainer.__init__ = late"""


@pytest.mark.parametrize(
    ("measure", "module", "planted", "seen"),
    [
        ("import", "__init__", LATE, True),
        ("import", "training/trainer", LATE_TRAINER, False),
        ("transfer", "training/trainer", LATE_TRAINER, True),
        ("start", "__init__", LATE, True),
    ],
)
def test_each_measure_sees_what_it_is_of(
    config: dict[str, Any], build: Path, tmp_path: Path, measure: str, module: str, planted: str, seen: bool
) -> None:
    slow = copy_package(tmp_path, planted, module)
    launch = run_launch({BASE: build, HEAD: slow}, {**config, "measure": measure}, 1, random.Random(0))
    assert (launch.seconds[HEAD][0] > 900) == seen
    assert launch.seconds[BASE][0] < 900


def module(folder: Path, source: str) -> Path:
    """Somebody's repository, with one module."""
    folder.mkdir()
    (folder / "work.py").write_text(source)
    return folder


SUM = "import numpy as np\ndef total(): return {{'sum': sum(range({})), 'array': np.arange(3) * {}, 'name': 'a'}}"


def test_a_function_of_any_repository_is_called_and_its_results_are_checked(tmp_path: Path) -> None:
    config = {"backend": "work:total", "call": "work:total", "measure": "call", "threads": 1, "seed": 0}
    config["inputs"] = str(tmp_path / "inputs.npz")
    base, same, slow, wrong = (
        module(tmp_path / name, source)
        for name, source in (
            ("base", SUM.format("20000", "1.0")),
            ("same", SUM.format("20000", "(1 + 1e-6)")),
            ("slow", "import time\n" + SUM.format("20000", "(time.sleep(0.02) or 1.0)")),
            ("wrong", SUM.format("20000", "1.01")),
        )
    )
    launch = run_launch({BASE: base, HEAD: same}, config, 3, random.Random(0))
    assert all(1e-5 < time < 0.1 for times in launch.seconds.values() for time in times)
    assert launch.paths[BASE].endswith("calls a sample")
    with pytest.raises(LaunchError, match="head does not compute what base computes"):
        run_launch({BASE: base, HEAD: wrong}, config, 1, random.Random(0))
    result = run_gate(base, slow, config, GateSettings(threshold=0.5, launches=7, rounds=6))
    assert (result["verdict"], result["backend"]) == (SLOWER, "work:total")


def test_epochs_by_the_clock_of_a_gpu_stand_beside_those_by_the_wall_clock(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = {BASE: 1.0, HEAD: 1.25, CONTROL: 1.0}
    without: set[str] = set()

    def call(engine: str, name: str, command: str, *_: object) -> dict[str, Any]:
        if command == "warm_up":
            return {"loss": 1.0, "device": "cuda:0", "path": "cluster"}
        clock = {} if name in without else {"device_seconds": 0.01 * calls[name]}
        return {"seconds": 0.02, "loss": 1.0, **clock}

    monkeypatch.setattr(gate, "_started", lambda name, *_: name)
    monkeypatch.setattr(gate, "_call", call)
    result = run_gate(tmp_path, tmp_path, config, GateSettings(0.03, rounds=6))
    [run] = result["runs"]
    assert result["verdict"] == NO_SLOWDOWN, "the verdict is by the wall clock"
    assert run["device_change"] == pytest.approx(0.25)
    assert run["device_interval"] == pytest.approx([0.25, 0.25])
    assert "  by the GPU's own clock, around the launches: change +25.0% (+25.0% to +25.0%)" in _lines(result)
    json.dumps(result, allow_nan=False)
    without.add(BASE)
    [run] = run_gate(tmp_path, tmp_path, config, GateSettings(0.03, rounds=6))["runs"]
    assert "device_change" not in run
