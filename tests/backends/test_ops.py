"""Every op of every backend, and every override, against the base op in float64 on the same random inputs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_accel.backends import ACTIVATIONS, BACKENDS, GRADIENTS, Backend, backend_class
from tests.reference import ReferenceBackend
from tests.tolerances import EPS_UNITS, assert_close

REFERENCE = ReferenceBackend("float64")
same_backend_each_time = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 40)
poison = st.booleans()


@dataclass
class Case:
    """Random arrays of matching shapes, exactly representable in the backend's dtype."""

    backend: Backend
    seed: int
    n: int
    n_in: int
    n_out: int

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def normal(self, *shape: int, scale: float = 1.0) -> npt.NDArray[Any]:
        return self.rng.normal(0, scale, shape).astype(self.backend.dtype).astype(np.float64)

    def labels(self) -> npt.NDArray[np.int64]:
        return self.rng.integers(0, self.n_out, self.n)

    def probabilities(self) -> npt.NDArray[Any]:
        p = np.exp(self.normal(self.n, self.n_out))
        rounded: npt.NDArray[Any] = (p / p.sum(axis=1, keepdims=True)).astype(self.backend.dtype).astype(np.float64)
        return rounded

    def check(self, op: str, *arguments: Any, poisoned: bool = False, out_shape: Any = None) -> None:
        """Compare one op with the base op; with `poisoned` it gets memory full of NaN for its result."""
        ours = [self.backend.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        before = [self.backend.to_numpy(a).copy() if isinstance(b, np.ndarray) else a for a, b in zip(ours, arguments, strict=True)]
        keywords = {"out": self._poison(out_shape)} if poisoned else {}
        actual = getattr(self.backend, op)(*ours, **keywords)
        theirs = [REFERENCE.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        expected = getattr(REFERENCE, op)(*theirs)
        for a, e in zip(_tuple(actual), _tuple(expected), strict=True):
            result = self.backend.to_numpy(a)
            assert result.shape == np.shape(e)
            assert_close(op, self.backend.dtype, result, np.asarray(e))
        for a, b in zip(ours, before, strict=True):
            if isinstance(b, np.ndarray):
                np.testing.assert_array_equal(self.backend.to_numpy(a), b, err_msg=f"{op} changed its input")

    def _poison(self, shape: Any) -> Any:
        if isinstance(shape[0], tuple):
            return tuple(self._poison(s) for s in shape)
        return self.backend.asarray(np.full(shape, np.nan))


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@given(seeds, sizes, st.integers(1, 200), sizes, poison)
@same_backend_each_time
def test_scale_pixels_and_minibatch(backend: Backend, seed: int, n: int, n_in: int, n_out: int, poisoned: bool) -> None:
    case = Case(backend, seed, n, n_in, n_out)
    pixels = case.rng.integers(0, 256, (n, n_in), dtype=np.uint8)
    rows = case.rng.integers(0, n, case.rng.integers(1, 2 * n + 1))
    case.check("scale_pixels", pixels, poisoned=poisoned, out_shape=(n, n_in))
    case.check("scale_pixels", case.normal(n, n_in))
    case.check("minibatch", pixels, case.labels(), rows, poisoned=poisoned, out_shape=(len(rows), n_in))
    case.check("minibatch", case.normal(n, n_in), case.labels(), rows)


@pytest.mark.parametrize("activation", ["identity", *ACTIVATIONS])
@given(seeds, sizes, st.integers(1, 200), sizes, poison)
@same_backend_each_time
def test_dense(backend: Backend, activation: str, seed: int, n: int, n_in: int, n_out: int, poisoned: bool) -> None:
    case = Case(backend, seed, n, n_in, n_out)
    weights, bias = case.normal(n_in, n_out, scale=n_in**-0.5), case.normal(n_out)
    case.check("dense", case.normal(n, n_in), weights, bias, activation, poisoned=poisoned, out_shape=(n, n_out))


@given(seeds, sizes, sizes, poison, st.sampled_from([1.0, 30.0, 1e4]))
@same_backend_each_time
def test_softmax_and_losses(backend: Backend, seed: int, n: int, n_out: int, poisoned: bool, scale: float) -> None:
    case = Case(backend, seed, n, 1, n_out)
    logits = case.normal(n, n_out, scale=scale)
    case.check("softmax", logits, poisoned=poisoned, out_shape=(n, n_out))
    case.check("cross_entropy_from_logits", case.labels(), logits)
    case.check("cross_entropy", case.labels(), case.probabilities())
    case.check("correct", case.labels(), logits)


@pytest.mark.parametrize("gradient", GRADIENTS)
@given(seeds, sizes, sizes, poison)
@same_backend_each_time
def test_output_delta(backend: Backend, gradient: str, seed: int, n: int, n_out: int, poisoned: bool) -> None:
    case = Case(backend, seed, n, 1, n_out)
    case.check("output_delta", case.labels(), case.probabilities(), gradient, poisoned=poisoned, out_shape=(n, n_out))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(seeds, sizes, sizes, sizes, poison)
@same_backend_each_time
def test_hidden_delta(backend: Backend, activation: str, seed: int, n: int, n_in: int, n_out: int, poisoned: bool) -> None:
    case = Case(backend, seed, n, n_in, n_out)
    activations = np.tanh(case.normal(n, n_in)).astype(backend.dtype).astype(np.float64)
    case.check(
        "hidden_delta",
        case.normal(n, n_out),
        case.normal(n_in, n_out),
        activations,
        activation,
        poisoned=poisoned,
        out_shape=(n, n_in),
    )


@given(seeds, st.integers(1, 200), sizes, sizes, poison)
@same_backend_each_time
def test_dense_gradient(backend: Backend, seed: int, n: int, n_in: int, n_out: int, poisoned: bool) -> None:
    case = Case(backend, seed, n, n_in, n_out)
    case.check(
        "dense_gradient", case.normal(n, n_in), case.normal(n, n_out), poisoned=poisoned, out_shape=((n_in, n_out), (n_out,))
    )


@given(seeds, sizes, sizes, poison)
@same_backend_each_time
def test_sgd_update(backend: Backend, seed: int, n_in: int, n_out: int, poisoned: bool) -> None:
    case = Case(backend, seed, 1, n_in, n_out)
    case.check("sgd_update", case.normal(n_in, n_out), case.normal(n_in, n_out), 0.25, poisoned=poisoned, out_shape=(n_in, n_out))
    case.check("sgd_update", case.normal(n_out), case.normal(n_out), 0.25, poisoned=poisoned, out_shape=(n_out,))


@given(seeds, poison)
@same_backend_each_time
def test_sgd_update_of_a_large_layer(backend: Backend, seed: int, poisoned: bool) -> None:
    case = Case(backend, seed, 1, 301, 67)
    case.check("sgd_update", case.normal(301, 67), case.normal(301, 67), 0.25, poisoned=poisoned, out_shape=(301, 67))


@pytest.mark.parametrize("order", ["F", "strided"])
def test_any_memory_layout_gives_the_same(backend: Backend, order: str) -> None:
    if backend.name == "cupy":
        pytest.skip("layouts are made with NumPy here")
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(backend.dtype) for s in ((6, 8), (8, 4), (4,)))

    def laid_out(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asfortranarray(a) if order == "F" else np.repeat(a, 2, axis=0)[::2]

    expected = backend.dense(x, w, b, "tanh")
    np.testing.assert_allclose(backend.dense(laid_out(x), laid_out(w), laid_out(b), "tanh"), expected, rtol=1e-5)
    delta = rng.normal(size=(6, 4)).astype(backend.dtype)
    expected_gradient = backend.dense_gradient(x, delta)[0]
    np.testing.assert_allclose(backend.dense_gradient(laid_out(x), laid_out(delta))[0], expected_gradient, rtol=1e-4, atol=1e-6)


def test_softmax_and_loss_of_any_finite_logits(backend: Backend) -> None:
    huge = float(np.finfo(backend.dtype).max) / 2
    logits = np.array([[huge, -huge, 0.0], [-huge, -huge, -huge], [0.0, 1e-30, -1e-30], [huge, huge, huge]])
    labels = np.array([0, 1, 2, 1])
    y, z = backend.asarray(labels), backend.asarray(logits)
    expected = np.array([[1, 0, 0], [1 / 3] * 3, [1 / 3] * 3, [1 / 3] * 3])
    np.testing.assert_allclose(backend.to_numpy(backend.softmax(z)), expected, rtol=1e-6)
    assert float(backend.cross_entropy_from_logits(y, z)) == pytest.approx(3 * np.log(3), rel=1e-6)
    wrong = backend.asarray(np.array([1, 0, 0, 0]))
    assert float(backend.cross_entropy_from_logits(wrong, z)) == pytest.approx(2 * huge, rel=1e-6)


def test_nan_is_never_lost(backend: Backend) -> None:
    x, w, b = (backend.asarray(np.full(s, np.nan)) for s in ((2, 3), (3, 4), (4,)))
    for activation in ("identity", *ACTIVATIONS):
        assert np.isnan(backend.to_numpy(backend.dense(x, w, b, activation))).all(), activation
    y = backend.asarray(np.array([0, 1]))
    z = backend.asarray(np.array([[0.0, np.nan], [0.0, 1.0]]))
    assert np.isnan(float(backend.cross_entropy_from_logits(y, z)))
    assert np.isnan(backend.to_numpy(backend.softmax(z))[0]).all()


def test_shapes_that_do_not_fit_are_errors_not_memory_faults(backend: Backend) -> None:
    def array(*shape: int) -> Any:
        return backend.asarray(np.zeros(shape))

    y = backend.asarray(np.array([0, 1]))
    pixels = backend.asarray(np.zeros((4, 6), np.uint8))
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("dense", (array(2, 3), array(4, 5), array(5))),
        ("dense", (array(2, 3), array(3, 5), array(4))),
        ("hidden_delta", (array(2, 3), array(700, 3), array(2, 5), "tanh")),
        ("hidden_delta", (array(2, 4), array(5, 3), array(2, 5), "tanh")),
        ("dense_gradient", (array(2, 3), array(4, 5))),
        ("cross_entropy", (y, array(8, 3))),
        ("cross_entropy_from_logits", (y, array(8, 3))),
        ("correct", (y, array(8, 3))),
        ("output_delta", (y, array(8, 3), "exact")),
        ("sgd_update", (array(200, 100), array(100, 100), 0.1)),
    ]
    outs = [
        ("scale_pixels", (pixels, array(2, 6))),
        ("minibatch", (pixels, y, backend.asarray(np.arange(2)), array(1, 6))),
        ("dense", (array(2, 3), array(3, 5), array(5), "tanh", array(1, 5))),
        ("softmax", (array(2, 3), array(1, 3))),
        ("output_delta", (y, array(2, 3), "exact", array(1, 3))),
        ("hidden_delta", (array(2, 3), array(5, 3), array(2, 5), "tanh", array(1, 5))),
        ("dense_gradient", (array(2, 3), array(2, 5), (array(2, 5), array(5)))),
        ("dense_gradient", (array(2, 3), array(2, 5), (array(3, 5), array(2)))),
        ("sgd_update", (array(200, 100), array(200, 100), 0.1, array(100, 100))),
    ]
    calls += outs
    if backend.name != "cupy":  # CuPy does not check indices
        calls.append(("minibatch", (pixels, backend.asarray(np.zeros(4, int)), np.array([0, 10**6]))))
    for op, arguments in calls:
        with pytest.raises((ValueError, IndexError)):
            getattr(backend, op)(*arguments)


def test_a_label_that_is_no_class_counts_as_none(backend: Backend) -> None:
    y = backend.asarray(np.array([-1, 7, 10**9]))
    p = backend.asarray(np.full((3, 4), 0.25))
    assert float(backend.cross_entropy(y, p)) == 0.0
    np.testing.assert_allclose(backend.to_numpy(backend.output_delta(y, p, "exact")), 0.25 / 3, rtol=1e-6)


@pytest.mark.parametrize("label_dtype", [np.uint8, np.int32, np.int64])
def test_labels_of_any_integer_dtype(backend: Backend, label_dtype: Any) -> None:
    y = backend.asarray(np.array([2, 0, 1], label_dtype))
    p = backend.asarray(np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]))
    assert float(backend.correct(y, p)) == 2.0
    assert float(backend.cross_entropy(y, p)) == pytest.approx(-np.log(0.7 * 0.5 * 0.3), rel=1e-6)


def _public_methods(cls: type) -> dict[str, Any]:
    return {name: f for name, f in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}


@pytest.mark.parametrize("name", BACKENDS)
def test_an_override_has_the_signature_of_the_base_op(name: str) -> None:
    base = _public_methods(Backend)
    for method, function in _public_methods(backend_class(name)).items():
        assert method in base, f"{name}.{method} is no part of the contract"
        assert inspect.signature(function) == inspect.signature(base[method]), f"{name}.{method}"


def test_the_tolerance_table_knows_every_op_and_no_other() -> None:
    plumbing = {
        *("asarray", "check_input", "copy", "empty", "limit_threads"),
        *("synchronize", "to_numpy", "train_epoch", "train_epoch_of_each", "training_images", "versions"),
    }
    assert set(EPS_UNITS) == set(_public_methods(Backend)) - plumbing - {"probe"}
