"""``mlp-accel bench`` as a user meets it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlp_accel.backends import backend_class, unavailable
from mlp_accel.bench.output.tables import roofline_table, sweep_lines
from mlp_accel.bench.result_files import SCHEMA, label
from mlp_accel.bench.results import Crossover, Op, Roofline, Sweep
from mlp_accel.training.recipes import fast_recipe
from tests.cli.commands import assert_clear_error, run


def test_bench_has_a_row_for_every_backend(clouds: Path, tmp_path: Path) -> None:
    result = run(
        "bench", "--data", clouds, "--epochs", 5, "--starts", 1, "--json", tmp_path / "b.json", "--plot", tmp_path / "b.png"
    )
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["schema"] == SCHEMA
    assert list(dict.fromkeys(row["name"] for row in content["results"])) == ["numpy", "numba", "cupy"]
    for row in content["results"]:
        assert label(row) in result.stdout
        if unavailable(row["name"]) is None:
            assert row["status"] == "ok", row["reason"]
            seconds = row["epoch_seconds"]
            assert len(seconds["samples"]) == 5
            assert 0 < seconds["min"] <= seconds["q1"] <= seconds["median"] <= seconds["q3"]
            assert row["test_accuracy"] > 0.9
        else:
            assert (row["status"], row["path"]) == ("unavailable", None)
            assert row["epoch_seconds"] is None
            assert row["reason"] in result.stdout
    for name in ("numpy", "numba", "cupy"):
        if unavailable(name) is None:
            paths = [row["path"] for row in content["results"] if row["name"] == name]
            assert paths[0] == "loop"
            explained = [found for found in content["no_faster_path"] if found["name"] == name]
            assert len(paths[1:]) + len(explained) == (1 if backend_class(name).path_names else 0)
            for found in explained:
                assert f"{name}: no faster path: {found['passed_over'][0][0]}: " in result.stdout
    assert content["config"]["short"] is False
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_a_training_that_diverges_costs_one_row_and_not_the_file(clouds: Path, tmp_path: Path) -> None:
    options = ("--activation", "relu", "--learning-rate", 1000, "--epochs", 2, "--json", tmp_path / "b.json")
    result = run("bench", "--backends", "numpy", "--data", clouds, *options)
    assert result.returncode == 1, result.stderr
    (row,) = json.loads((tmp_path / "b.json").read_text())["results"]
    assert (row["status"], row["test_loss"], row["loss"][-1]) == ("mismatch", None, None)


def test_bench_is_restricted_by_the_environment_and_says_so(clouds: Path) -> None:
    result = run("bench", "--data", clouds, "--epochs", 1, "--json", "-", MLP_ACCEL_BACKEND="numpy")
    content = json.loads(result.stdout)
    assert [label(row) for row in content["results"]] == ["numpy loop"]
    assert content["config"]["short"] is True
    assert "only numpy: the environment variable MLP_ACCEL_BACKEND says so" in result.stderr
    assert "too few epochs" in result.stderr


def test_bench_writes_a_report_with_sweeps_and_the_time_to_an_accuracy(clouds: Path, tmp_path: Path) -> None:
    html, json_file = tmp_path / "r.html", tmp_path / "r.json"
    result = run(
        *("bench", "--backends", "numpy,numpy-handwritten", "--data", clouds, "--epochs", 1, "--learning-rate", 0.1),
        *("--sweep-batch", "32,128", "--until", 0.7, "--roofline", "--html", html, "--json", json_file),
    )
    assert result.returncode == 0, result.stderr
    content = json.loads(json_file.read_text())
    assert [row["kind"] for row in content["results"]] == ["backend", "peer"]
    assert [cell["value"] for cell in content["sweeps"][0]["cells"]] == [32, 128]
    (until,) = content["until"]
    assert until["accuracy"] == 0.7
    _, _, race = result.stdout.partition("Seconds to 70.00% on the test set, 5 seeds: 8-32-3 tanh")
    for row in until["results"]:
        both = [f"{row[name]['median']:.4f}" for name in ("seconds_with_preparation", "seconds")]
        assert re.search(f"{label(row)} +{both[0]} .* {both[1]} ", race)
    _, _, sweep = result.stdout.partition("Seconds per epoch by batch size")
    for cell in content["sweeps"][0]["cells"]:
        medians = [f"{row['epoch_seconds']['median']:.4f}" for row in cell["results"]]
        assert [str(cell["value"]), *medians] in [line.split() for line in sweep.splitlines()]
    assert re.search(r"numpy loop update +\d+\.\d", sweep)
    assert html.read_text().count("<svg") == 5


def test_by_the_fast_recipe_each_accuracy_has_its_own_network_and_a_flag_goes_over_it(clouds: Path) -> None:
    options = ("--backends", "numpy", "--data", clouds, "--epochs", 1, "--json", "-")
    content = json.loads(run("bench", *options, "--recipe", "fast", "--until", "0.5,0.96", "--learning-rate", 0.25).stdout)
    assert (content["config"]["activation"], content["config"]["batch_size"]) == ("relu", 32)
    assert (content["config"]["schedule"], content["config"]["schedule_epochs"]) == ("linear", 2), "over the epochs that are timed"
    for until in content["until"]:
        recipe, trained = fast_recipe(until["accuracy"]), until["config"]
        assert trained["layer_sizes"][1:-1] == list(recipe.hidden)
        assert (trained["schedule"], trained["schedule_epochs"]) == ("linear", recipe.epochs)
        assert (trained["activation"], trained["batch_size"], trained["learning_rate"]) == ("relu", 32, 0.25)
        assert until["results"][0]["path"] == "loop"


@pytest.mark.parametrize(("flops", "percent"), [(4e9, "50%"), (1e6, "5%")])
def test_the_roofline_is_the_lower_of_both_limits(flops: float, percent: str) -> None:
    op = Op(op="dense", flops=flops, bytes=2e7, seconds=1e-1)
    found = [Roofline(name="numpy", path="loop", peak_flops=8e10, bandwidth=4e9, ops=(op,))]
    assert [str(cell) for cell in roofline_table(found).columns[-1].cells] == [percent]


def test_who_overtakes_whom_is_said() -> None:
    below, above = "numpy loop", "numba sparse"
    crossing = Crossover(value=70.4, seconds=1.0, faster_below=below, faster_above=above, shown=True, samples_per_second=1.0)
    sweep = Sweep(parameter="hidden", cells=(), crossovers=(crossing,))
    assert sweep_lines(sweep) == ["numba sparse is faster than numpy loop from about 70 hidden units on"]


def test_peers_are_measured_beside_the_backends_that_were_named(clouds: Path) -> None:
    result = run("bench", "--backends", "numpy", "--peers", "--hidden", "8,8", "--data", clouds, "--epochs", 1, "--json", "-")
    rows = {row["name"]: row for row in json.loads(result.stdout)["results"]}
    assert [name for name, row in rows.items() if row["kind"] == "backend"] == ["numpy"]
    assert rows["notebook"]["reason"] == "it has exactly one hidden layer"
    assert result.returncode == (1 if any(row["status"] == "mismatch" for row in rows.values()) else 0), (
        "absent peers are no failure"
    )


def test_a_speed_beside_numpys_is_shown_even_if_numpy_is_not(clouds: Path) -> None:
    result = run("bench", "--backends", "numpy-handwritten", "--data", clouds, "--epochs", 1)
    assert re.search(r"^ *numpy-handwritten +[\d.]+ +[\d.]+ +[\d.]+–[\d.]+ +\d+\.\d\d ", result.stdout, re.MULTILINE), result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process can be limited on Linux")
def test_layers_beyond_the_memory_are_exit_2(clouds: Path) -> None:
    result = run("bench", "--backends", "numpy", "--hidden", "9999999,9999999", "--data", clouds, "--epochs", 1)
    assert result.returncode == 2, result.stderr
    assert "out of memory" in result.stdout


# Paths ------------------------------------------------------------------------------------------------------------------------


def paths_measured(clouds: Path, *arguments: str, **environment: str) -> tuple[list[str], str]:
    """Labels of the rows, and what was said."""
    result = run("bench", "--data", clouds, "--epochs", 1, "--json", "-", *arguments, **environment)
    assert result.returncode == 0, result.stderr
    return [label(row) for row in json.loads(result.stdout)["results"]], result.stderr


def test_a_path_restricts_every_backend_and_the_flag_goes_before_the_variable(clouds: Path) -> None:
    backends = ("--backends", "numpy,numba")
    loops = ["numpy loop", "numba loop" if unavailable("numba") is None else "numba"]
    assert paths_measured(clouds, *backends, "--path", "loop")[0] == loops
    assert paths_measured(clouds, *backends, MLP_ACCEL_PATH="loop")[0] == loops
    assert paths_measured(clouds, *backends, "--path", "loop", MLP_ACCEL_PATH="sparse")[0] == loops
    assert paths_measured(clouds, "--backends", "numpy", "--path", "auto", MLP_ACCEL_PATH="sparse")[0] == ["numpy loop"]


@pytest.mark.skipif(unavailable("numba") is not None, reason="Numba cannot run here")
def test_backends_without_the_path_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = (rng.random((300, 40)) < 0.1 + 0.3 * np.repeat(np.eye(3), 14, axis=1)[:, :40][y]).astype(np.uint8) * 200
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    result = run("bench", "--data", tmp_path / "images.npz", "--epochs", 1, "--path", "sparse", "--json", "-")
    assert result.returncode == 0, result.stderr
    assert [label(row) for row in json.loads(result.stdout)["results"]] == ["numba sparse"]
    assert "without numpy, cupy: no path 'sparse' there, which --path asks for" in result.stderr


def test_a_path_that_a_named_backend_does_not_have_is_exit_2_with_the_choices() -> None:
    words = ("'sparse'", "--path", "numpy has loop")
    assert_clear_error(run("bench", "--backends", "numpy", "--path", "sparse"), 2, *words)
    assert_clear_error(run("bench", "--backends", "numba,numpy", "--path", "sparse"), 2, *words)
    assert_clear_error(run("bench", "--path", "scenic"), 2, "'scenic'", "numba has loop, sparse", "cupy has loop, cluster")
    assert_clear_error(run("bench", MLP_ACCEL_PATH="scenic"), 2, "'scenic'", "MLP_ACCEL_PATH")


def test_the_old_name_of_the_loop_names_the_new_one() -> None:
    for option in ("--no-fused", "--fused"):
        assert_clear_error(run("bench", option), 2, option, "--path loop")
    assert "fused" not in run("bench", "--help").stdout


def test_an_optimizer_is_in_the_file_with_its_defaults(clouds: Path) -> None:
    options = (
        "--backends",
        "numpy,numpy-handwritten,notebook",
        "--optimizer",
        "adamw",
        "--data",
        clouds,
        "--epochs",
        1,
        "--json",
        "-",
    )
    result = run("bench", *options)
    content = json.loads(result.stdout)
    rule = {"optimizer": "adamw", "learning_rate": 0.001, "momentum": None, "weight_decay": 0.01}
    assert {name: content["config"][name] for name in rule} == rule
    ours, by_hand, notebook = content["results"]
    assert ours["status"] == by_hand["status"] == "ok"
    assert "notebook: unavailable: it has no adamw, only sgd" in result.stderr
    assert notebook["status"] == "unavailable"
    assert result.returncode == 3, "it was named"


def test_one_file_for_two_results_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.png"
    result = run("bench", "--json", path, "--plot", tmp_path / "." / "b.png")
    assert_clear_error(result, 2, "b.png is asked for twice")
    assert not path.exists()


@pytest.mark.skipif(os.name != "posix", reason="no signals to send")
def test_a_closed_terminal_ends_bench_with_its_workers_and_temporary_folders(clouds: Path, tmp_path: Path) -> None:
    arguments = ("bench", "--backends", "numpy", "--data", str(clouds), "--epochs", "100000", "--starts", "2")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlp_accel", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("epoch"))
    workers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False).stdout
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 129, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    assert workers.split()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers.split())


@pytest.mark.parametrize("seconds", ["0", "nan", "inf", "1e10"])
def test_a_timeout_that_is_no_time_is_named(seconds: str) -> None:
    assert_clear_error(run("bench", "--timeout", seconds), 2, "--timeout must be a number of seconds between 0 and")
