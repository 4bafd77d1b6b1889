"""The algorithm: the notebook's printed numbers, exact gradients, and what the verbs promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_accel import (
    Activation,
    backward,
    forward,
    from_notebook,
    init_params,
    loss_accuracy,
    mini_batch_sgd,
    network,
    sgd,
    to_notebook,
)
from mlp_accel.activations import ACTIVATIONS, BUILT_IN, find_activation
from mlp_accel.backends import Backend, get_backend
from mlp_accel.backends.loop import to_backend
from mlp_accel.backends.memory import Arena
from mlp_accel.backends.paths import Task
from mlp_accel.optimizers import OPTIMIZERS, Optimizer, find_optimizer
from tests.reference import PoisonedArena

WORKED_EXAMPLE = json.loads((Path(__file__).parent / "data" / "worked_example.json").read_text())


def printed(name: str) -> npt.NDArray[Any]:
    return np.array(WORKED_EXAMPLE[name], dtype=float)


def test_every_printed_number_of_the_worked_example(backend64: Backend) -> None:
    backend = backend64
    params = to_backend(backend, [from_notebook(printed("w1")), from_notebook(printed("w2"))])
    x, y = backend.asarray(printed("x")[:, 1:]), backend.asarray(printed("y").argmax(axis=1))
    outputs, y_hat = forward(backend, params, x)
    loss, _ = loss_accuracy(backend, y, y_hat)
    grads = backward(backend, params, outputs, y_hat, y, gradient="notebook")
    updated = sgd(backend, params, grads, WORKED_EXAMPLE["eta"])

    def close(actual: Any, name: str) -> None:
        np.testing.assert_allclose(actual, printed(name), rtol=0, atol=1e-7, err_msg=name)

    def host(pair: Any) -> npt.NDArray[Any]:
        return to_notebook(*(backend.to_numpy(a) for a in pair))

    close(np.vstack([np.ones(3), backend.to_numpy(outputs[1]).T]), "a1")  # the notebook keeps a row of ones for the bias
    close(backend.to_numpy(y_hat).T, "y_hat")
    assert float(loss) == pytest.approx(WORKED_EXAMPLE["loss"], abs=1e-7)
    for layer, name in enumerate(("w1", "w2")):
        close(host(grads[layer]), f"dj_d{name}")
        close(host(updated[layer]), f"{name}_after_sgd")


def test_the_exact_gradient_is_not_the_notebooks(backend64: Backend) -> None:
    backend = backend64
    params = to_backend(backend, [from_notebook(printed("w1")), from_notebook(printed("w2"))])
    x, y = backend.asarray(printed("x")[:, 1:]), backend.asarray(printed("y").argmax(axis=1))
    outputs, y_hat = forward(backend, params, x)
    exact = backward(backend, params, outputs, y_hat, y, gradient="exact")
    # The sum over the three samples, as the notebook's description gives it for the exact rule.
    assert 3 * float(backend.to_numpy(exact[1][1])[0]) == pytest.approx(0.6949, abs=5e-5)


def problem(layer_sizes: list[int], n: int, seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    params = [(w, rng.normal(size=b.shape)) for w, b in init_params(layer_sizes, seed)]
    return params, rng.normal(size=(n, layer_sizes[0])), rng.integers(0, layer_sizes[-1], n)


def square(z: Any) -> Any:
    return 0.1 * z * z


SQUARE = Activation(square, lambda z: 0.2 * z, of_input=True)
"""One of the user's own, whose slope is a function of the input."""

KINDS: list[Activation] = [*BUILT_IN.values(), SQUARE]


def task(sizes: list[int], n: int, activation: Activation, gradient: str = "exact", optimizer: Optimizer | None = None) -> Task:
    rule = Optimizer.record_for([optimizer or OPTIMIZERS["sgd"]])
    return Task(tuple(sizes), n, "float64", "float64", 1.0, activation, gradient, rule)


