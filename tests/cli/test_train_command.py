"""Validation, the model file and checkpoints, as the command has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlp_accel import Model, load, load_model, load_params
from mlp_accel.backends.cache_folders import cache_root
from tests.cli.commands import assert_clear_error, run


def test_validation_patience_and_the_model_file(clouds: Path, tmp_path: Path) -> None:
    saved = tmp_path / "m.safetensors"
    settings = ("--backends", "numpy", "--epochs", 60, "--learning-rate", 2, "--validation", 0.2, "--patience", 2)
    result = run("train", "--data", clouds, *settings, "--save", saved, "--plot", tmp_path / "p.svg", "--json", tmp_path / "r.json")
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["status"] == "stopped"
    assert (content["config"]["validation"], content["config"]["patience"]) == (0.2, 2)
    best = content["best_epoch"]
    assert best == len(content["history"]) - 2
    assert f"the best epoch was number {best}" in result.stdout
    row = content["history"][best - 1]
    assert f"Validation loss: {row['validation_loss']:.4f} - Validation accuracy: {row['validation_accuracy']:.4f}" in result.stdout
    data, model = load(clouds), load_model(saved)
    assert model.evaluate(data.x_test, data.y_test) == pytest.approx((content["test_loss"], content["test_accuracy"]), rel=1e-5)
    assert (model.settings["optimizer"], model.settings["patience"], str(model.activation)) == ("sgd", 2, "tanh")
    again = run("train", "--data", clouds, *settings, "--save", tmp_path / "again")
    assert again.returncode == 0
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_parameters_alone_are_saved_where_the_ending_asks_for_it(clouds: Path, tmp_path: Path) -> None:
    arguments = ("train", "--data", clouds, "--backend", "numpy", "--epochs", 1, "--save")
    for name in ("p.npz", "m.safetensors"):
        assert run(*arguments, tmp_path / name).returncode == 0
    model = load_model(tmp_path / "m.safetensors")
    assert isinstance(model, Model)
    for one, other in zip(load_params(tmp_path / "p.npz"), model.params, strict=True):
        assert np.array_equal(one[0], other[0])


def test_a_checkpoint_is_gone_on_with_and_a_finished_one_says_so(clouds: Path, tmp_path: Path) -> None:
    arguments = ("train", "--data", clouds, "--backend", "numpy", "--checkpoint", tmp_path / "run.ckpt")
    whole = run("train", "--data", clouds, "--backend", "numpy", "--epochs", 4)
    assert run(*arguments, "--epochs", 2).returncode == 0
    longer = run(*arguments, "--epochs", 4)
    assert longer.returncode == 0
    assert f"goes on after epoch 2 of {tmp_path / 'run.ckpt'}" in longer.stdout
    epochs = [line for line in whole.stdout.splitlines() if line.startswith("Epoch")]
    assert [line for line in longer.stdout.splitlines() if line.startswith("Epoch")] == epochs[2:]
    finished = run(*arguments, "--epochs", 4)
    assert finished.returncode == 0
    assert "is finished after 4 epochs: nothing is left to train" in finished.stdout
    assert not [line for line in finished.stdout.splitlines() if line.startswith("Epoch")]
    refused = run(*arguments, "--epochs", 4, "--seed", 1)
    assert refused.returncode == 2
    assert "params: other values there; seed: 0 there, 1 here" in refused.stderr


def test_options_of_validation_without_validation_are_refused() -> None:
    assert_clear_error(run("train", "--patience", 3), 2, "need samples to watch")
    assert_clear_error(run("train", "--checkpoint-every", 3), 2, "give --checkpoint")
    assert_clear_error(run("train", "--validation", 2, "--backend", "numpy", "--config", "/nowhere"), 2, "cannot read /nowhere")


def test_the_fastest_is_measured_once_and_doctor_knows_and_clears_it(clouds: Path, tmp_path: Path) -> None:
    kernels = {"NUMBA_CACHE_DIR": str(cache_root("NUMBA_CACHE_DIR"))}  # the compiled ones stay where they are
    place = {**kernels, "XDG_CACHE_HOME": str(tmp_path), "MLP_ACCEL_BACKEND": "fastest"}
    arguments = ("train", "--data", clouds, "--epochs", 2, "--json", tmp_path / "r.json")
    first = run(*arguments, **place)
    assert first.returncode == 0, first.stderr
    assert "fastest: measuring, once, 8-32-3 at batch size 128" in first.stdout
    assert "  numpy loop: " in first.stdout
    content = json.loads((tmp_path / "r.json").read_text())
    chosen = f"{content['backend']} {content['path']}"
    assert content["selection"].startswith(f"fastest: {chosen}, ")
    assert f"backend {content['backend']}, " in first.stdout
    again = run(*arguments, "--seed", 1, **place)
    assert "measuring" not in again.stdout
    assert f"fastest: {chosen}, " in again.stdout
    doctor = run("doctor", **place)
    assert doctor.returncode == 0, doctor.stderr
    assert "selected: fastest (asked for: fastest, by the environment variable MLP_ACCEL_BACKEND)" in doctor.stdout
    assert "measured for fastest: 8-32-3 at batch size 128" in doctor.stdout
    assert_clear_error(run("bench", **place), 2, "'fastest' from the environment variable MLP_ACCEL_BACKEND", "here choose from")
    for command in (("ab", "--base", "main"), ("tune", "--grid", "hidden=4")):
        assert_clear_error(run(*command, "--backend", "fastest"), 2, "'fastest' from --backend", "here choose from")
    cleared = run("doctor", "--clean", XDG_CACHE_HOME=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path / "none"))
    assert cleared.stdout.count("removed ") == 1
    assert "measured for fastest" not in cleared.stdout
