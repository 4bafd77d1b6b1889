"""Training several networks at once: the same as one by one, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlp_accel import History, NonFiniteLossError, SettingError, init_params, mini_batch_sgd, train_many
from mlp_accel.backends import Backend
from tests.reference import StrictBackend
from tests.test_training import TOY, bits, toy

NETWORKS = [init_params(TOY, seed=seed) for seed in (5, 6, 7)]
RATES, SEEDS = [0.1, 0.3, 0.05], [4, 4, 9]


def same(one: History, other: History) -> bool:
    return bits(one.params) == bits(other.params) and (one.loss, one.accuracy) == (other.loss, other.accuracy)


@pytest.mark.parametrize("fused", [True, False])
def test_each_is_bit_equal_to_a_run_of_its_own(backend: Backend, fused: bool) -> None:
    x, y = toy()
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "backend": backend, "fused": fused}
    together = train_many(x, y, NETWORKS, learning_rates=RATES, seeds=SEEDS, **options)
    for history, params, rate, seed in zip(together, NETWORKS, RATES, SEEDS, strict=True):
        assert same(history, mini_batch_sgd(x, y, params, learning_rate=rate, seed=seed, **options))
        assert len(history) == 3


def test_the_plain_form_keeps_to_the_array_api() -> None:
    x, y = toy()
    (history,) = train_many(x, y, NETWORKS[:1], epochs=1, backend=StrictBackend("float64"))
    assert same(history, mini_batch_sgd(x, y, NETWORKS[0], epochs=1, backend=StrictBackend("float64")))


def test_the_number_of_threads_does_not_change_the_orders() -> None:
    x, y = toy()
    runs = [train_many(x, y, NETWORKS, epochs=2, backend="numpy", threads=threads) for threads in (1, None)]
    for one, other in zip(*runs, strict=True):
        assert same(one, other)


def test_the_networks_that_are_given_do_not_change(backend: Backend) -> None:
    x, y = toy()
    before = [bits(params) for params in NETWORKS]
    train_many(x, y, NETWORKS, epochs=1, backend=backend)
    assert [bits(params) for params in NETWORKS] == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rates": [0.1, 0.2]}, "there must be one of the learning rates for each of the 3 networks; got 2"),
        ({"seeds": [1]}, "there must be one of the seeds for each of the 3 networks; got 1"),
        ({"epochs": 0}, "the number of epochs must be at least 1; got 0"),
        ({"batch_size": 0}, "the batch size must be at least 1; got 0"),
        ({"loss_average": "mean"}, "unknown loss average 'mean'"),
        ({"learning_rates": [0.1, -1.0, 0.1]}, "the learning rate must be a positive number; got -1.0"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, Any], message: str) -> None:
    x, y = toy()
    with pytest.raises(SettingError, match=message):
        train_many(x, y, NETWORKS, backend="numpy", **change)


def test_one_learning_rate_of_any_number_type_is_for_all_networks() -> None:
    x, y = toy()
    rates: list[Any] = [np.float32(0.5), [0.5] * 3]
    one, many = (train_many(x, y, NETWORKS, learning_rates=rate, epochs=1, backend="numpy") for rate in rates)
    assert [history.loss for history in one] == [history.loss for history in many]


@pytest.mark.parametrize("networks", [[], [init_params(TOY), init_params([6, 4, 3])]])
def test_networks_of_different_sizes_are_refused(networks: Any) -> None:
    x, y = toy()
    with pytest.raises(ValueError, match="the networks must be one or more, all of the same layer sizes"):
        train_many(x, y, networks, backend="numpy")


def test_a_network_that_diverges_is_named(backend32: Backend) -> None:
    x, y = toy()
    with pytest.raises(NonFiniteLossError, match="of network 1 in epoch") as info:
        train_many(x, y, NETWORKS, learning_rates=[0.1, 1e38, 0.1], activation="relu", epochs=20, backend=backend32)
    assert info.value.history.params
    assert np.isfinite(info.value.history.loss).all()
