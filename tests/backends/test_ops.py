"""Every op of every backend, and every override, against the base op in float64 on the same random inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_accel import Activation
from mlp_accel.activations import ACTIVATIONS, BUILT_IN, find_activation
from mlp_accel.backends import BACKENDS, GRADIENTS, Backend, backend_class
from mlp_accel.elementwise import sign, where
from mlp_accel.optimizers import OPTIMIZERS, Optimizer, Rule, find_optimizer
from tests.reference import PoisonedArena, ReferenceBackend
from tests.tolerances import EPS_UNITS, assert_close

REFERENCE = ReferenceBackend("float64")
same_backend_each_time = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 40)

STEP_OPS = ("minibatch", "dense", "classify", "hidden_delta", "update")
PUBLIC_ONLY = ("scale_pixels", "softmax", "cross_entropy", "correct", "output_delta", "dense_gradient", "apply_rule")
MAY_OVERWRITE = {"classify": (0,), "update": (0, 1, 3)}
"""Places of the arguments that an op may write over, as its docstring says."""


def tree(function: Callable[[Any], Any], value: Any) -> Any:
    """`function` of every array in tuples and lists of them; what is no array stays."""
    if isinstance(value, tuple | list):
        return type(value)(tree(function, part) for part in value)
    return function(value) if hasattr(value, "dtype") and hasattr(value, "shape") else value


def leaves(value: Any) -> list[Any]:
    """The numbers and arrays in tuples and lists of them."""
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple | list) else [value]


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

    def rounded(self, array: Any) -> npt.NDArray[np.float64]:
        rounded: npt.NDArray[np.float64] = np.asarray(array).astype(self.backend.dtype).astype(np.float64)
        return rounded

    def normal(self, *shape: int, scale: float = 1.0) -> npt.NDArray[np.float64]:
        return self.rounded(self.rng.normal(0, scale, shape))

    def labels(self) -> npt.NDArray[np.int64]:
        return self.rng.integers(0, self.n_out, self.n)

    def probabilities(self) -> npt.NDArray[np.float64]:
        p = np.exp(self.normal(self.n, self.n_out))
        return self.rounded(p / p.sum(axis=1, keepdims=True))

    def check(self, op: str, *arguments: Any, natural: tuple[float, ...] = ()) -> None:
        """Compare one op with the base op: in new memory, then twice in the same memory, each time full of NaN before.

        `natural` gives for each result the least size that the tolerance is relative to.
        """
        expected = [np.asarray(leaf) for leaf in leaves(getattr(REFERENCE, op)(*self._on(REFERENCE, arguments)))]
        least = natural or (0.0,) * len(expected)
        arena = PoisonedArena()
        for memory in (None, arena, arena):
            arena.restart()
            ours = self._on(self.backend, arguments)
            with self.backend.reusing(memory), np.errstate(over="ignore"):
                actual = leaves(getattr(self.backend, op)(*ours))
            for result, right, size in zip(actual, expected, least, strict=True):
                found = self.backend.to_numpy(result)
                assert found.shape == right.shape, op
                assert_close(op, self.backend.dtype, found, right, size)
            for place, (argument, before) in enumerate(zip(ours, arguments, strict=True)):
                if place not in MAY_OVERWRITE.get(op, ()) and not isinstance(before, Table):
                    for a, b in zip(leaves(argument), leaves(before), strict=True):
                        if isinstance(b, np.ndarray):
                            np.testing.assert_array_equal(self.backend.to_numpy(a), b, err_msg=f"{op} changed its input")

    @staticmethod
    def _on(backend: Backend, arguments: Any) -> Any:
        def put(array: Any) -> Any:
            return backend.copy(backend.asarray(array))

        return tuple(backend.scalar_rows(a.rows)[0] if isinstance(a, Table) else tree(put, a) for a in arguments)


@dataclass
class Table:
    """The scalars of a step, for `Backend.scalar_rows`."""

    rows: npt.NDArray[np.float64]


# A step -----------------------------------------------------------------------------------------------------------------------


@given(seeds, sizes, st.integers(1, 200), sizes)
@same_backend_each_time
def test_minibatch(backend: Backend, seed: int, n: int, n_in: int, n_out: int) -> None:
    case = Case(backend, seed, n, n_in, n_out)
    pixels = case.rng.integers(0, 256, (n, n_in), dtype=np.uint8)
    rows = case.rng.integers(0, n, case.rng.integers(1, 2 * n + 1))
    for labels in (case.labels(), case.labels().astype(np.uint8)):
        case.check("minibatch", pixels, labels, rows)
        case.check("minibatch", case.normal(n, n_in), labels, rows.astype(np.int32))


def test_minibatch_of_rows_below_0_takes_sample_and_label_of_one_place(backend: Backend) -> None:
    x, y = np.arange(12, dtype=np.uint8).reshape(4, 3), np.array([10, 11, 12, 13])
    rows = np.array([-1, 0, -4, -2])
    try:
        taken, labels = backend.minibatch(backend.asarray(x), backend.asarray(y), backend.asarray(rows))
    except (IndexError, ValueError):
        return  # refused, which is right too
    found = np.rint(backend.to_numpy(taken) * 255)
    np.testing.assert_array_equal(found, x[backend.to_numpy(labels) - 10])


def quarter_relu(z: Any) -> Any:
    return where(z > 0, z, 0.25 * z)


QUARTER_RELU = Activation(quarter_relu, lambda a: where(a > 0, 1.0, 0.25))
SQUARE = Activation(lambda z: z * z, lambda z: 2.0 * z, of_input=True, name="square")
KINDS: list[Activation] = [*BUILT_IN.values(), QUARTER_RELU, SQUARE]


@pytest.mark.parametrize("kind", [None, *KINDS], ids=str)
@given(seeds, sizes, st.integers(1, 200), sizes)
@same_backend_each_time
def test_dense(backend: Backend, kind: Activation | None, seed: int, n: int, n_in: int, n_out: int) -> None:
    case = Case(backend, seed, n, n_in, n_out)
    weights, bias = case.normal(n_in, n_out, scale=n_in**-0.5), case.normal(n_out)
    case.check("dense", case.normal(n, n_in), weights, bias, kind, natural=(1.0, 1.0))


def test_what_dense_keeps_is_the_output_itself_or_the_sums(backend: Backend) -> None:
    x, w, b = (backend.asarray(np.ones(shape)) for shape in ((2, 3), (3, 4), (4,)))
    for kind in KINDS:
        output, slope_input = backend.dense(x, w, b, kind)
        assert (slope_input is output) != kind.of_input
        sums = backend.to_numpy(backend.dense(x, w, b)[0])
        np.testing.assert_allclose(backend.to_numpy(slope_input), sums if kind.of_input else backend.to_numpy(output))
        np.testing.assert_allclose(sums, 4.0)


@pytest.mark.parametrize("gradient", GRADIENTS)
@given(seeds, sizes, sizes, st.sampled_from([1.0, 30.0, 1e4]))
@same_backend_each_time
def test_classify(backend: Backend, gradient: str, seed: int, n: int, n_out: int, scale: float) -> None:
    case = Case(backend, seed, n, 1, n_out)
    natural = (1.0 / n if gradient == "exact" else 1.0, float(n), 0.0)
    case.check("classify", case.normal(n, n_out, scale=scale), case.labels(), gradient, natural=natural)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(seeds, sizes, sizes, sizes)
@same_backend_each_time
def test_hidden_delta(backend: Backend, kind: Activation, seed: int, n: int, n_in: int, n_out: int) -> None:
    case = Case(backend, seed, n, n_in, n_out)
    sums = case.normal(n, n_in, scale=2.0)
    slope_input = sums if kind.of_input else case.rounded(kind(sums))
    case.check("hidden_delta", case.normal(n, n_out), case.normal(n_in, n_out), slope_input, kind, natural=(1.0,))


def lion(p: Any, g: Any, m: Any, rate: Any = 1e-4, beta: Any = 0.9, weight_decay: Any = 0.0) -> Any:
    return p - rate * (sign(beta * m + (1.0 - beta) * g) + weight_decay * p), beta * m + (1.0 - beta) * g


def swapped(p: Any, g: Any, a: Any, b: Any, rate: Any = 0.1, step: Any = 1.0) -> Any:
    """Its slots change places, and one of the results is an argument."""
    return p - rate / step * g, b, a


RULES = [
    *OPTIMIZERS.values(),
    *(find_optimizer(name, weight_decay=0.1) for name in OPTIMIZERS),
    Optimizer(lion),
    Optimizer(swapped),
]


def a_step(optimizer: Optimizer, rate: float, step: int) -> tuple[Rule, Table]:
    rule = Optimizer.record_for([optimizer])
    return rule, Table(optimizer.scalars(rule, np.array([rate]), step))


@pytest.mark.parametrize("optimizer", RULES, ids=str)
@given(seeds, st.integers(1, 100), sizes, sizes, st.sampled_from([1, 2, 1000]))
@same_backend_each_time
def test_update(backend: Backend, optimizer: Optimizer, seed: int, n: int, n_in: int, n_out: int, step: int) -> None:
    case = Case(backend, seed, n, n_in, n_out)
    params = (case.normal(n_in, n_out), case.normal(n_out))
    slots = [(abs(case.normal(n_in, n_out)), abs(case.normal(n_out))) for _ in optimizer.slots]  # Adam takes the root of one
    rule, scalars = a_step(optimizer, 0.25, step)
    case.check(
        "update",
        params,
        slots,
        case.normal(n, n_in),
        case.normal(n, n_out, scale=1 / n),
        rule,
        scalars,
        natural=(1.0,) * (2 + 2 * len(slots)),
    )


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_update_of_a_large_layer(backend: Backend, name: str) -> None:
    case = Case(backend, 0, 9, 301, 67)
    params = (case.normal(301, 67), case.normal(67))
    slots = [(abs(case.normal(301, 67)), abs(case.normal(67))) for _ in OPTIMIZERS[name].slots]
    rule, scalars = a_step(OPTIMIZERS[name], 0.25, 3)
    case.check("update", params, slots, case.normal(9, 301), case.normal(9, 67), rule, scalars)


# What only the public verbs need ----------------------------------------------------------------------------------------------


@given(seeds, sizes, sizes, st.sampled_from([1.0, 30.0, 1e4]))
@same_backend_each_time
def test_what_only_the_public_verbs_need(backend: Backend, seed: int, n: int, n_out: int, scale: float) -> None:
    case = Case(backend, seed, n, 7, n_out)
    logits = case.normal(n, n_out, scale=scale)
    case.check("scale_pixels", case.rng.integers(0, 256, (n, 7), dtype=np.uint8))
    case.check("scale_pixels", case.normal(n, 7))
    case.check("softmax", logits)
    case.check("cross_entropy", case.labels(), case.probabilities())
    case.check("correct", case.labels(), logits)
    case.check("dense_gradient", case.normal(n, 7), case.normal(n, n_out))
    for gradient in GRADIENTS:
        case.check("output_delta", case.labels(), case.probabilities(), gradient, natural=(1.0 / n,))
    rule, scalars = a_step(OPTIMIZERS["momentum"], 0.25, 1)
    case.check("apply_rule", rule, logits, case.normal(n, n_out), [case.normal(n, n_out)], scalars, natural=(1.0, 1.0))


# What holds for any input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["F", "strided"])
def test_any_memory_layout_gives_the_same(backend: Backend, order: str) -> None:
    if backend.name == "cupy":
        pytest.skip("layouts are made with NumPy here")
    rng = np.random.default_rng(0)
    x, w, b, delta = (rng.normal(size=s).astype(backend.dtype) for s in ((6, 8), (8, 4), (4,), (6, 4)))
    tanh, (rule, scalars) = find_activation("tanh"), a_step(OPTIMIZERS["sgd"], 0.1, 1)
    row = backend.scalar_rows(scalars.rows)[0]

    def laid_out(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asfortranarray(a) if order == "F" else np.repeat(a, 2, axis=0)[::2]

    expected = backend.dense(x, w, b, tanh)[0]
    np.testing.assert_allclose(backend.dense(laid_out(x), laid_out(w), laid_out(b), tanh)[0], expected, rtol=1e-5)
    expected = backend.hidden_delta(delta, w, x, tanh)
    np.testing.assert_allclose(
        backend.hidden_delta(laid_out(delta), laid_out(w), laid_out(x), tanh), expected, rtol=1e-4, atol=1e-6
    )
    y, rows = rng.integers(0, 4, 6), np.array([3, 1])
    for array in (x, (x * 20 + 100).astype(np.uint8)):
        for a, e in zip(backend.minibatch(laid_out(array), laid_out(y), rows), backend.minibatch(array, y, rows), strict=True):
            np.testing.assert_array_equal(a, e)
    for a, e in zip(
        backend.classify(laid_out(delta), laid_out(y), "exact"), backend.classify(delta.copy(), y, "exact"), strict=True
    ):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6)
    (weights, bias), _ = backend.update((w.copy(), b.copy()), [], x, delta.copy(), rule, row)
    (ours, own_bias), _ = backend.update((laid_out(w).copy(), b.copy()), [], laid_out(x), laid_out(delta).copy(), rule, row)
    np.testing.assert_allclose(ours, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(own_bias, bias, rtol=1e-4, atol=1e-6)


def test_softmax_and_loss_of_any_finite_logits(backend: Backend) -> None:
    huge = float(np.finfo(backend.dtype).max) / 2
    logits = np.array([[huge, -huge, 0.0], [-huge, -huge, -huge], [0.0, 1e-30, -1e-30], [huge, huge, huge]])
    labels = np.array([0, 1, 2, 1])
    expected = np.array([[1, 0, 0], [1 / 3] * 3, [1 / 3] * 3, [1 / 3] * 3])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(backend.to_numpy(backend.softmax(backend.asarray(logits))), expected, rtol=1e-6)
        delta, loss, _ = backend.classify(backend.asarray(logits.copy()), backend.asarray(labels), "exact")
        np.testing.assert_allclose(backend.to_numpy(delta), (expected - np.eye(3)[labels]) / 4, rtol=1e-6, atol=1e-7)
        assert float(loss) == pytest.approx(3 * np.log(3), rel=1e-6)
        wrong = backend.asarray(np.array([1, 0, 0, 0]))
        assert float(backend.classify(backend.asarray(logits.copy()), wrong, "exact")[1]) == pytest.approx(2 * huge, rel=1e-6)


def test_the_first_of_equal_logits_is_the_answer(backend: Backend) -> None:
    logits = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    for labels, hits in (([0, 1, 0], 3), ([1, 2, 2], 0)):
        found = backend.classify(backend.asarray(logits.copy()), backend.asarray(np.array(labels)), "exact")[2]
        assert float(found) == hits


def test_nan_is_never_lost(backend: Backend) -> None:
    x, w, b = (backend.asarray(np.full(s, np.nan)) for s in ((2, 3), (3, 4), (4,)))
    for kind in (None, *KINDS):
        assert np.isnan(backend.to_numpy(backend.dense(x, w, b, kind)[0])).all(), kind
    y = backend.asarray(np.array([0, 1]))
    z = np.array([[0.0, np.nan], [0.0, 1.0]])
    assert np.isnan(backend.to_numpy(backend.softmax(backend.asarray(z)))[0]).all()
    for gradient in GRADIENTS:
        delta, loss, _ = backend.classify(backend.asarray(z.copy()), y, gradient)
        assert np.isnan(float(loss))
        assert np.isnan(backend.to_numpy(delta)[0]).all()


def test_shapes_that_do_not_fit_are_errors_not_memory_faults(backend: Backend) -> None:
    def array(*shape: int) -> Any:
        return backend.asarray(np.zeros(shape))

    y = backend.asarray(np.array([0, 1]))
    pixels = backend.asarray(np.zeros((4, 6), np.uint8))
    tanh, (rule, scalars) = find_activation("tanh"), a_step(OPTIMIZERS["sgd"], 0.1, 1)
    with_slots, own_scalars = a_step(OPTIMIZERS["momentum"], 0.1, 1)
    row, own_row = backend.scalar_rows(scalars.rows)[0], backend.scalar_rows(own_scalars.rows)[0]
    layer = (array(3, 5), array(5))
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("dense", (array(2, 3), array(4, 5), array(5))),
        ("dense", (array(2, 3), array(3, 5), array(4))),
        ("hidden_delta", (array(2, 3), array(700, 3), array(2, 5), tanh)),
        ("hidden_delta", (array(2, 4), array(5, 3), array(2, 5), tanh)),
        ("hidden_delta", (array(2, 3), array(5, 3), array(7, 5), tanh)),
        ("classify", (array(8, 3), y, "exact")),
        ("classify", (array(2, 3), backend.asarray(np.zeros(8, int)), "exact")),
        ("update", (layer, [], array(2, 3), array(4, 5), rule, row)),
        ("update", (layer, [], array(2, 4), array(2, 5), rule, row)),
        ("update", (layer, [], array(2, 3), array(2, 6), rule, row)),
        ("update", ((array(3, 5), array(4)), [], array(2, 3), array(2, 5), rule, row)),
        ("update", (layer, [(array(3, 4), array(5))], array(2, 3), array(2, 5), with_slots, own_row)),
        ("update", (layer, [(array(3, 5), array(6))], array(2, 3), array(2, 5), with_slots, own_row)),
        ("dense_gradient", (array(2, 3), array(4, 5))),
        ("cross_entropy", (y, array(8, 3))),
        ("correct", (y, array(8, 3))),
        ("output_delta", (y, array(8, 3), "exact")),
    ]
    if backend.name != "cupy":  # its host does not wait to see numbers
        calls.append(("minibatch", (pixels, y, np.array([0, 3]))))
        calls.append(("minibatch", (pixels, backend.asarray(np.zeros(9, int)), np.array([0, 8]))))
    for op, arguments in calls:
        with pytest.raises((ValueError, IndexError)):
            getattr(backend, op)(*arguments)


@pytest.mark.parametrize("sample", [4, -5, 10**6, -(10**9), 2**62, -(2**63)])
def test_a_sample_that_there_is_not_is_an_error_or_nan_and_no_fault_of_memory(backend: Backend, sample: int) -> None:
    y, samples = backend.asarray(np.arange(4)), backend.asarray(np.array([1, sample, 3]))
    for x in (np.full((4, 6), 51, np.uint8), np.full((4, 6), 0.2)):
        try:
            found, labels = backend.minibatch(backend.asarray(x), y, samples)
        except IndexError:
            continue
        np.testing.assert_allclose(backend.to_numpy(found), [[0.2] * 6, [np.nan] * 6, [0.2] * 6], rtol=1e-6)
        assert [int(label) for label in labels[::2]] == [1, 3]


def test_negative_numbers_of_samples_count_from_the_end(backend: Backend) -> None:
    y, samples = backend.asarray(np.arange(4)), backend.asarray(np.array([-1, 0, -4]))
    for x in (np.arange(24, dtype=np.uint8).reshape(4, 6), np.arange(24.0).reshape(4, 6)):
        found, labels = backend.minibatch(backend.asarray(x), y, samples)
        expected, _ = backend.minibatch(backend.asarray(x), y, backend.asarray(np.array([3, 0, 0])))
        np.testing.assert_array_equal(backend.to_numpy(found), backend.to_numpy(expected))
        assert backend.to_numpy(labels).tolist() == [3, 0, 0]


def test_an_unknown_gradient_is_an_error_with_the_choices(backend: Backend) -> None:
    with pytest.raises(ValueError, match="unknown gradient 'right'; choose one of exact, notebook"):
        backend.classify(backend.asarray(np.zeros((2, 3))), backend.asarray(np.array([0, 1])), "right")


def test_a_label_that_is_no_class_counts_as_none(backend: Backend) -> None:
    y = backend.asarray(np.array([-1, 7, 10**9]))
    p = backend.asarray(np.full((3, 4), 0.25))
    assert float(backend.cross_entropy(y, p)) == 0.0
    np.testing.assert_allclose(backend.to_numpy(backend.output_delta(y, p, "exact")), 0.25 / 3, rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3, 10**9, -(10**9)])
def test_classify_with_a_label_that_is_no_class_is_no_fault_of_memory(backend: Backend, label: int) -> None:
    y, logits = backend.asarray(np.array([0, label])), backend.asarray(np.zeros((2, 3)))
    try:
        delta, _, _ = backend.classify(logits, y, "exact")
    except IndexError:
        return
    np.testing.assert_allclose(backend.to_numpy(delta)[0], [-1 / 3, 1 / 6, 1 / 6], rtol=1e-6)


@pytest.mark.parametrize("label_dtype", [np.uint8, np.int32, np.int64])
def test_labels_of_any_integer_dtype(backend: Backend, label_dtype: Any) -> None:
    y = backend.asarray(np.array([2, 0, 1], label_dtype))
    p = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])
    loss = -np.log(0.7 * 0.5 * 0.3)
    assert float(backend.correct(y, backend.asarray(p))) == 2.0
    assert float(backend.cross_entropy(y, backend.asarray(p))) == pytest.approx(loss, rel=1e-6)
    delta, found, hits = backend.classify(backend.asarray(np.log(p)), y, "exact")
    assert float(found) == pytest.approx(loss, rel=1e-6)
    assert float(hits) == 2.0
    expected = (p - np.eye(3)[[2, 0, 1]]) / 3
    np.testing.assert_allclose(backend.to_numpy(delta), expected, rtol=1e-5, atol=1e-7)


# The contract -----------------------------------------------------------------------------------------------------------------


def _public_methods(cls: type) -> dict[str, Any]:
    return {name: f for name, f in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}


def _overridden(cls: type) -> set[str]:
    """Public names that a class, or one between it and the base, defines again."""
    between = [kind for kind in cls.__mro__ if kind not in (*Backend.__mro__,)]
    return {name for kind in between for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize("name", BACKENDS)
def test_an_override_has_the_signature_of_the_base_op(name: str) -> None:
    base = _public_methods(Backend)
    for method, function in _public_methods(backend_class(name)).items():
        assert method in base, f"{name}.{method} is no part of the contract"
        if method != "probe":
            assert inspect.signature(function) == inspect.signature(base[method]), f"{name}.{method}"


@pytest.mark.parametrize("name", BACKENDS)
def test_what_only_the_public_verbs_need_is_overridden_nowhere(name: str) -> None:
    assert not _overridden(backend_class(name)) & set(PUBLIC_ONLY)


def test_a_step_takes_from_a_backend_the_five_ops_alone() -> None:
    """No op hides behind another name: what trains is read off `train_step` and its loop."""
    from mlp_accel import network
    from mlp_accel.backends import loop

    functions = (network.train_step, network.layer_outputs, network.walk_back, loop.LoopRun._train)
    source = "".join(inspect.getsource(function) for function in functions)
    used = {name for name in _public_methods(Backend) if f"backend.{name}(" in source}
    assert used == {*STEP_OPS, "asarray", "reusing", "scalar_rows", "step_threads", "join"}  # asarray: of sparse samples


def test_the_tolerance_table_knows_every_op_and_no_other() -> None:
    plumbing = {
        *("asarray", "check_input", "copy", "empty", "free_memory", "join", "launch_clock"),
        *("limit_threads", "path_named", "reusing", "scalar_rows", "spread", "step_threads", "synchronize", "to_numpy", "versions"),
    }
    assert set(EPS_UNITS) == {"path", *STEP_OPS, *PUBLIC_ONLY}
    assert set(_public_methods(Backend)) == {*STEP_OPS, *PUBLIC_ONLY, *plumbing}


def test_every_activation_is_among_those_that_are_tested_here() -> None:
    assert {kind.name for kind in KINDS} >= set(ACTIVATIONS)
