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

from mlp_accel import backward, forward, from_notebook, init_params, loss_accuracy, sgd, to_notebook
from mlp_accel.backends import ACTIVATIONS, Backend, get_backend
from mlp_accel.training import to_backend

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


def gradients(backend: Backend, params: Any, x: Any, y: Any, activation: str, gradient: str = "exact") -> Any:
    device, labels = to_backend(backend, params), backend.asarray(y)
    outputs, y_hat = forward(backend, device, backend.asarray(x), activation)
    return [
        tuple(backend.to_numpy(a) for a in pair) for pair in backward(backend, device, outputs, y_hat, labels, gradient, activation)
    ]


def mean_loss(backend: Backend, params: Any, x: Any, y: Any, activation: str) -> float:
    outputs, _ = forward(backend, to_backend(backend, params), backend.asarray(x), activation)
    return float(backend.cross_entropy_from_logits(backend.asarray(y), outputs[-1])) / len(y)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[5], [6, 4], [5, 4, 3]])
def test_the_exact_gradient_against_central_differences(backend64: Backend, hidden: list[int], activation: str) -> None:
    params, x, y = problem([4, *hidden, 3], n=9, seed=len(hidden))
    exact = gradients(backend64, params, x, y, activation)
    step = 1e-5
    for layer, pair in enumerate(params):
        for part, array in enumerate(pair):
            numeric = np.empty_like(array)
            for index in np.ndindex(array.shape):
                losses = []
                for sign in (1, -1):
                    array[index] += sign * step
                    losses.append(mean_loss(backend64, params, x, y, activation))
                    array[index] -= sign * step
                numeric[index] = (losses[0] - losses[1]) / (2 * step)
            error = np.linalg.norm(exact[layer][part] - numeric) / np.linalg.norm(numeric)
            assert error < 1e-6, (layer, part)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[5], [5, 4, 3]])
def test_the_exact_gradient_against_torch_autograd(backend64: Backend, hidden: list[int], activation: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    params, x, y = problem([4, *hidden, 3], n=9, seed=7)
    tensors = [[torch.tensor(a, requires_grad=True) for a in pair] for pair in params]
    a = torch.tensor(x)
    for layer, (w, b) in enumerate(tensors):
        a = a @ w + b
        if layer < len(tensors) - 1:
            a = getattr(torch, activation)(a)
    torch.nn.functional.cross_entropy(a, torch.tensor(y)).backward()
    compare_gradients(gradients(backend64, params, x, y, activation), [[t.grad.numpy() for t in pair] for pair in tensors])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[5], [5, 4, 3]])
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


def compare_gradients(ours: Any, theirs: Any) -> None:
    for our_pair, their_pair in zip(ours, theirs, strict=True):
        for a, b in zip(our_pair, their_pair, strict=True):
            np.testing.assert_allclose(a, np.asarray(b), rtol=1e-10, atol=1e-13)


@given(st.integers(0, 1000), st.integers(1, 20), st.lists(st.integers(1, 20), min_size=2, max_size=5), st.sampled_from(ACTIVATIONS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
def test_backends_agree_with_numpy_in_float64(backend64: Backend, seed: int, n: int, sizes: list[int], activation: str) -> None:
    params, x, y = problem(sizes, n, seed)
    ours = gradients(backend64, params, x, y, activation)
    compare_gradients(ours, gradients(get_backend("numpy", "float64"), params, x, y, activation))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_verbs_change_no_input_and_reuse_no_memory(backend: Backend, activation: str) -> None:
    params, x, y = problem([6, 5, 4, 3], n=8, seed=3)
    device, images, labels = to_backend(backend, params), backend.asarray(x), backend.asarray(y)

    def run() -> list[Any]:
        outputs, y_hat = forward(backend, device, images, activation)
        grads = backward(backend, device, outputs, y_hat, labels, activation=activation)
        updated = sgd(backend, device, grads, 0.5)
        return [*outputs[1:], y_hat, *(a for pair in grads + updated for a in pair)]

    inputs = [images, labels, *(a for pair in device for a in pair)]
    before = [backend.to_numpy(a).copy() for a in inputs]
    first = run()
    snapshots = [backend.to_numpy(a).copy() for a in first]
    run()
    for a, b in zip([*first, *inputs], [*snapshots, *before], strict=True):
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
    with pytest.raises(ValueError, match=r"unknown activation 'gelu'.*tanh, relu, sigmoid"):
        forward(backend, params, x, "gelu")
    outputs, y_hat = forward(backend, params, x)
    with pytest.raises(ValueError, match=r"unknown gradient 'right'.*exact, notebook"):
        backward(backend, params, outputs, y_hat, y, gradient="right")
    with pytest.raises(ValueError, match="unknown activation 'gelu'"):
        backward(backend, params, outputs, y_hat, y, activation="gelu")


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


@pytest.mark.parametrize("sizes", [[], [3], [3, 0], [3, -1, 2], [3, 2.5]])
def test_init_params_refuses_sizes_that_are_no_network(sizes: Any) -> None:
    with pytest.raises(ValueError, match="layer_sizes must be two or more positive integers"):
        init_params(sizes)


@given(st.integers(1, 9), st.integers(1, 9))
def test_the_notebooks_layout_converts_both_ways(n_in: int, n_out: int) -> None:
    w = np.random.default_rng(0).normal(size=(n_out, n_in + 1))
    weights, bias = from_notebook(w)
    assert (weights.shape, bias.shape) == ((n_in, n_out), (n_out,))
    np.testing.assert_array_equal(to_notebook(weights, bias), w)
