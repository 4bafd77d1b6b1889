"""The commands that use a model file: predict and export."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel import Model, Scaling, init_params
from tests.cli.commands import assert_clear_error, run

FEATURES, CLASSES = ["length", "width"], np.array(["setosa", "virginica", "versicolor"])
X = np.random.default_rng(0).normal(size=(30, 2)) + 5


@pytest.fixture
def model(tmp_path: Path) -> Model:
    settings = {"features": FEATURES, "target": "species"}
    model = Model(init_params([2, 4, 3], 3, random_bias=True), "relu", CLASSES, Scaling.fit("standard", X), settings)
    model.save(tmp_path / "model.safetensors")
    return model


def table(path: Path, labels: Any = None) -> Path:
    """Columns in another order than in training, and one that the model does not know."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "width", "length", *([] if labels is None else ["species"])])
        rows = [[i, x[1], x[0]] for i, x in enumerate(X)]
        writer.writerows(rows if labels is None else [[*row, label] for row, label in zip(rows, labels, strict=True)])
    return path


def check(text: str, model: Model) -> None:
    header, *rows = csv.reader(text.splitlines())
    assert header == ["label", *(f"probability_{name}" for name in CLASSES)]
    assert [row[0] for row in rows] == model.predict(X).tolist()
    np.testing.assert_allclose([[float(p) for p in row[1:]] for row in rows], model.predict_proba(X), rtol=1e-8)


def test_predict_a_table(model: Model, tmp_path: Path) -> None:
    pytest.importorskip("polars")
    labels = model.predict(X)
    labels[:3] = CLASSES[(np.searchsorted(sorted(CLASSES), labels[:3]) + 1) % 3]
    path = table(tmp_path / "table.csv", labels)
    done = run("predict", tmp_path / "model.safetensors", path, "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    check((tmp_path / "out.csv").read_text(), model)
    assert f"Accuracy: {(labels == model.predict(X)).mean():.4f}" in done.stdout
    done = run("predict", tmp_path / "model.safetensors", table(tmp_path / "without.csv"))
    assert done.returncode == 0, done.stderr
    check(done.stdout, model)
    assert "Accuracy" not in done.stderr


def test_predict_an_npz(model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X)
    done = run("predict", tmp_path / "model.safetensors", tmp_path / "x.npz")
    assert done.returncode == 0, done.stderr
    check(done.stdout, model)


def test_wrong_data_and_files_are_clear_errors(model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X[:, :1])
    file = tmp_path / "model.safetensors"
    assert_clear_error(run("predict", file, tmp_path / "x.npz"), 2, "x.npz", "(n, 2)")
    np.savez(tmp_path / "y.npz", x=X, y=["rose"] * 30)
    assert_clear_error(run("predict", file, tmp_path / "y.npz"), 2, "y.npz", "'rose' in row 0")
    assert_clear_error(run("predict", file, tmp_path / "none.npz"), 2, "none.npz", "no such file")
    assert_clear_error(run("predict", tmp_path / "x.npz", tmp_path / "x.npz"), 2, "x.npz", "activation")
    assert_clear_error(run("export", file, tmp_path / "model.pb"), 2, "must end in .onnx")
    assert_clear_error(run("export", file, tmp_path / "no" / "model.onnx"), 2, "no folder")


def test_export(model: Model, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    done = run("export", tmp_path / "model.safetensors", tmp_path / "model.onnx")
    assert done.returncode == 0, done.stderr
    assert "2-4-3 relu" in done.stdout
    label, probabilities = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": X.astype(np.float32)})
    np.testing.assert_allclose(probabilities, model.predict_proba(X), atol=1e-6)
    assert label.tolist() == model.predict(X).tolist()


def test_a_table_from_training_to_onnx(tmp_path: Path) -> None:
    """What a new user does: train on a table, predict it, export the model."""
    pytest.importorskip("polars")
    onnxruntime = pytest.importorskip("onnxruntime")
    x = np.concatenate([X, X * 40, X - 30])
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["species", *FEATURES])
        writer.writerows([CLASSES[i // 30], *row] for i, row in enumerate(x))
    data = ["--data", tmp_path / "table.csv", "--target", "species", "--backend", "numpy"]
    how = ["--test-share", 0.1, "--scale", "standard", "--epochs", 60, "--batch-size", 10, "--seed", 1]
    done = run("train", *data, *how, "--save", tmp_path / "model.safetensors", "--json", tmp_path / "run.json")
    assert done.returncode == 0, done.stderr
    assert "(81 samples)" in done.stdout
    assert "Test - Loss" in done.stdout
    done = run("predict", tmp_path / "model.safetensors", tmp_path / "table.csv", "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition("Accuracy: ")[2]) > 0.9
    assert run("export", tmp_path / "model.safetensors", tmp_path / "model.onnx").returncode == 0
    label, probabilities = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": x.astype(np.float32)})
    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))[1:]
    assert label.tolist() == [row[0] for row in rows]
    np.testing.assert_allclose(probabilities, [[float(p) for p in row[1:]] for row in rows], atol=1e-6)
    assert_clear_error(run("train", *data, "--scale", "robust"), 2, "unknown scaling 'robust'", "standard, minmax")
    assert_clear_error(run("train", *data[:2]), 2, "which column holds the labels", "species, length, width")
    assert_clear_error(run("train", "--test-share", 0.5), 2, "mnist", "test samples of its own")