def gradients(backend: Backend, params: Any, x: Any, y: Any, activation: str | Activation, gradient: str = "exact") -> Any:
    device, labels = to_backend(backend, params), backend.asarray(y)
    outputs, y_hat = forward(backend, device, backend.asarray(x), activation)
    return [
        tuple(backend.to_numpy(a) for a in pair) for pair in backward(backend, device, outputs, y_hat, labels, gradient, activation)
    ]


def step_gradients(backend: Backend, params: Any, x: Any, y: Any, activation: Activation, gradient: str = "exact") -> Any:
    """Read off the way that one step of plain gradient descent goes: the rate is a power of 2, which costs no digit but its own."""
    own = task([params[0][0].shape[0], *(len(b) for _, b in params)], len(y), activation, gradient)
    slots: list[Any] = [[] for _ in params]
    (row,) = backend.scalar_rows(np.array([[1.0]]))
    device = to_backend(backend, params)
    after, _, _, _ = network.train_step(backend, device, slots, backend.asarray(x), backend.asarray(y), own, row)
    return [
        tuple(before - backend.to_numpy(a) for a, before in zip(pair, old, strict=True))
        for pair, old in zip(after, params, strict=True)
    ]


def mean_loss(backend: Backend, params: Any, x: Any, y: Any, activation: Activation) -> float:
    outputs, _ = forward(backend, to_backend(backend, params), backend.asarray(x), activation)
    _, loss, _ = backend.classify(outputs[-1], backend.asarray(y), "exact")
    return float(loss) / len(y)


def differences(backend: Backend, params: Any, x: Any, y: Any, activation: Activation) -> Any:
    """The gradient of the mean loss by central differences."""
    step = 1e-5
    numeric = [(np.empty_like(w), np.empty_like(b)) for w, b in params]
    for pair, result in zip(params, numeric, strict=True):
        for array, derivative in zip(pair, result, strict=True):
            for index in np.ndindex(array.shape):
                before, losses = array[index], []
                for sign in (1, -1):
                    array[index] = before + sign * step
                    losses.append(mean_loss(backend, params, x, y, activation))
                array[index] = before
                derivative[index] = (losses[0] - losses[1]) / (2 * step)
    return numeric


