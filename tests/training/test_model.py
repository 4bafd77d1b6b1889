"""A model predicts what was trained, and its file gives it back."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlp_accel
from mlp_accel import (
    Activation,
    Model,
    ModelFileError,
    OutputError,
    Scaling,
    SettingError,
    evaluate,
    forward,
    get_backend,
    init_params,
    load_model,
    save_params,
)
from mlp_accel.activations import ACTIVATIONS
from mlp_accel.training import tensor_file
from mlp_accel.training.labels import class_indices

SIZES = [6, 5, 3]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2500, 6))
CLASSES = np.array(["setosa", "virginica", "versicolor"])


def model(**given: Any) -> Model:
    return Model(**{"params": init_params(SIZES, 1, random_bias=True), "activation": "relu", "classes": CLASSES, **given})


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_probabilities_are_those_of_the_page(activation: str) -> None:
    backend = get_backend("numpy", "float64")
    params = init_params([6, 5, 4, 3], 2, random_bias=True)
    _, y_hat = forward(backend, params, X, activation)
    found = Model(params, activation).predict_proba(X)
    np.testing.assert_allclose(found, y_hat, rtol=1e-13, atol=1e-15)


def test_loss_and_accuracy_are_those_of_evaluate() -> None:
    y = RNG.integers(0, 3, len(X))
    expected = evaluate(get_backend("numpy", "float64"), model().params, X, y, "relu")
    np.testing.assert_allclose(model().evaluate(X, CLASSES[y]), expected, rtol=1e-13)
    assert model(classes=None).evaluate(X, y) == model().evaluate(X, CLASSES[y])


def test_pixels_are_scaled_as_in_training() -> None:
    pixels = RNG.integers(0, 256, (50, 6), dtype=np.uint8)
    np.testing.assert_allclose(model().predict_proba(pixels), model().predict_proba(pixels / 255), rtol=1e-13)


def test_a_prediction_does_not_depend_on_the_samples_beside_it(dtype: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 300)).astype(dtype)
    large = Model([(w.astype(dtype), b.astype(dtype)) for w, b in init_params([300, 100, 10], 0)], "tanh")
    whole, order = large.predict_proba(x), rng.permutation(len(x))
    np.testing.assert_allclose(large.predict_proba(x[order]), whole[order], atol=1e-12)
    np.testing.assert_allclose([large.predict_proba(x[i : i + 1])[0] for i in range(0, 3000, 101)], whole[::101], atol=1e-12)
    assert large.predict_proba(x[:0]).shape == (0, 10)


@pytest.mark.parametrize(
    "classes",
    [
        None,
        CLASSES,
        CLASSES.astype(object),
        [3, -1, 7],
        [0.1, 2.5, -1e300],
        np.array([1, 0, 3], np.uint8),
        np.array(["x", 1, True], object),
    ][:6],
    ids=str,
)
@pytest.mark.parametrize("scaling", ["none", "standard", "minmax"])
def test_a_file_gives_the_same_model(tmp_path: Path, classes: Any, scaling: str) -> None:
    written = model(classes=classes, scaling=Scaling.fit(scaling, X), settings={"optimizer": {"name": "adam"}, "epochs": 3})
    written.save(tmp_path / "m.safetensors")
    read = load_model(tmp_path / "m.safetensors")
    assert read.layer_sizes == SIZES
    assert str(read.activation) == "relu"
    assert read.settings == written.settings
    predicted = read.predict(X)
    assert predicted.dtype == written.predict(X).dtype
    assert predicted.tolist() == written.predict(X).tolist()
    assert np.array_equal(read.predict_proba(X), written.predict_proba(X))
    read.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_arrays_in_fortran_order_keep_their_values(tmp_path: Path) -> None:
    params = [(np.asfortranarray(weights), bias[::-1]) for weights, bias in init_params(SIZES, random_bias=True)]
    Model(params).save(tmp_path / "m")
    for (weights, bias), (read_weights, read_bias) in zip(params, load_model(tmp_path / "m").params, strict=True):
        assert np.array_equal(weights, read_weights)
        assert np.array_equal(bias, read_bias)


def test_what_is_read_back_differently_is_not_left_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").write_text("precious")
    monkeypatch.setattr(tensor_file, "same_array", lambda *_: False)
    with pytest.raises(OutputError, match="what was written is not what is read back"):
        model().save(tmp_path / "m")
    assert (tmp_path / "m").read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_a_users_activation_must_be_given_again(tmp_path: Path) -> None:
    cube = Activation(lambda z: z * z * z, lambda z: 3.0 * z * z, of_input=True, name="cube")
    Model(init_params(SIZES), cube).save(tmp_path / "m")
    assert load_model(tmp_path / "m", cube).activation is cube
    for given in (None, "tanh", Activation(lambda z: z * z, lambda z: 2.0 * z, of_input=True, name="cube")):
        with pytest.raises(ModelFileError, match="'cube'"):
            load_model(tmp_path / "m", given)


def test_parameters_alone_are_a_model_once_the_activation_is_given(tmp_path: Path) -> None:
    params = init_params(SIZES)
    save_params(tmp_path / "p.npz", params)
    with pytest.raises(ModelFileError, match="activation="):
        load_model(tmp_path / "p.npz")
    assert np.array_equal(load_model(tmp_path / "p.npz", "elu").logits(X), Model(params, "elu").logits(X))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "format 99"),
        ({"kind": "checkpoint"}, "a checkpoint, not a model"),
        ({"layer_sizes": [6, 4, 3]}, "not those that its description names"),
        ({"layer_sizes": [6, 3]}, "damaged"),
        ({"scaling": "standard"}, "damaged"),
        ({"classes": {"dtype": "<U9999999", "values": ["a", "b", "c"]}}, "damaged"),
        ({"classes": {"dtype": "<i8", "values": [1, 2]}}, "damaged"),
        ({"activation": {"name": "relu", "values": []}}, "damaged|activation"),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    model().save(tmp_path / "m")
    arrays, description = tensor_file.read_tensors(tmp_path / "m", ModelFileError)
    tensor_file.write_tensors(tmp_path / "m", arrays, description | change)
    with pytest.raises(ModelFileError, match=words):
        load_model(tmp_path / "m")


def test_files_of_another_origin_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "other")
    (tmp_path / "text").write_text(json.dumps({"no": "model"}))
    (tmp_path / "empty").write_bytes(b"")
    for name, words in [
        ("other", "not written by mlp_accel"),
        ("text", "not a safetensors"),
        ("empty", "not a safe"),
        ("no", "No such"),
    ]:
        with pytest.raises(ModelFileError, match=words):
            load_model(tmp_path / name)


def test_what_cannot_be_predicted_is_named() -> None:
    x = X[:1500].copy()
    x[1400, 2] = np.nan
    with pytest.raises(ValueError, match="NaN: row 1400, column 2"):
        model().predict(x)
    with pytest.raises(ValueError, match=r"\(n, 6\).*\(3, 5\)"):
        model().predict(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="numbers"):
        model().predict(np.full((3, 6), "a"))
    with pytest.raises(ValueError, match=r"'lily' in row 1; the model knows 'setosa', 'virginica', 'versicolor'"):
        model().evaluate(X[:2], ["setosa", "lily"])
    with pytest.raises(ValueError, match="each of the 3 classes"):
        model(classes=["a", "b"])
    with pytest.raises(ValueError, match="different"):
        model(classes=["a", "b", "a"])
    with pytest.raises(SettingError, match="numbers, booleans or strings"):
        model(classes=np.array([(1, 2), (3,), None], object)).save("never")


def test_labels_are_numbered_whatever_they_are() -> None:
    assert class_indices([2, 0, 1], None, 3).tolist() == [2, 0, 1]
    assert class_indices(np.array([True, False]), np.array([False, True]), 2).tolist() == [1, 0]
    assert class_indices(np.array(["b", "a"], object), np.array(["a", "b"]), 2).tolist() == [1, 0]


def test_a_feature_that_is_constant_is_not_divided_by_zero() -> None:
    x = np.column_stack([np.full(9, 7.0), np.arange(9.0)])
    standard, minmax = Scaling.fit("standard", x).apply(x), Scaling.fit("minmax", x).apply(x)
    assert standard[:, 0].tolist() == minmax[:, 0].tolist() == [0.0] * 9
    np.testing.assert_allclose([standard[:, 1].mean(), standard[:, 1].std()], [0, 1], atol=1e-15)
    assert (minmax[:, 1].min(), minmax[:, 1].max()) == (0, 1)
    assert Scaling.fit("minmax", x.astype(np.uint8)).apply(x.astype(np.uint8))[:, 1].tolist() == minmax[:, 1].tolist()


def test_a_model_is_not_changed_from_outside() -> None:
    params = init_params(SIZES)
    ours = Model(params)
    before = ours.logits(X)
    params[0][0][:] = 0
    assert np.array_equal(ours.logits(X), before)
    with pytest.raises(ValueError, match="read-only"):
        ours.params[0][0][:] = 0
    assert np.array_equal(pickle.loads(pickle.dumps(ours)).logits(X), before)


def test_the_file_names_the_version_that_wrote_it(tmp_path: Path) -> None:
    model().save(tmp_path / "m")
    _, description = tensor_file.read_tensors(tmp_path / "m", ModelFileError)
    assert description["versions"] == {"mlp_accel": mlp_accel.__version__}
