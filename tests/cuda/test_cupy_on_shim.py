"""The whole CuPy backend without a GPU: its ops and paths, with CuPy's array functions by NumPy and the kernels by the shim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlp_accel import init_params, mini_batch_sgd, train_many
from mlp_accel.backends import ACTIVATIONS, GRADIENTS
from mlp_accel.backends.cupy_backend import CupyBackend
from mlp_accel.backends.cupy_paths import PathError
from mlp_accel.network import forward
from mlp_accel.training import SGDStep, Trainer
from mlp_accel.workspace import NO_WORKSPACE
from tests.backends.test_ops import Case
from tests.cuda.fake_cupy import A100, FakeCupy
from tests.cuda.small import SIZES, backend_by, bits, data
from tests.reference import ReferenceBackend

# Ops ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "n_in", "n_out"), [(1, 1, 1), (7, 50, 40), (33, 20, 10)])
def test_every_op_agrees_with_the_base_op(cupy: FakeCupy, dtype: str, n: int, n_in: int, n_out: int) -> None:
    case = Case(CupyBackend(dtype), 1, n, n_in, n_out)
    pixels = case.rng.integers(0, 256, (n, n_in), dtype=np.uint8)
    x, weights, delta, hidden = case.normal(n, n_in), case.normal(n_in, n_out), case.normal(n, n_out), case.normal(n, n_in)
    logits, p, y = case.normal(n, n_out, scale=30.0), case.probabilities(), case.labels()
    case.check("scale_pixels", pixels, poisoned=True, out_shape=(n, n_in))
    case.check("scale_pixels", x)
    case.check("minibatch", pixels, y, case.rng.integers(0, n, 2 * n), poisoned=True, out_shape=(2 * n, n_in))
    case.check("minibatch", x, y, case.rng.integers(0, n, n))
    for activation in ("identity", *ACTIVATIONS):
        case.check("dense", x, weights, case.normal(n_out), activation, poisoned=True, out_shape=(n, n_out))
    for activation in ACTIVATIONS:
        case.check("hidden_delta", delta, weights, hidden, activation, poisoned=True, out_shape=(n, n_in))
    for gradient in GRADIENTS:
        case.check("output_delta", y.astype(np.uint8), p, gradient, poisoned=True, out_shape=(n, n_out))
    case.check("softmax", logits, poisoned=True, out_shape=(n, n_out))
    case.check("cross_entropy", y, p)
    case.check("cross_entropy_from_logits", y.astype(np.int32), logits)
    case.check("correct", y, logits)
    case.check("dense_gradient", x, delta, poisoned=True, out_shape=((n_in, n_out), (n_out,)))
    case.check("sgd_update", x, hidden, 0.1, poisoned=True, out_shape=(n, n_in))


def test_the_ops_keep_what_the_other_backends_keep(cupy: FakeCupy, dtype: str) -> None:
    from tests.backends import test_ops

    backend = CupyBackend(dtype)
    test_ops.test_softmax_and_loss_of_any_finite_logits(backend)
    test_ops.test_nan_is_never_lost(backend)
    test_ops.test_shapes_that_do_not_fit_are_errors_not_memory_faults(backend)
    test_ops.test_a_label_that_is_no_class_counts_as_none(backend)
    test_ops.test_labels_of_any_integer_dtype(backend, np.uint8)


def test_a_numpy_array_is_refused_with_what_to_do(cupy: FakeCupy) -> None:
    backend = CupyBackend()
    params = [(backend.asarray(w), backend.asarray(b)) for w, b in init_params(SIZES)]
    x, y = data()
    with pytest.raises(TypeError, match=r"x must be an array on the GPU; got numpy.ndarray. backend.asarray\(x\) puts it there"):
        forward(backend, params, x)
    with pytest.raises(TypeError, match=r"weights must be an array on the GPU"):
        forward(backend, init_params(SIZES), backend.asarray(x))
    with pytest.raises(TypeError, match=r"y must be an array on the GPU"):
        backend.correct(y, backend.asarray(np.zeros((50, 5))))
    images, labels = (backend.asarray(a) for a in data())
    with pytest.raises(TypeError, match=r"order must be an array on the GPU"):
        backend.train_epoch(SGDStep(0.1), params, images, labels, np.arange(50), 10, NO_WORKSPACE)
    x64 = CupyBackend("float64").asarray(np.zeros((1, 20)))
    with pytest.raises(TypeError, match=r"x must be float32; got float64"):
        backend.dense(x64, *params[0])


def test_an_epoch_of_ops_transfers_and_waits_only_at_its_ends(cupy: FakeCupy) -> None:
    x, y = data(200)
    trainer = Trainer(x, y, init_params(SIZES), SGDStep(0.1), backend_by("ops"), batch_size=10)
    trainer.epoch()
    cupy.log.clear()
    trainer.epoch()
    moves = [entry for entry in cupy.log if entry in ("to device", "to host", "synchronize")]
    assert moves == ["to device", "to host", "to host", "synchronize"]  # the order; losses and hits
    kernels = [entry for entry in cupy.log if entry.startswith(("launch", "product"))]
    assert len(kernels) <= 20 * 20


# Paths ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [("auto", "cluster of 8"), ("cluster", "cluster of 8"), ("graph", "graph of fused steps"), ("steps", "fused steps")],
)
def test_each_path_trains_as_the_reference_does(cupy: FakeCupy, path: str, name: str) -> None:
    x, y = data(55)
    backend = backend_by(path)
    ours = mini_batch_sgd(x, y, init_params(SIZES), epochs=2, batch_size=16, backend=backend)
    theirs = mini_batch_sgd(x, y, init_params(SIZES), epochs=2, batch_size=16, backend=ReferenceBackend("float64"))
    assert backend.epoch_path.startswith(name)
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-5)
    assert ours.accuracy == theirs.accuracy
    for (weights, bias), (their_weights, their_bias) in zip(ours.params, theirs.params, strict=True):
        np.testing.assert_allclose(weights, their_weights, atol=3e-6)
        np.testing.assert_allclose(bias, their_bias, atol=3e-6)


def test_the_parameters_that_are_given_do_not_change(cupy: FakeCupy) -> None:
    x, y = data(40)
    for path in ("cluster", "graph", "steps", "ops"):
        backend = backend_by(path)
        params = [(backend.asarray(w), backend.asarray(b)) for w, b in init_params(SIZES)]
        before = bits(params)
        images, labels, order = (backend.asarray(a) for a in (x, y, np.arange(40)))
        first, *_ = backend.train_epoch(SGDStep(0.1), params, images, labels, order, 16, NO_WORKSPACE)
        kept = bits(first)
        backend.train_epoch(SGDStep(0.3), params, images, labels, order, 16, NO_WORKSPACE)
        assert bits(params) == before, path
        assert bits(first) == kept, path


@pytest.mark.parametrize("path", ["cluster", "graph"])
def test_data_that_its_owner_has_changed_is_read_again(cupy: FakeCupy, path: str) -> None:
    results = []
    for change_first in (True, False):
        backend = backend_by(path)
        x, y, order = (backend.asarray(a) for a in (*data(40), np.arange(40)))
        params = [(backend.asarray(w), backend.asarray(b)) for w, b in init_params(SIZES)]
        if not change_first:
            backend.train_epoch(SGDStep(0.1), params, x, y, order, 16, NO_WORKSPACE)
        x[:20], y[:20] = x[20:], y[20:]
        results.append(bits(backend.train_epoch(SGDStep(0.1), params, x, y, order, 16, NO_WORKSPACE)[0]))
    assert results[0] == results[1]


def test_a_cluster_epoch_is_one_launch(cupy: FakeCupy) -> None:
    x, y = data(200)
    trainer = Trainer(x, y, init_params(SIZES), SGDStep(0.1), backend_by("cluster"), batch_size=10)
    trainer.epoch()
    cupy.log.clear()
    trainer.epoch()
    assert [entry for entry in cupy.log if entry.startswith(("launch", "product"))] == ["launch train_epoch"]


def test_a_graph_is_captured_once_and_launched_once_an_epoch(cupy: FakeCupy) -> None:
    x, y = data(60)
    trainer = Trainer(x, y, init_params(SIZES), SGDStep(0.1), backend_by("graph"), batch_size=10)
    trainer.epoch()
    cupy.log.clear()
    trainer.epoch()
    trainer.epoch()
    assert [entry for entry in cupy.log if "graph" in entry or "capture" in entry] == ["graph of 25"] * 2  # 6 steps of 4, the sums


def test_an_epoch_too_long_for_a_graph_is_launched_step_by_step_and_says_so(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mlp_accel.backends.cupy_fused.MAX_GRAPH_LAUNCHES", 20)
    x, y = data(60)
    ours = mini_batch_sgd(x, y, init_params(SIZES), epochs=2, batch_size=10, backend=backend_by("graph"))
    theirs = mini_batch_sgd(x, y, init_params(SIZES), epochs=2, batch_size=10, backend=backend_by("steps"))
    assert bits(ours.params) == bits(theirs.params)
    assert caplog.text.count("an epoch of 25 launches is too long for a CUDA graph") == 1


def test_the_work_of_an_epoch_is_ordered_with_the_stream_around_it(cupy: FakeCupy) -> None:
    x, y = data(20)
    trainer = Trainer(x, y, init_params(SIZES), SGDStep(0.1), backend_by("cluster"), batch_size=10)
    cupy.log.clear()
    trainer.epoch()
    launch = cupy.log.index("launch train_epoch")
    assert cupy.log.index("wait for event") < launch < len(cupy.log) - cupy.log[::-1].index("wait for event")
    assert len(cupy.streams) == 1


@pytest.mark.parametrize(
    ("sizes", "kind", "settings", "taken", "reason"),
    [
        ([20, 12, 8, 5], "uint8", {}, "graph", "it holds one hidden layer, the network has 2"),
        (SIZES, "float", {}, "graph", "it streams uint8 images, these are float32"),
        (SIZES, "uint8", A100, "graph", "it needs compute capability 9.0, this GPU has 8.0"),
        (SIZES, "uint8", {"capability": "75", "shared_limit": 65536}, "ops", "it needs compute capability 8.0, this GPU has 7.5"),
        (SIZES, "uint8", {"shared_limit": 2000}, "ops", "bytes of shared memory in each block of a cluster of 16, there are 2,000"),
    ],
)
def test_what_a_path_cannot_do_goes_to_the_next_which_is_said(
    install: Callable[..., FakeCupy], sizes: list[int], kind: str, settings: dict[str, Any], taken: str, reason: str
) -> None:
    install(**settings)
    x, y = data(30)
    backend = CupyBackend()
    mini_batch_sgd(x if kind == "uint8" else x / 255, y, init_params(sizes), epochs=1, batch_size=16, backend=backend)
    assert backend.epoch_path.startswith(taken)
    assert reason in backend.epoch_path


def test_a_network_too_wide_for_a_cluster_is_told_the_widest_that_fits(install: Callable[..., FakeCupy]) -> None:
    install(shared_limit=9000)
    x, y = data(30)
    with pytest.raises(
        PathError, match=r"20-300-5 at batch size 16 needs [\d,]+ bytes .* there are 9,000; the widest .* has \d+ units"
    ):
        mini_batch_sgd(x, y, init_params([20, 300, 5]), epochs=1, batch_size=16, backend=backend_by("cluster"))


def test_float64_and_large_steps_are_left_to_the_ops(cupy: FakeCupy) -> None:
    x, y = data(30)
    backend = CupyBackend("float64")
    mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=16, backend=backend)
    assert backend.epoch_path.startswith("ops; not cluster: its kernels compute in float32, this is float64")
    x, y = data(1200, 400)
    backend = CupyBackend()
    mini_batch_sgd(x, y, init_params([400, 1000, 5]), epochs=1, batch_size=1000, backend=backend)
    assert "a step of 2.4 GFLOP is left to cuBLAS" in backend.epoch_path


def test_a_cluster_of_16_is_asked_for_as_such(cupy: FakeCupy) -> None:
    x, y = data(20)
    backend = backend_by("cluster", cluster=16)
    mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=10, backend=backend)
    assert backend.epoch_path == "cluster of 16"
    assert "attribute 14 = 1" in cupy.log


# Many networks --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["cluster", "graph", "ops"])
def test_many_networks_are_bit_equal_to_one_by_one(cupy: FakeCupy, path: str) -> None:
    x, y = data(45)
    networks = [init_params(SIZES, seed=seed) for seed in (3, 4, 5)]
    rates, seeds = [0.1, 0.4, 0.2], [7, 8, 7]
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "backend": backend_by(path)}
    cupy.log.clear()
    together = train_many(x, y, networks, learning_rates=rates, seeds=seeds, **options)
    if path == "cluster":
        assert cupy.log.count("launch train_epoch") == 1 + 2  # the trial, two epochs
    for history, params, rate, seed in zip(together, networks, rates, seeds, strict=True):
        alone = mini_batch_sgd(x, y, params, learning_rate=rate, seed=seed, **options)
        assert bits(history.params) == bits(alone.params)
        assert (history.loss, history.accuracy) == (alone.loss, alone.accuracy)