@pytest.mark.parametrize("activation", KINDS, ids=str)
@pytest.mark.parametrize("hidden", [[5], [5, 4, 3]], ids=str)
def test_the_way_of_one_step_is_the_gradient_by_central_differences(
    backend64: Backend, hidden: list[int], activation: Activation
) -> None:
    params, x, y = problem([4, *hidden, 3], n=9, seed=len(hidden))
    numeric = differences(backend64, params, x, y, activation)
    for exact in (
        step_gradients(backend64, params, x, y, activation),
        gradients(backend64, params, x, y, activation),
    ):
        for ours, theirs in zip(exact, numeric, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                assert np.linalg.norm(a - b) / np.linalg.norm(b) < 1e-6


@pytest.mark.parametrize("gradient", ["exact", "notebook"])
@pytest.mark.parametrize("activation", KINDS, ids=str)
def test_the_verbs_are_the_step(backend64: Backend, activation: Activation, gradient: str) -> None:
    params, x, y = problem([6, 5, 4, 3], n=8, seed=4)
    device, images, labels = to_backend(backend64, params), backend64.asarray(x), backend64.asarray(y)
    outputs, y_hat = forward(backend64, device, images, activation)
    grads = backward(backend64, device, outputs, y_hat, labels, gradient, activation)
    by_verbs = sgd(backend64, device, grads, 0.25)
    (row,) = backend64.scalar_rows(np.array([[0.25]]))
    slots: list[Any] = [[] for _ in params]
    own = task([6, 5, 4, 3], 8, activation, gradient)
    by_step, _, loss, hits = network.train_step(backend64, to_backend(backend64, params), slots, images, labels, own, row)
    compare_gradients([[backend64.to_numpy(a) for a in pair] for pair in by_verbs], [map(backend64.to_numpy, p) for p in by_step])
    mean, accuracy = loss_accuracy(backend64, labels, y_hat)
    assert float(loss) / 8 == pytest.approx(float(mean), rel=1e-12)
    assert float(hits) / 8 == float(accuracy)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("activation", ["tanh", "softplus", "relu"])
def test_steps_in_memory_full_of_nan_are_those_in_new_memory(backend64: Backend, activation: str, optimizer: str) -> None:
    params, x, y = problem([6, 5, 4, 3], n=8, seed=4)
    chosen = find_optimizer(optimizer, weight_decay=0.1)
    own = task([6, 5, 4, 3], 8, find_activation(activation), optimizer=chosen)
    rows = backend64.scalar_rows(chosen.scalars(own.rule, np.full(4, 0.1), 1))
    results = []
    for arena in (None, Arena(), PoisonedArena()):
        state = to_backend(backend64, params)
        slots: Any = [[(0 * w, 0 * b) for _ in chosen.slots] for w, b in to_backend(backend64, params)]
        losses = []
        with backend64.reusing(arena):
            for step in range(4):
                if arena is not None:
                    arena.restart()
                n = 8 - 3 * (step == 2)  # a short minibatch in between
                images, labels = backend64.minibatch(backend64.asarray(x), backend64.asarray(y), backend64.asarray(np.arange(n)))
                state, slots, loss, _ = network.train_step(backend64, state, slots, images, labels, own, rows[step])
                losses.append(float(loss))
        results.append((losses, [backend64.to_numpy(a).tobytes() for pair in state for a in pair]))
    assert results[0] == results[1] == results[2]


# Who calls the page -----------------------------------------------------------------------------------------------------------


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Puts a spy in the place of `train_step`; it notes the size of each minibatch."""
    sizes: list[int] = []
    original = network.train_step

    def spy(backend: Backend, params: Any, slots: Any, x: Any, y: Any, *rest: Any) -> Any:
        sizes.append(y.shape[0])
        return original(backend, params, slots, x, y, *rest)

    monkeypatch.setattr("mlp_accel.network.train_step", spy)
    return sizes


def test_the_default_training_of_numpy_is_train_step(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_steps(monkeypatch)
    history = mini_batch_sgd(
        np.zeros((20, 4), np.uint8), np.zeros(20, int), init_params([4, 3]), backend="numpy", epochs=2, batch_size=8
    )
    assert sizes == [8, 8, 4] * 2
    assert (history.path, history.passed_over) == ("loop", [])


def test_training_by_the_loop_is_train_step_on_every_backend(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_steps(monkeypatch)
    x, y = np.zeros((20, 4), np.uint8), np.zeros(20, int)
    history = mini_batch_sgd(x, y, init_params([4, 3]), backend=backend_name, epochs=2, batch_size=8, path="loop")
    assert sizes == [8, 8, 4] * 2
    assert (history.path, history.passed_over) == ("loop", [])


# Against the derivatives of others --------------------------------------------------------------------------------------------


def _torch_function(torch: Any, name: str) -> Any:
    functional = torch.nn.functional
    own = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": lambda z: functional.gelu(z, approximate="tanh")}
    return own.get(name) or getattr(functional, name)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[5], [5, 4, 3]], ids=str)
def test_the_exact_gradient_against_torch_autograd(backend64: Backend, hidden: list[int], activation: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    params, x, y = problem([4, *hidden, 3], n=9, seed=7)
    tensors = [[torch.tensor(a, requires_grad=True) for a in pair] for pair in params]
    a = torch.tensor(x)
    for layer, (w, b) in enumerate(tensors):
        a = a @ w + b
        if layer < len(tensors) - 1:
            a = _torch_function(torch, activation)(a)
    torch.nn.functional.cross_entropy(a, torch.tensor(y)).backward()
    theirs = [[t.grad.numpy() for t in pair] for pair in tensors]
    compare_gradients(gradients(backend64, params, x, y, activation), theirs)
    compare_gradients(step_gradients(backend64, params, x, y, find_activation(activation)), theirs, rtol=1e-8)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "leaky_relu", "elu", "softplus", "gelu", "silu"])
@pytest.mark.parametrize("hidden", [[5], [5, 4, 3]], ids=str)
def test_the_exact_gradient_against_jax_autograd(backend64: Backend, hidden: list[int], activation: str) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    params, x, y = problem([4, *hidden, 3], n=9, seed=8)

    def loss(params: Any) -> Any:
        a = x
        for layer, (w, b) in enumerate(params):
            a = a @ w + b
            if layer < len(params) - 1:
                a = getattr(jax.nn, activation)(a)
        return -jax.nn.log_softmax(a)[np.arange(len(y)), y].mean()

    with jax.enable_x64(True):
        compare_gradients(gradients(backend64, params, x, y, activation), jax.grad(loss)(params))


def compare_gradients(ours: Any, theirs: Any, rtol: float = 1e-10) -> None:
    for our_pair, their_pair in zip(ours, theirs, strict=True):
        for a, b in zip(our_pair, their_pair, strict=True):
            np.testing.assert_allclose(a, np.asarray(b), rtol=rtol, atol=1e-13)


@given(st.integers(0, 1000), st.integers(1, 20), st.lists(st.integers(1, 20), min_size=2, max_size=5), st.sampled_from(ACTIVATIONS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
def test_backends_agree_with_numpy_in_float64(backend64: Backend, seed: int, n: int, sizes: list[int], activation: str) -> None:
    params, x, y = problem(sizes, n, seed)
    ours = gradients(backend64, params, x, y, activation)
    compare_gradients(ours, gradients(get_backend("numpy", "float64"), params, x, y, activation))


@pytest.mark.parametrize("activation", KINDS, ids=str)
def test_the_verbs_change_no_input_and_reuse_no_memory(backend: Backend, activation: Activation) -> None:
    params, x, y = problem([6, 5, 4, 3], n=8, seed=3)
    device, images, labels = to_backend(backend, params), backend.asarray(x), backend.asarray(y)

    def run() -> list[Any]:
        outputs, y_hat = forward(backend, device, images, activation)
        grads = backward(backend, device, outputs, y_hat, labels, activation=activation)
        updated = sgd(backend, device, grads, 0.5)
        loss_accuracy(backend, labels, y_hat)
        return [*outputs, y_hat, *(a for pair in grads + updated for a in pair)]

    inputs = [images, labels, *(a for pair in device for a in pair)]
    before = [backend.to_numpy(a).copy() for a in inputs]
    first = run()
    snapshots = [backend.to_numpy(a).copy() for a in first]
    run()
    for a, b in zip([*first, *inputs], [*snapshots, *before], strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), b)


def test_the_verbs_leave_alone_what_training_beside_them_reuses(backend: Backend) -> None:
    """What a step of the user's own gets from the verbs stays as it is through the steps after it."""
    params, x, y = problem([6, 5, 3], n=20, seed=3)
    kept: list[Any] = []

    def step(backend: Backend, params: Any, slots: Any, x: Any, y: Any, task: Task, scalars: Any) -> Any:
        outputs, y_hat = forward(backend, params, x, task.activation)
        grads = backward(backend, params, outputs, y_hat, y, task.gradient, task.activation)
        arrays = [x, *outputs, y_hat, *(a for pair in grads for a in pair)]
        kept.append((arrays, [backend.to_numpy(a).copy() for a in arrays]))
        loss, accuracy = loss_accuracy(backend, y, y_hat)
        return sgd(backend, params, grads, 0.1), slots, loss * y.shape[0], accuracy * y.shape[0]

    mini_batch_sgd(x, y, params, backend=backend, epochs=2, batch_size=6, step=step)
    assert len(kept) == 8
    for arrays, copies in kept:
        for a, b in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(backend.to_numpy(a), b)


def test_uint8_images_are_scaled_and_floating_ones_are_not(backend: Backend) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8)
    params = to_backend(backend, init_params([6, 4, 3]))
    _, from_pixels = forward(backend, params, backend.asarray(pixels))
    _, from_floats = forward(backend, params, backend.asarray(pixels / 255))
    np.testing.assert_allclose(backend.to_numpy(from_pixels), backend.to_numpy(from_floats), rtol=1e-5)


