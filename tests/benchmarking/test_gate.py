"""The gate: what it does with real workers, and with builds that fail, lie or lack something."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlp_accel
from mlp_accel.benchmarking import gate
from mlp_accel.benchmarking.gate import BASE, CONTROL, HEAD, LaunchError, run_gate, run_launch, write_inputs
from mlp_accel.benchmarking.gate_plot import plot_gate
from mlp_accel.benchmarking.paired import INCONCLUSIVE, NO_SLOWDOWN, SLOWER


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
        "learning_rate": 0.1,
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


def copy_package(folder: Path, planted: str = "", module: str = "training") -> Path:
    """A build: a copy of the package, with `planted` at the end of one of its modules."""
    ignored = shutil.ignore_patterns("mnist", "__pycache__")
    package = shutil.copytree(Path(mlp_accel.__file__).parent, folder / "mlp_accel", ignore=ignored)
    with (package / f"{module}.py").open("a") as file:
        file.write(f"\n{planted}\n")
    return folder


def test_a_launch_times_every_build_in_every_round(config: dict[str, Any], build: Path) -> None:
    seconds = run_launch({BASE: build, HEAD: build}, config, 7, random.Random(0))
    assert {name: len(times) for name, times in seconds.items()} == {BASE: 7, HEAD: 7}
    assert all(0 < time < 10 for times in seconds.values() for time in times)


def test_the_package_that_is_measured_is_the_one_in_the_build(config: dict[str, Any], build: Path, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"head: .* not from the build in"):
        run_launch({BASE: build, HEAD: tmp_path}, config, 1, random.Random(0))  # empty: this process's own would be found


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ("del Trainer", "head: ImportError: cannot import name 'Trainer'"),
        ("import os\nTrainer.epoch = lambda self: os._exit(7)", "head: the worker died in 'warm_up': exit status 7"),
        ("Trainer.epoch = lambda self: (float('nan'), 0, 0)", "head does not compute .* the loss is nan"),
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
    result = run_gate(build, tmp_path, config, threshold=0.03, launches=7, rounds=6)
    assert (result["verdict"], result["runs"]) == (INCONCLUSIVE, [])
    assert result["reason"].startswith("a run failed: head")


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
    result = run_gate(base, slow, config, threshold=0.03, launches=7, rounds=6, listen=heard.append)
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

    def launch(builds: Any, config: Any, rounds: int, rng_of_order: Any) -> dict[str, list[float]]:
        head, control = next(costs)
        return {
            name: list(cost * rng.normal(1, 0.01, rounds)) for name, cost in ((BASE, 1), (HEAD, 1 + head), (CONTROL, 1 + control))
        }

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
    result = run_gate(Path("a"), Path("b"), {"backend": "numpy", "seed": 0}, threshold=0.03)
    assert result["verdict"] == verdict
    assert len(result["runs"]) == len(runs)
    environment = {"cpu": "a CPU", "date": "2026-01-01T00:00:00"}
    unavailable = {"backend": "cupy", "verdict": "unavailable", "reason": "not installed", "runs": []}
    report = {"environment": environment, "config": {"base": "main", "threads": 1, "threshold": 0.03}}
    figure = plot_gate({**report, "results": [result, unavailable]})
    assert len([axes for axes in figure.axes if axes.axison]) == len(runs)
