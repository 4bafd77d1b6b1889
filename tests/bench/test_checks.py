"""What counts as a right result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlp_accel import get_backend, init_params
from mlp_accel.backends import Backend
from mlp_accel.backends.paths import LOOP
from mlp_accel.bench.checks import CHECK_STEPS, losses_differ, parameters_differ, work_off_the_clock
from mlp_accel.datasets import Dataset
from mlp_accel.optimizers import OPTIMIZERS
from mlp_accel.training.trainer import Trainer


def after_some_steps(
    mnist: Dataset, backend: Backend, rate: float | None = 0.5, path: str = "auto", optimizer: str = "sgd"
) -> list[tuple[np.ndarray, np.ndarray]]:
    n = 128 * CHECK_STEPS
    rule: dict[str, Any] = {"optimizers": [OPTIMIZERS[optimizer]], "learning_rates": [rate]}
    trainer = Trainer(mnist.x_train[:n], mnist.y_train[:n], [init_params([784, 32, 10])], backend, path=path, **rule)
    trainer.epoch()
    return trainer.params()


@pytest.mark.parametrize("path", [LOOP, "auto"])
def test_every_backend_agrees_with_numpy_after_20_steps(mnist: Dataset, backend: Backend, path: str) -> None:
    reference = after_some_steps(mnist, get_backend("numpy", backend.dtype))
    assert parameters_differ(after_some_steps(mnist, backend, path=path), reference, backend.dtype) is None


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "sgd"])
def test_every_backend_agrees_with_numpy_whatever_the_optimizer(mnist: Dataset, backend: Backend, optimizer: str) -> None:
    reference = after_some_steps(mnist, get_backend("numpy", backend.dtype), None, LOOP, optimizer)
    for path in (LOOP, "auto"):
        assert parameters_differ(after_some_steps(mnist, backend, None, path, optimizer), reference, backend.dtype) is None


def test_a_slightly_different_training_does_not_agree(mnist: Dataset, dtype: str) -> None:
    backend = get_backend("numpy", dtype)
    message = parameters_differ(after_some_steps(mnist, backend, 0.501), after_some_steps(mnist, backend), dtype)
    assert message is not None
    assert "after 20 steps the weights of layer 1 differ" in message


def test_nan_never_agrees() -> None:
    params = [(np.ones((2, 2)), np.ones(2))]
    assert parameters_differ([(np.full((2, 2), np.nan), np.ones(2))], params, "float32")
    assert losses_differ([1.0, float("nan")], [1.0, 0.5]) == "the loss is nan in epoch 2"


def test_losses_may_drift_apart_but_not_at_the_start() -> None:
    reference = [1.0, 0.5, 0.25]
    assert losses_differ([1.009, 0.5, 0.26], reference) is None
    assert "epoch 1" in str(losses_differ([1.02, 0.5, 0.25], reference))
    assert "epoch 3" in str(losses_differ([1.0, 0.5, 0.27], reference))
    assert losses_differ([], []) is None


@pytest.mark.parametrize(
    ("late", "found_out"),
    [
        ([0.002], False),  # put aside by the system once: one epoch says nothing
        ([0.002] * 4, False),
        ([0.002] * 5, True),
        ([0.002] * 4 + [0.0], False),
        ([0.04, 0.05], True),  # no busy machine explains that
    ],
)
def test_a_short_run_on_a_busy_machine_is_not_accused_of_work_off_the_clock(late: list[float], found_out: bool) -> None:
    assert (work_off_the_clock(False, late, [0.01] * len(late)) is not None) == found_out