def test_loss_and_accuracy_of_certain_answers(backend: Backend) -> None:
    y = backend.asarray(np.array([0, 1]))
    loss, accuracy = loss_accuracy(backend, y, backend.asarray(np.array([[1.0, 0.0], [1.0, 0.0]])))
    assert float(accuracy) == 0.5
    assert float(loss) == pytest.approx(-np.log(np.finfo(backend.dtype).smallest_normal) / 2, rel=1e-6)


def test_input_of_the_wrong_shape_or_dtype_is_refused(backend: Backend) -> None:
    params = to_backend(backend, init_params([6, 3]))
    with pytest.raises(ValueError, match=r"x must have shape \(n, 6\).*got \(2, 5\)"):
        forward(backend, params, backend.asarray(np.zeros((2, 5))))
    with pytest.raises(TypeError, match=r"x must be uint8 or float.*got int64"):
        forward(backend, params, backend.asarray(np.zeros((2, 6), np.int64)))


def test_unknown_activation_and_gradient_are_errors_with_the_choices(backend: Backend) -> None:
    params = to_backend(backend, init_params([6, 4, 3]))
    x, y = backend.asarray(np.zeros((2, 6))), backend.asarray(np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"unknown activation 'swish'.*tanh, relu, sigmoid"):
        forward(backend, params, x, "swish")
    outputs, y_hat = forward(backend, params, x)
    with pytest.raises(ValueError, match=r"unknown gradient 'right'.*exact, notebook"):
        backward(backend, params, outputs, y_hat, y, gradient="right")
    with pytest.raises(ValueError, match="unknown activation 'swish'"):
        backward(backend, params, outputs, y_hat, y, activation="swish")


