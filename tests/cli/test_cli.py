"""The command as a user meets it: what it prints, writes and returns, and what it says to wrong usage."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mlp_accel import __version__, evaluate, get_backend, init_params, load, load_params, mini_batch_sgd
from mlp_accel.backends import unavailable
from mlp_accel.backends.threads import available_cores
from tests.cli.commands import assert_clear_error, run

# What it does ----------------------------------------------------------------------------------------------------------------


def test_train_prints_the_notebooks_lines_and_writes_what_was_asked_for(clouds: Path, tmp_path: Path) -> None:
    plot, json_file, save = tmp_path / "a.png", tmp_path / "a.json", tmp_path / "a.npz"
    result = run(
        *("train", "--data", clouds, "--backend", "numpy", "--epochs", 3, "--hidden", "7,5", "--activation", "relu"),
        *("--learning-rate", 0.1, "--plot", plot, "--json", json_file, "--save", save),
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    content = json.loads(json_file.read_text())
    for epoch, row in enumerate(content["history"], start=1):
        assert f"Epoch {epoch}/3 - Loss: {row['loss']:.4f} - Accuracy: {row['accuracy']:.4f}" in lines
    assert content["schema"] == 1
    assert content["backend"] == "numpy"
    assert content["config"]["hidden"] == [7, 5]
    assert plot.read_bytes().startswith(b"\x89PNG")
    params = load_params(save)
    assert [w.shape for w, _ in params] == [(8, 7), (7, 5), (5, 3)]
    data = load(clouds)
    loss, accuracy = evaluate(get_backend("numpy"), params, data.x_test, data.y_test, "relu")
    assert content["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert content["test_accuracy"] == accuracy


def test_json_on_standard_output_stands_there_alone(clouds: Path) -> None:
    for command in (["train", "--backend", "numpy"], ["bench", "--backends", "numpy", "--epochs", "1"]):
        result = run(*command, "--data", clouds, "--json", "-")
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["schema"] == {"train": 1, "bench": 2}[command[0]]
        assert result.stderr


def test_the_environment_chooses_the_backend_and_the_flag_goes_before_it(clouds: Path) -> None:
    arguments = ("train", "--data", clouds, "--epochs", 1)
    assert "backend numpy" in run(*arguments, MLP_ACCEL_BACKEND="numpy").stdout
    assert "backend numpy" in run(*arguments, "--backend", "numpy", MLP_ACCEL_BACKEND="cupy").stdout
    assert "1 threads" in run(*arguments, MLP_ACCEL_BACKEND="numpy", MLP_ACCEL_NUM_THREADS="1").stdout


def trained(clouds: Path, *arguments: object, **environment: str) -> dict[str, Any]:
    result = run("train", "--data", clouds, "--backend", "numpy", "--epochs", 3, "--json", "-", *arguments, **environment)
    assert result.returncode == 0, result.stderr
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def losses(content: dict[str, Any]) -> list[float]:
    return [row["loss"] for row in content["history"]]


def expected_losses(clouds: Path, **settings: Any) -> list[float]:
    data = load(clouds)
    params = init_params([data.n_in, 32, data.n_classes])
    return mini_batch_sgd(data.x_train, data.y_train, params, epochs=3, backend="numpy", **settings).loss


def test_optimizer_and_schedule_are_those_of_the_options(clouds: Path) -> None:
    plain = ("--learning-rate", 0.05, "--optimizer")
    rule = {"learning_rate": 0.05, "optimizer": "nesterov", "momentum": 0.5, "weight_decay": 0.01}
    schedule = {"schedule": "step", "warmup": 0.2, "step_epochs": 2, "gamma": 0.25}
    content = trained(
        *(clouds, *plain, "nesterov", "--momentum", 0.5, "--weight-decay", 0.01),
        *("--schedule", "step", "--warmup", 0.2, "--step-epochs", 2, "--gamma", 0.25),
    )
    assert losses(content) == expected_losses(clouds, **rule, **schedule)
    assert {name: content["config"][name] for name in (*rule, *schedule)} == {**rule, **schedule}
    content = trained(clouds, *plain, "adamw", "--schedule", "one-cycle")
    assert losses(content) == expected_losses(clouds, learning_rate=0.05, optimizer="adamw", schedule="one-cycle")


def test_the_learning_rate_is_that_of_the_optimizer_by_default(clouds: Path) -> None:
    for name, rate in {"sgd": 0.5, "momentum": 0.05, "adam": 0.001}.items():
        content = trained(clouds, "--optimizer", name)
        assert content["config"]["learning_rate"] == rate
        assert losses(content) == expected_losses(clouds, optimizer=name)
    assert trained(clouds, "--gradient", "notebook")["config"]["learning_rate"] == 0.01


def test_a_flag_goes_before_the_recipe(clouds: Path) -> None:
    content = trained(clouds, "--recipe", "notebook", "--optimizer", "momentum", "--momentum", 0.25)
    rule = {"optimizer": "momentum", "momentum": 0.25, "learning_rate": 0.01, "gradient": "notebook"}
    assert {name: content["config"][name] for name in rule} == rule


def test_train_says_which_path_trained(clouds: Path) -> None:
    arguments = ("train", "--data", clouds, "--epochs", 1, "--backend", "numpy")
    for result in (run(*arguments), run(*arguments, "--path", "loop"), run(*arguments, MLP_ACCEL_PATH="loop")):
        assert "path loop" in result.stdout.splitlines()
    content = trained(clouds)
    assert (content["path"], content["passed_over"], content["status"], content["reason"]) == ("loop", [], "done", None)


@pytest.mark.skipif(unavailable("numba") is not None, reason="Numba cannot run here")
def test_train_says_why_not_the_paths_before_it(clouds: Path) -> None:
    result = run("train", "--data", clouds, "--epochs", 1, "--backend", "numba", "--json", "-")
    content = json.loads(result.stdout)
    assert content["path"] == "dense", "none of the clouds' values is zero"
    ((name, reason),) = content["passed_over"]
    assert name == "sparse"
    assert f"path dense; not sparse: {reason}" in result.stderr.splitlines()


def test_the_notebooks_recipe_uses_its_settings(clouds: Path) -> None:
    content = json.loads(
        run("train", "--recipe", "notebook", "--epochs", 1, "--data", clouds, "--backend", "numpy", "--json", "-").stdout
    )
    config = content["config"]
    expected = {"dtype": "float64", "gradient": "notebook", "learning_rate": 0.01, "weight_scale": 0.3, "random_bias": True}
    assert {name: config[name] for name in expected} == expected
    assert config["loss_average"] == "notebook"


def test_the_fast_recipe_uses_its_settings(clouds: Path) -> None:
    config = trained(clouds, "--recipe", "fast", "--epochs", 2, "--hidden", 8)["config"]
    expected = {"recipe": "fast", "hidden": [8], "activation": "relu", "batch_size": 32, "schedule": "linear", "epochs": 2}
    assert {name: config[name] for name in expected} == expected


def test_doctor_reports_every_backend() -> None:
    result = run("doctor", "--json", "-")
    report = json.loads(result.stdout)
    assert set(report["backends"]) == {"numpy", "numba", "cupy"}
    for name, row in report["backends"].items():
        assert row["usable"] == (unavailable(name) is None)
        assert row["usable"] or (row["reason"] and row["fix"])
    assert result.returncode == 0
    assert report["data"] == {"name": "mnist", "train": 60000, "test": 10000}


def test_doctor_gives_its_verdict_as_an_exit_code() -> None:
    assert run("doctor", MLP_ACCEL_BACKEND="torch").returncode == 2
    assert run("doctor", MLP_ACCEL_NUM_THREADS="many").returncode == 2
    assert run("doctor", MLP_ACCEL_DATA_DIR="/nowhere").returncode == 2
    assert run("doctor", MLP_ACCEL_PATH="scenic").returncode == 2
    assert run("doctor", MLP_ACCEL_PATH="loop").returncode == 0
    result = run("doctor", MLP_ACCEL_PATH="sparse", MLP_ACCEL_BACKEND="numpy")
    assert result.returncode == 2
    assert "MLP_ACCEL_PATH=sparse is no path of the selected backend numpy; it has auto, loop" in result.stdout
    assert "to fix it: unset MLP_ACCEL_PATH" in result.stdout
    if unavailable("cupy") is not None:
        result = run("doctor", MLP_ACCEL_BACKEND="cupy")
        assert result.returncode == 3
        assert "problem: backend 'cupy'" in result.stdout
        error = unavailable("cupy")
        assert error is not None
        assert f"to fix it: {error.fix}" in result.stdout
        assert run("doctor", MLP_ACCEL_BACKEND="cupy:1").returncode == 3


def test_doctor_without_a_home_folder_names_the_cache(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    (tmp_path / "file").write_text("")
    result = run("doctor", HOME=str(tmp_path / "file"), XDG_CACHE_HOME="")
    assert "compiled at every start" in result.stdout
    assert "to fix it: export MLP_ACCEL_CACHE_DIR=" in result.stdout


def test_doctor_gives_each_problem_with_the_command_that_mends_it() -> None:
    result = run("doctor", "--json", "-", NUMBA_THREADING_LAYER="bogus", MLP_ACCEL_BACKENDS="numpy", MLP_ACCEL_DATA_DIR="/nowhere")
    assert result.returncode == 2
    report = json.loads(result.stdout)
    fixes = {finding["problem"]: finding["fix"] for finding in report["findings"]}
    for variable in ("NUMBA_THREADING_LAYER", "MLP_ACCEL_BACKENDS", "MLP_ACCEL_DATA_DIR"):
        assert f"unset {variable}" in fixes.values()
        assert any(variable in problem for problem in fixes)
        assert f"to fix it: unset {variable}" in result.stderr
    assert report["backends"]["numba"] == {**report["backends"]["numba"], "usable": False, "fix": "unset NUMBA_THREADING_LAYER"}


def test_numba_limited_to_one_thread_limits_the_default(clouds: Path) -> None:
    result = run("train", "--data", clouds, "--epochs", 1, NUMBA_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    assert "1 threads" in result.stdout
    assert run("doctor", NUMBA_NUM_THREADS="1").returncode == 0
    if available_cores() > 1:
        assert run("doctor", NUMBA_NUM_THREADS="1", MLP_ACCEL_NUM_THREADS="2").returncode == 2


def test_version_and_help() -> None:
    assert run("--version").stdout == f"mlp-accel {__version__}\n"
    for command in ("train", "bench", "doctor"):
        assert command in run("--help").stdout
        assert "--json" in run(command, "--help").stdout


# What it says to wrong usage -------------------------------------------------------------------------------------------------


def test_an_unknown_backend_names_source_and_choices() -> None:
    assert_clear_error(run("train", "--backend", "tpu"), 2, "'tpu'", "--backend", "auto, fastest, cupy, numba, numpy")
    assert_clear_error(run("train", MLP_ACCEL_BACKEND="tpu"), 2, "'tpu'", "MLP_ACCEL_BACKEND", "auto, fastest, cupy, numba, numpy")
    assert_clear_error(run("bench", "--backends", "numpy,tpu"), 2, "'tpu'", "--backends", "cupy, numba, numpy")
    assert_clear_error(run("bench", MLP_ACCEL_BACKEND="tpu"), 2, "'tpu'", "MLP_ACCEL_BACKEND")


def test_an_unknown_path_names_source_and_choices() -> None:
    arguments = ("train", "--backend", "numpy")
    assert_clear_error(run(*arguments, MLP_ACCEL_PATH="scenic"), 2, "'scenic'", "MLP_ACCEL_PATH", "numpy has loop")
    assert_clear_error(run(*arguments, "--path", "scenic", MLP_ACCEL_PATH="loop"), 2, "'scenic'", "--path")


@pytest.mark.skipif(unavailable("cupy") is None, reason="CuPy runs here")
def test_a_backend_that_cannot_run_is_exit_3_with_reason_and_mend(clouds: Path) -> None:
    assert_clear_error(run("train", "--backend", "cupy"), 3, "backend 'cupy' cannot run here", "To fix it")
    for arguments, environment in ((["--backends", "cupy,numpy"], {}), ([], {"MLP_ACCEL_BACKEND": "cupy"})):
        result = run("bench", "--data", clouds, "--epochs", 1, *arguments, **environment)
        assert result.returncode == 3
        assert "cupy: unavailable" in result.stdout
        assert "To fix it" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data", "/nowhere/at/all"], ["/nowhere/at/all", "no such file or folder"]),
        (["train", "--hidden", "0"], ["'0' from --hidden", "256,128"]),
        (["train", "--hidden", "32,,5"], ["'32,,5' from --hidden"]),
        (["train", "--epochs", "-1"], ["--epochs must be at least 1; got -1"]),
        (["bench", "--epochs", "0"], ["--epochs must be at least 1; got 0"]),
        (["train", "--batch-size", "0"], ["--batch-size must be at least 1"]),
        (["train", "--learning-rate", "nan"], ["learning rate", "nan"]),
        (["bench", "--learning-rate", "inf"], ["learning rate", "inf"]),
        (["train", "--learning-rate", "fast"], ["--learning-rate"]),
        (["train", "--activation", "swoosh"], ["'swoosh'", "tanh, relu, sigmoid", "gelu"]),
        (["train", "--optimizer", "sdg"], ["'sdg'", "sgd, momentum, nesterov, adam, adamw"]),
        (["train", "--momentum", "0.9"], ["'sgd' has no setting momentum", "momentum, nesterov would have it"]),
        (["bench", "--momentum", "0.9"], ["'sgd' has no setting momentum"]),
        (["train", "--optimizer", "adam", "--weight-decay", "-1"], ["weight_decay", "-1"]),
        (["train", "--schedule", "falling"], ["'falling'", "constant, linear, cosine, step, one-cycle"]),
        (["train", "--schedule", "cosine", "--gamma", "0.5"], ["'cosine' has no setting gamma; step has it"]),
        (["train", "--schedule", "step", "--step-epochs", "0"], ["step_epochs", "whole number", "0"]),
        (["train", "--warmup", "1"], ["warmup", "from 0 to below 1"]),
        (["train", "--schedule", "cosine", "--warmup", "1.5"], ["warmup must be a share of the steps", "got 1.5"]),
        (["train", "--schedule", "step", "--gamma", "nan"], ["gamma must be a positive number", "got nan"]),
        (["train", "--backend", "numpy", "--path", "sparse"], ["no path 'sparse'", "--path", "numpy has loop"]),
        (["train", "--gradient", "right"], ["'right'", "exact, notebook"]),
        (["train", "--dtype", "float16"], ["'float16'", "float32, float64"]),
        (["train", "--recipe", "soup"], ["'soup'", "default, fast, notebook"]),
        (["train", "--threads", "0"], ["0 from --threads"]),
        (["train", "--seed", "-1"], ["--seed must not be negative"]),
        (["train", "--json", "/nowhere/a.json"], ["/nowhere/a.json", "there is no folder"]),
        (["train", "--save", "/"], ["cannot write /", "folder"]),
        (["train", "--plot", "a.xyz"], ["a.xyz", ".png"]),
        (["bench", "--plot", "/nowhere/a.png"], ["/nowhere/a.png"]),
        (["bench", "--html", "/nowhere/a.html"], ["/nowhere/a.html"]),
        (["bench", "--sweep-batch", "32"], ["--sweep-batch needs two or more"]),
        (["bench", "--sweep-batch", "32,many"], ["'32,many' from --sweep-batch"]),
        (["bench", "--sweep-hidden", "0,8"], ["'0,8' from --sweep-hidden"]),
        (["bench", "--sweep-batch", "32,70000"], ["70000 is more than the 60000 training samples"]),
        (["bench", "--until", "95.5"], ["--until", "between 0 and 1", "95.5"]),
        (["bench", "--until", "0.9,soon"], ["'0.9,soon' from --until", "0.955,0.97"]),
        (["bench", "--recipe", "notebook"], ["'notebook' from --recipe", "default, fast"]),
        (["doctor", "--json", "/nowhere/a.json"], ["/nowhere/a.json"]),
        (["train", "--frobnicate"], ["--frobnicate"]),
        (["fly"], ["fly"]),
    ],
)
def test_wrong_usage_is_one_clear_message_and_exit_2(arguments: list[str], words: list[str]) -> None:
    assert_clear_error(run(*arguments), 2, *words)


def test_an_output_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    result = run("train", "--epochs", 1, "--backend", "numpy", "--json", tmp_path / "missing" / "a.json")
    assert_clear_error(result, 2, "there is no folder")
    assert "Epoch" not in result.stdout + result.stderr


def test_a_truncated_file_is_named(tmp_path: Path, clouds: Path) -> None:
    path = tmp_path / "half.npz"
    path.write_bytes(clouds.read_bytes()[:1000])
    assert_clear_error(run("train", "--data", path), 2, str(path))


def test_a_training_that_diverges_is_exit_5(clouds: Path, tmp_path: Path) -> None:
    save = tmp_path / "p.npz"
    save.write_text("precious")
    result = run("train", "--data", clouds, "--backend", "numpy", "--activation", "relu", "--learning-rate", 1e30, "--save", save)
    assert result.returncode == 5
    (line,) = result.stderr.splitlines()
    assert line.startswith("mlp-accel: error: the loss is ")
    assert "in epoch 1 at learning rate 1e+30" in line
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    assert save.read_text() == "precious"


# Ctrl-C and terminals --------------------------------------------------------------------------------------------------------


def start(*arguments: object, **keywords: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "mlp_accel", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)


def interrupt_after(process: subprocess.Popen[str], words: str) -> tuple[str, str]:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            process.send_signal(signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=60)
    return "".join(seen) + rest, errors


def test_ctrl_c_ends_training_with_what_was_reached(tmp_path: Path) -> None:
    save, json_file = tmp_path / "p.npz", tmp_path / "h.json"
    process = start("train", "--backend", "numpy", "--epochs", 500, "--save", save, "--json", json_file)
    output, errors = interrupt_after(process, "Epoch 2/500")
    assert process.returncode == 130, errors
    assert "interrupted after" in output
    assert "Traceback" not in errors
    content = json.loads(json_file.read_text())
    assert content["interrupted"] is True
    assert 2 <= len(content["history"]) < 500
    assert [w.shape for w, _ in load_params(save)] == [(784, 32), (32, 10)]


def test_ctrl_c_ends_a_benchmark_with_what_was_measured(tmp_path: Path) -> None:
    json_file = tmp_path / "b.json"
    process = start("bench", "--backends", "numpy", "--epochs", 500, "--json", json_file)
    output, errors = interrupt_after(process, "epoch 3/500")
    assert process.returncode == 130, errors
    assert "interrupted" in output
    content = json.loads(json_file.read_text())
    assert content["interrupted"] is True
    assert 3 <= len(content["results"][0]["epoch_seconds"]["samples"]) < 500


def on_a_terminal(*arguments: object, columns: int = 100, terminal: str = "xterm") -> str:
    """What the command shows on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mlp_accel", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": terminal}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = bytearray()
        with suppress(OSError):  # the other end is closed
            while data := os.read(ours, 65536):
                shown.extend(data)
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def test_on_a_terminal_the_notebooks_curve_stands_beside_ours() -> None:
    shown = on_a_terminal("train", "--recipe", "notebook", "--epochs", 2, "--seed", 3, "--backend", "numpy")
    assert "(notebook: 0.7081, 0.7869)" in shown
    assert "(notebook: 0.3733, 0.8946)" in shown


@pytest.mark.parametrize(
    ("options", "others"),
    [
        ([], "data"),
        (["--hidden", "16", "--learning-rate", "0.02"], "data, hidden, learning_rate"),
        (["--schedule", "cosine", "--learning-rate", "0.01", "--weight-decay", "0"], "data, schedule"),
    ],
)
def test_the_notebooks_curve_is_left_out_where_it_is_of_other_settings_which_is_said(
    clouds: Path, options: list[str], others: str
) -> None:
    arguments = ("train", "--recipe", "notebook", "--epochs", 2, "--data", clouds, "--backend", "numpy")
    shown = on_a_terminal(*arguments, *options, columns=200)
    assert "(notebook" not in shown
    said = "without the curve that the notebook printed, which is of other settings: "
    assert f"{said}{others}" in shown.splitlines()


def test_on_a_terminal_there_is_a_progress_bar(clouds: Path) -> None:
    shown = on_a_terminal("train", "--epochs", 2, "--data", clouds, "--backend", "numpy")
    assert "2/2" in shown
    assert "\x1b[" in shown
