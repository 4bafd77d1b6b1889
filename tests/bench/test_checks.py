"""What counts as a right result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlp_accel import get_backend, init_params
from mlp_accel.backends import Backend
from mlp_accel.backends.paths import LOOP
from mlp_accel.bench.checks import (
    BACKEND,
    CHECK_STEPS,
    OWN_ORDER,
    PEER,
    epochs_remembered,
    evaluation_differs,
    losses_differ,
    parameters_differ,
    work_off_the_clock,
)
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


def test_losses_of_every_epoch_are_compared_the_first_one_most_closely() -> None:
    reference = [1.0, 0.5, 0.25]
    assert losses_differ([1.00009, 0.5004, 0.2498], reference) is None
    for losses, epoch in (([1.0002, 0.5, 0.25], 1), ([1.0, 0.5006, 0.25], 2), ([1.0, 0.5, 0.2503], 3)):
        assert f"the loss of epoch {epoch} is" in str(losses_differ(losses, reference))
    assert losses_differ([1.0, 0.5], reference) is None, "Ctrl-C came before its turn"
    assert losses_differ([], []) is None


def test_a_peer_is_held_to_one_per_cent_unless_it_draws_its_own_order() -> None:
    reference = [1.0, 0.5, 0.25]
    near, far = [1.009, 0.504, 0.248], [1.04, 0.54, 0.23]
    assert losses_differ(near, reference, PEER) is None
    assert "tolerance 1.000%" in str(losses_differ(far, reference, PEER))
    assert losses_differ(far, reference, OWN_ORDER) is None
    assert "epoch 1" in str(losses_differ([1.06, 0.5, 0.25], reference, OWN_ORDER))
    assert "epoch 3" in str(losses_differ([1.0, 0.5, 0.28], reference, OWN_ORDER))


def test_where_rounding_errors_grow_the_losses_may_drift_as_far_but_not_without_end() -> None:
    reference, nudged = [1.0, 0.5, 0.25], [1.0, 0.5005, 0.2]
    drifted = [1.0, 0.504, 0.25]
    assert losses_differ(drifted, reference, BACKEND, nudged) is None
    assert "epoch 2" in str(losses_differ(drifted, reference))
    assert "epoch 1" in str(losses_differ([1.001, 0.504, 0.25], reference, BACKEND, nudged)), "there nothing has grown yet"
    assert "tolerance 5.000%" in str(losses_differ([1.0, 0.5, 0.3], reference, BACKEND, nudged))


@pytest.mark.parametrize(
    ("loss", "accuracy", "reason"),
    [
        (0.1000, 0.95, None),
        (0.1000, 0.952, None),  # two samples more
        (0.1000, 0.96, "96.00% of the test set are right, of the reference 95.00%"),
        (0.1002, 0.95, "the loss on the test set is 0.1002"),
        (float("nan"), 0.95, "the loss on the test set is nan"),
    ],
)
def test_what_is_said_of_the_test_set_is_compared_too(loss: float, accuracy: float, reason: str | None) -> None:
    reference = {"test_loss": 0.1, "test_accuracy": 0.95, "n_test": 1000}
    problem = evaluation_differs({"test_loss": loss, "test_accuracy": accuracy}, reference, BACKEND)
    assert problem is None if reason is None else reason in str(problem)


def test_epochs_that_were_known_beforehand_are_found_out_by_one_that_was_not() -> None:
    assert epochs_remembered([0.9, 0.5], [0.01] * 5) == (
        "an epoch that it could not know beforehand took 0.5 s, those that were timed 0.01 s"
    )
    assert epochs_remembered([0.9, 0.45], [0.3] * 5) is None, "one of them was delayed"
    assert epochs_remembered([], [0.3] * 5) is None


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
