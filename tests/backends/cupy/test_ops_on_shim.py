"""The ops of the CuPy backend without a GPU: CuPy's array functions by NumPy, the kernels by the shim; held to the base ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel.backends import GRADIENTS
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.network import forward, init_params
from tests.backends.cupy.fake_cupy import FakeCupy
from tests.backends.cupy.small import ACTIVATIONS, RULES, SGD, SIZES, TANH, Reference, data, rule_of, trainer_by

REFERENCE = Reference("float64")
EPS_UNITS = 100
"""Of the largest element: how far a result may be from float64."""

SHAPES = [(1, 1, 1), (7, 50, 40), (33, 20, 10)]


class Case:
    """Random arrays of matching shapes, exactly representable in the backend's dtype."""

    def __init__(self, backend: CupyBackend, n: int, n_in: int, n_out: int) -> None:
        self.backend, self.n, self.n_in, self.n_out = backend, n, n_in, n_out
        self.rng = np.random.default_rng(1)
        self.pixels = self.rng.integers(0, 256, (n, n_in), dtype=np.uint8)
        self.x, self.weights, self.delta = self.normal(n, n_in), self.normal(n_in, n_out), self.normal(n, n_out)
        self.bias, self.y = self.normal(n_out), self.rng.integers(0, n_out, n)

    def normal(self, *shape: int, scale: float = 1.0) -> npt.NDArray[Any]:
        return self.rng.normal(0, scale, shape).astype(self.backend.dtype).astype(np.float64)

    def check(self, op: str, *arguments: Any) -> None:
        """Compare an op with the base op in float64."""
        actual, expected = (getattr(backend, op)(*_on(backend, arguments)) for backend in (self.backend, REFERENCE))
        for ours, theirs in zip(_flat(actual), _flat(expected), strict=True):
            host = self.backend.to_numpy(ours)
            assert host.shape == np.shape(theirs)
            tolerance = EPS_UNITS * float(np.finfo(self.backend.dtype).eps) * float(np.abs(theirs).max(initial=0.0))
            np.testing.assert_allclose(host, theirs, rtol=0, atol=tolerance, err_msg=f"{op} in {self.backend.dtype}")


def _on(backend: Any, value: Any) -> Any:
    """New memory of the backend for each array; pairs and lists keep their form."""
    if isinstance(value, np.ndarray):
        return backend.copy(backend.asarray(value))
    return type(value)(_on(backend, item) for item in value) if isinstance(value, tuple | list) else value


def _flat(value: Any) -> list[Any]:
    return [array for item in value for array in _flat(item)] if isinstance(value, tuple | list) else [value]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "n_in", "n_out"), SHAPES)
def test_every_op_of_a_step_agrees_with_the_base_op(cupy: FakeCupy, dtype: str, n: int, n_in: int, n_out: int) -> None:
    case = Case(CupyBackend(dtype), n, n_in, n_out)
    x, y, weights, bias, delta = case.x, case.y, case.weights, case.bias, case.delta
    case.check("minibatch", case.pixels, y.astype(np.uint8), case.rng.integers(0, n, 2 * n))
    case.check("minibatch", x, y, case.rng.integers(0, n, n).astype(np.int32))
    case.check("dense", x, weights, bias)
    for activation in ACTIVATIONS.values():
        case.check("dense", x, weights, bias, activation)
        case.check("hidden_delta", delta, weights, np.tanh(x), activation)
    for gradient in GRADIENTS:
        case.check("classify", case.normal(n, n_out, scale=3.0), y.astype(np.int32), gradient)
    for name in RULES:
        rule = rule_of(name)
        slots = [(np.abs(case.normal(n_in, n_out)), np.abs(case.normal(n_out))) for _ in range(rule.n_slots)]
        scalars = RULES[name].scalars(rule, np.array([0.1]), first_step=2)[0].astype(dtype).astype(np.float64)
        case.check("update", (weights, bias), slots, x, delta, rule, scalars)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_the_public_verbs_need_runs_as_it_stands_in_the_base(cupy: FakeCupy, dtype: str) -> None:
    case = Case(CupyBackend(dtype), *SHAPES[1])
    p = np.exp(case.delta) / np.exp(case.delta).sum(axis=1, keepdims=True)
    p = p.astype(dtype).astype(np.float64)
    case.check("scale_pixels", case.pixels)
    case.check("softmax", case.normal(7, 40, scale=30.0))
    case.check("cross_entropy", case.y, p)
    case.check("correct", case.y, p)
    case.check("output_delta", case.y, p, "notebook")
    case.check("dense_gradient", case.x, case.delta)
    case.check("apply_rule", SGD, case.weights, case.normal(50, 40), [], [0.1])
    overridden = set(vars(CupyBackend)) & {"scale_pixels", "softmax", "cross_entropy", "correct", "output_delta", "dense_gradient"}
    assert overridden == set()


def test_many_rows_are_added_up_in_an_order_that_depends_on_nothing(cupy: FakeCupy) -> None:
    backend, rng = CupyBackend(), np.random.default_rng(0)
    logits, y = rng.normal(size=(3000, 10)), backend.asarray(rng.integers(0, 10, 3000))
    results = [[float(value) for value in backend.classify(backend.asarray(logits), y, "exact")[1:]] for _ in range(2)]
    _, loss, hits = REFERENCE.classify(logits.astype(np.float32).astype(np.float64), y, "exact")
    assert results[0] == results[1]
    assert results[0] == pytest.approx([float(loss), float(hits)], rel=1e-6)


