"""The base ops and network.py keep to the array API: they run on its strict implementation, and CuPy has all they use."""

from __future__ import annotations

import inspect
import operator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mlp_accel.activations import ACTIVATIONS, BUILT_IN, Activation
from mlp_accel.backends import GRADIENTS, Backend
from mlp_accel.backends.loop import to_backend
from mlp_accel.network import backward, forward, init_params, loss_accuracy, sgd
from mlp_accel.optimizers import OPTIMIZERS, find_optimizer
from mlp_accel.training.trainer import Trainer
from tests.reference import ReferenceBackend
from tests.strict import StrictBackend, array_api_strict


def train_a_little(backend: Backend, activation: str | Activation, gradient: str, optimizer: str = "adamw") -> list[Any]:
    """Use every verb and every op once; returns what came out, as NumPy arrays."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (7, 12), dtype=np.uint8), rng.integers(0, 3, 7)
    host_params = init_params([12, 5, 4, 3], seed=1)
    params = to_backend(backend, host_params)
    device_x, device_y = backend.asarray(x), backend.asarray(y)
    outputs, y_hat = forward(backend, params, device_x, activation)
    grads = backward(backend, params, outputs, y_hat, device_y, gradient, activation)
    loss, accuracy = loss_accuracy(backend, device_y, y_hat)
    updated = sgd(backend, params, grads, 0.1)
    optimizers = [find_optimizer(optimizer, weight_decay=0.1)]
    settings: dict[str, Any] = {"activation": activation, "gradient": gradient, "learning_rates": [0.1]}
    trainer = Trainer(x, y, [host_params], backend, batch_size=3, optimizers=optimizers, **settings)
    epoch = trainer.epoch()
    (state,) = trainer.states()
    results = [*outputs, y_hat, *(a for pair in grads + updated for a in pair)]
    trained = [a for pairs in (state.params, *state.slots) for pair in pairs for a in pair]
    return [*map(backend.to_numpy, results), *trained, float(loss), float(accuracy), epoch.losses, epoch.accuracies]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_algorithm_runs_on_the_strict_array_api(dtype: str, activation: str, gradient: str) -> None:
    strict = train_a_little(StrictBackend(dtype), activation, gradient)
    numpy = train_a_little(ReferenceBackend(dtype), activation, gradient)
    for a, b in zip(strict, numpy, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12 if dtype == "float64" else 1e-4, atol=1e-7)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimiser_runs_on_the_strict_array_api(dtype: str, optimizer: str) -> None:
    strict = train_a_little(StrictBackend(dtype), "tanh", "exact", optimizer)
    numpy = train_a_little(ReferenceBackend(dtype), "tanh", "exact", optimizer)
    for a, b in zip(strict, numpy, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12 if dtype == "float64" else 1e-4, atol=1e-7)


def test_an_activation_of_the_users_own_runs_on_the_strict_array_api() -> None:
    square = Activation(lambda z: z * z, lambda z: 2.0 * z, of_input=True, name="square")
    for a, b in zip(*(train_a_little(kind("float64"), square, "exact") for kind in (StrictBackend, ReferenceBackend)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_the_strict_device_does_refuse_silent_conversion() -> None:
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        np.asarray(StrictBackend().asarray(np.zeros(3)))


class Recorder:
    """An array module that notes which functions are called with what kinds of arguments."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.calls: set[tuple[str, int, tuple[str, ...]]] = set()
        self.attributes: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        self.attributes.add(name)
        if not inspect.isfunction(value):
            return value

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.calls.add((name, len(arguments), tuple(sorted(keywords))))
            return value(*arguments, **keywords)

        return call


def test_cupy_has_every_function_that_the_base_ops_call() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed; importing it needs no GPU")
    recorder = Recorder(array_api_strict)
    backend = StrictBackend()
    backend.xp = recorder
    for activation in BUILT_IN.values():
        for gradient in GRADIENTS:
            train_a_little(backend, activation, gradient)
    for optimizer in OPTIMIZERS:
        train_a_little(backend, "tanh", "exact", optimizer)
    assert len(recorder.calls) > 10
    for name in recorder.attributes:
        assert hasattr(cupy, name), f"cupy.{name} is missing"
    for name, n_arguments, keywords in sorted(recorder.calls):
        try:
            signature = inspect.signature(getattr(cupy, name))
        except ValueError:  # a ufunc: CuPy documents what it takes, inspect does not know
            assert isinstance(getattr(cupy, name), cupy.ufunc)
            assert not keywords
            continue
        arguments = dict.fromkeys(set(keywords) - {"device"})
        signature.bind(*[None] * n_arguments, **arguments)


def test_cupy_has_what_the_backend_uses_beyond_arrays() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed; importing it needs no GPU")
    names = """RawModule RawKernel.kernel RawKernel.max_dynamic_shared_size_bytes get_default_memory_pool
        cuda.Device cuda.Event cuda.get_current_stream cuda.get_elapsed_time cuda.graph.Graph.launch cuda.driver.funcSetAttribute
        cuda.Stream cuda.Stream.begin_capture cuda.Stream.end_capture cuda.Stream.wait_event cuda.Stream.record
        cuda.memory.OutOfMemoryError cuda.runtime.memGetInfo cuda.runtime.getDeviceProperties
        _core.get_compute_type _core.set_compute_type
        _core._routines_linalg.COMPUTE_TYPE_DEFAULT _core._routines_linalg.COMPUTE_TYPE_TF32"""
    for name in names.split():
        assert operator.attrgetter(name)(cupy) is not None, f"cupy.{name} is missing"