def test_init_params_draws_what_it_says() -> None:
    (w1, b1), (w2, b2) = init_params([400, 300, 200], seed=3)
    assert (w1.shape, b1.shape, w2.shape, b2.shape) == ((400, 300), (300,), (300, 200), (200,))
    assert w1.std() == pytest.approx(1 / 20, rel=0.02)
    assert w2.std() == pytest.approx(300**-0.5, rel=0.02)
    assert not b1.any()
    assert not b2.any()
    (w, b), *_ = init_params([400, 300, 200], scale=0.3, random_bias=True)
    assert w.std() == pytest.approx(0.3, rel=0.02)
    assert b.std() == pytest.approx(0.3, rel=0.2)
    assert not np.array_equal(init_params([5, 4], seed=1)[0][0], init_params([5, 4], seed=2)[0][0])


@pytest.mark.parametrize("sizes", [[], [3], [3, 0], [3, -1, 2], [3, 2.5], [784.0, 32, 10], ["784", 10], [None, 10]])
def test_init_params_refuses_sizes_that_are_no_network(sizes: Any) -> None:
    with pytest.raises(ValueError, match="layer_sizes must be two or more positive integers"):
        init_params(sizes)


def test_init_params_takes_any_kind_of_integer() -> None:
    sizes: list[Any] = [np.int64(5), np.uint8(4), 3]
    (w, _), _ = init_params(sizes)
    np.testing.assert_array_equal(w, init_params([5, 4, 3])[0][0])


@given(st.integers(1, 9), st.integers(1, 9))
def test_the_notebooks_layout_converts_both_ways(n_in: int, n_out: int) -> None:
    w = np.random.default_rng(0).normal(size=(n_out, n_in + 1))
    weights, bias = from_notebook(w)
    assert (weights.shape, bias.shape) == ((n_in, n_out), (n_out,))
    np.testing.assert_array_equal(to_notebook(weights, bias), w)


@pytest.mark.parametrize("shape", [(1,), (4, 1), (5,)])
def test_labels_of_another_shape_are_refused_and_not_stretched(backend64: Backend, shape: tuple[int, ...]) -> None:
    y, y_hat = backend64.asarray(np.zeros(shape, np.int64)), backend64.asarray(np.full((4, 3), 1 / 3))
    with pytest.raises(ValueError, match="y must hold one label for each row"):
        loss_accuracy(backend64, y, y_hat)