def test_any_finite_logits_and_labels_that_are_no_class(cupy: FakeCupy) -> None:
    backend = CupyBackend()
    huge = float(np.finfo(np.float32).max) / 2
    logits = np.array([[huge, -huge, 0.0], [-huge, -huge, -huge], [0.0, 1e-30, -1e-30], [huge, huge, huge]])
    for labels, loss in (([0, 1, 2, 1], 3 * np.log(3)), ([1, 0, 0, 0], 2 * huge)):
        delta, total, _ = backend.classify(backend.asarray(logits), backend.asarray(np.array(labels)), "exact")
        assert float(total) == pytest.approx(loss, rel=1e-6)
        assert np.isfinite(backend.to_numpy(delta)).all()
    _, _, hits = backend.classify(backend.asarray(logits), backend.asarray(np.array([-1, 7, 10**9, -32])), "exact")
    assert float(hits) == 0.0
    nan = np.array([[0.0, np.nan, 1.0]])
    delta, total, _ = backend.classify(backend.asarray(nan), backend.asarray(np.array([0])), "exact")
    assert np.isnan([float(total), *backend.to_numpy(delta)[0]]).all()


def test_shapes_that_do_not_fit_are_errors_not_memory_faults(cupy: FakeCupy) -> None:
    backend = CupyBackend()

    def array(*shape: int) -> Any:
        return backend.asarray(np.zeros(shape))

    y, pair, scalars = backend.asarray(np.array([0, 1])), (array(3, 5), array(5)), array(1)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("minibatch", (array(4, 6), y, y)),
        ("dense", (array(2, 3), array(4, 5), array(5))),
        ("dense", (array(2, 3), array(3, 5), array(4))),
        ("classify", (array(8, 3), y, "exact")),
        ("hidden_delta", (array(2, 3), array(700, 3), array(2, 5), TANH)),
        ("hidden_delta", (array(2, 4), array(5, 3), array(2, 5), TANH)),
        ("update", (pair, [], array(2, 3), array(4, 5), SGD, scalars)),
        ("update", (pair, [], array(2, 4), array(2, 5), SGD, scalars)),
        ("update", (pair, [], array(2, 3), array(2, 5), SGD, array(2))),
        ("update", (pair, [(array(3, 5), array(4))], array(2, 3), array(2, 5), rule_of("momentum"), array(4))),
        ("update", (pair, [], array(2, 3), array(2, 5), rule_of("nesterov"), array(2))),
    ]
    for op, arguments in calls:
        with pytest.raises(ValueError, match=r"fit|one label|scalars"):
            getattr(backend, op)(*arguments)


def test_samples_that_there_are_not_become_nan_and_negative_ones_count_from_the_end(cupy: FakeCupy) -> None:
    backend = CupyBackend()
    y, samples = backend.asarray(np.arange(4, dtype=np.uint8)), np.array([4, -1, -5, 2, 2**62, -(2**63), -4])
    for x in (np.full((4, 6), 51, np.uint8), np.full((4, 6), 0.2)):
        found, labels = backend.minibatch(backend.asarray(x), y, backend.asarray(samples))
        there = [np.nan, 0.2, np.nan, 0.2, np.nan, np.nan, 0.2]
        np.testing.assert_allclose(found, np.repeat(there, 6).reshape(7, 6), rtol=1e-6)
        assert labels[[1, 3, 6]].tolist() == [3, 2, 0]


def test_a_numpy_array_is_refused_with_what_to_do(cupy: FakeCupy) -> None:
    backend = CupyBackend()
    params = [(backend.asarray(w), backend.asarray(b)) for w, b in init_params(SIZES)]
    x, y = data()
    with pytest.raises(TypeError, match=r"x must be an array on the GPU; got numpy.ndarray. backend.asarray\(x\) puts it there"):
        forward(backend, params, x)
    with pytest.raises(TypeError, match=r"weights must be an array on the GPU"):
        forward(backend, init_params(SIZES), backend.asarray(x))
    with pytest.raises(TypeError, match=r"y must be an array on the GPU"):
        backend.classify(backend.asarray(np.zeros((50, 5))), y, "exact")
    x64 = CupyBackend("float64").asarray(np.zeros((1, 20)))
    with pytest.raises(TypeError, match=r"x must be float32; got float64"):
        backend.dense(x64, *params[0])


def test_an_epoch_of_ops_transfers_and_waits_only_at_its_ends(cupy: FakeCupy) -> None:
    trainer = trainer_by("loop", CupyBackend(), n=200)
    trainer.epoch()
    cupy.events.clear()
    trainer.epoch()
    moves = [entry for entry in cupy.events if entry in ("to device", "to host", "synchronize")]
    assert moves == ["to device", "to device", "to host", "synchronize"]  # order, rates; losses and hits together
    kernels = [entry for entry in cupy.events if entry.startswith(("launch", "product"))]
    assert len(kernels) == 20 * (2 + 4 + 2 + 6)  # minibatch, classify; two layers; one hidden error; two updates
