"""onnxruntime computes what the model computes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_accel import Activation, Model, Scaling, SettingError, init_params
from mlp_accel.activations import ACTIVATIONS
from mlp_accel.elementwise import log, maximum, minimum, sqrt, where
from mlp_accel.errors import MissingPackageError
from mlp_accel.onnx import IR_VERSION, OPERATIONS, OPSET, export_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NAMES = np.array(["setosa", "virginica", "versicolor", "unknown"])


def network(hidden: list[int], dtype: str = "float32", seed: int = 0) -> list[tuple[Any, Any]]:
    params = init_params([6, *hidden, 4], seed, random_bias=True)
    return [(weights.astype(dtype), bias.astype(dtype)) for weights, bias in params]


def run(path: Path, x: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    result: list[npt.NDArray[Any]] = session.run(None, {"x": x})
    return result


def assert_same(model: Model, path: Path, x: npt.NDArray[Any], **keywords: Any) -> None:
    export_onnx(model, path, **keywords)
    label, probabilities = run(path, x)
    np.testing.assert_allclose(probabilities, model.predict_proba(x), atol=1e-6, rtol=0)
    certain = np.ptp(np.sort(model.predict_proba(x), axis=1)[:, -2:], axis=1) > 1e-5  # elsewhere rounding decides
    np.testing.assert_array_equal(label[certain], model.predict(x)[certain])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_at_every_depth(activation: str, dtype: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(scale=3, size=(50, 6)).astype(np.float32)
    for hidden in ([], [5], [40, 30], [16, 16, 16]):
        assert_same(Model(network(hidden, dtype), activation, NAMES), tmp_path / "model.onnx", x)


@given(
    st.lists(st.integers(1, 40), max_size=4),
    st.sampled_from(ACTIVATIONS),
    st.sampled_from(["none", "standard", "minmax"]),
    st.integers(1, 30),
    st.integers(0, 9),
)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_network_scaling_and_batch(tmp_path: Path, hidden: list[int], activation: str, kind: str, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, 6)) * [1, 1, 1e-3, 1, 1, 1] + [0, 0, 0, 1, 2, 3]).astype(np.float32)
    assert_same(Model(network(hidden, seed=seed), activation, NAMES, Scaling.fit(kind, x)), tmp_path / "model.onnx", x)


@pytest.mark.parametrize("classes", [None, [3, -1, 7, 2**40], [0.5, 1.5, -2.0, 3.0], NAMES, NAMES.astype(object)])
def test_labels_are_those_of_the_model(classes: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    model = Model(network([5]), "relu", None if classes is None else np.array(classes))
    export_onnx(model, tmp_path / "model.onnx")
    assert run(tmp_path / "model.onnx", x)[0].tolist() == model.predict(x).tolist()


def test_labels_of_two_types_are_refused(tmp_path: Path) -> None:
    model = Model(network([5]), "relu", np.array(["a", 1, 2, 3], object))
    with pytest.raises(SettingError, match="must all be integers, floats, booleans or strings"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("asked_for", [True, None])
def test_pixels_are_scaled_inside(asked_for: bool | None, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 6), dtype=np.uint8)
    model = Model(network([5]), "relu", settings={} if asked_for else {"pixels": True})
    assert_same(model, tmp_path / "model.onnx", x, pixels=asked_for)
    scaled = Model(network([5]), "relu", scaling=Scaling.fit("standard", x))
    with pytest.raises(SettingError, match=r"scales its inputs by standard"):
        export_onnx(scaled, tmp_path / "model.onnx", pixels=True)


def test_an_activation_of_ones_own_with_every_operation(tmp_path: Path) -> None:
    def wild(z: Any) -> Any:
        inside = where((z > -1) & (z <= 1) | (z >= 4), sqrt(abs(z) + 1.0), log(maximum(minimum(z * z, 9.0), 0.5)))
        return where(z < -2, -z / 3.0, inside) - 0.25

    def slope(z: Any) -> Any:
        square, size = z * z, abs(z) + 1.0
        of_log = where((square < 9.0) & (square > 0.5), 2.0 / where(abs(z) > 0.1, z, 1.0), 0.0)
        of_root = where(z >= 0, 0.5, -0.5) / sqrt(size)
        return where(z < -2, -1 / 3, where((z > -1) & (z <= 1) | (z >= 4), of_root, of_log))

    activation = Activation(wild, slope, of_input=True, name="wild")
    used = {line.op for line in activation.value.assignments}
    assert set(OPERATIONS) - used <= {"exp", "tanh", "+", "-", ">"}
    x = np.random.default_rng(0).normal(scale=4, size=(200, 6)).astype(np.float32)
    assert_same(Model(network([30]), activation, NAMES), tmp_path / "model.onnx", x)


def test_versions_are_pinned_and_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    model = Model(network([5]), "gelu", NAMES)
    for name in ("a.onnx", "b.onnx"):
        export_onnx(model, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    proto = onnx.load(tmp_path / "a.onnx")
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", OPSET)]
    assert proto.ir_version == IR_VERSION
    assert [output.name for output in proto.graph.output] == ["label", "probabilities"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_without_onnx_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingPackageError, match=r"pip install 'mlp-accel\[onnx\]'"):
        export_onnx(Model(network([5]), "relu"), tmp_path / "model.onnx")
