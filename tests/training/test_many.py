"""Training several networks at once: the same as one by one, on every backend."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from mlp_accel import History, SettingError, init_params, mini_batch_sgd, network, train_many
from mlp_accel.backends import Backend
from mlp_accel.training.trainer import Trainer
from tests.training.test_training import TOY, bits, sparse_pixels, toy

NETWORKS = [init_params(TOY, seed=seed) for seed in (5, 6, 7)]
RATES, SEEDS = [0.1, 0.3, 0.05], [4, 4, 9]


def same(one: History, other: History) -> bool:
    return bits(one.params) == bits(other.params) and (one.loss, one.accuracy) == (other.loss, other.accuracy)


@pytest.mark.parametrize("data", [toy, sparse_pixels])
@pytest.mark.parametrize("path", ["auto", "loop"])
def test_each_is_bit_equal_to_a_run_of_its_own(backend: Backend, path: str, data: Any) -> None:
    x, y = data()
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "backend": backend, "path": path, "schedule": "one-cycle"}
    together = train_many(x, y, NETWORKS, learning_rates=RATES, seeds=SEEDS, **options)
    for history, params, rate, seed in zip(together, NETWORKS, RATES, SEEDS, strict=True):
        alone = mini_batch_sgd(x, y, params, learning_rate=rate, seed=seed, **options)
        assert same(history, alone)
        assert (len(history), history.status, history.reason) == (3, "done", None)
        assert (history.path, history.backend) == (alone.path, backend.name)


def test_the_plain_form_keeps_to_the_array_api() -> None:
    from tests.strict import StrictBackend

    x, y = toy()
    (history,) = train_many(x, y, NETWORKS[:1], epochs=1, backend=StrictBackend("float64"))
    assert same(history, mini_batch_sgd(x, y, NETWORKS[0], epochs=1, backend=StrictBackend("float64")))


def test_the_number_of_threads_does_not_change_the_orders() -> None:
    x, y = toy()
    runs = [train_many(x, y, NETWORKS, epochs=2, backend="numpy", threads=threads) for threads in (1, None)]
    for one, other in zip(*runs, strict=True):
        assert same(one, other)


def test_the_seeds_are_0_1_2_unless_others_are_given() -> None:
    x, y = toy()
    default, said = (train_many(x, y, NETWORKS, epochs=2, backend="numpy", seeds=seeds) for seeds in (None, [0, 1, 2]))
    for one, other in zip(default, said, strict=True):
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
        ({"weight_decay": [0.1]}, "there must be one of the values of weight_decay for each of the 3 networks; got 1"),
        ({"momentum": [0.9] * 3}, "'sgd' has no setting momentum"),
        ({"optimizer": "momentum", "momentum": [0.9, 1.5, 0.9]}, "momentum of the optimizer 'momentum' must be below 1; got 1.5"),
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


# Rows of one's own ------------------------------------------------------------------------------------------------------------


FOLDS = [np.flatnonzero(np.arange(50) % 4 != fold) for fold in (0, 1, 2)]
"""Of 37, 37 and 38 samples: of minibatches of 37 the first two networks have one in an epoch and the last has two."""


@pytest.mark.parametrize("data", [toy, sparse_pixels])
@pytest.mark.parametrize("path", ["auto", "loop"])
@pytest.mark.parametrize("batch_size", [8, 37, 99])
def test_networks_with_rows_of_their_own_are_bit_equal_to_runs_on_these_rows(
    backend: Backend, path: str, data: Any, batch_size: int
) -> None:
    x, y = data()
    options: dict[str, Any] = {"epochs": 3, "batch_size": batch_size, "backend": backend, "path": path, "schedule": "one-cycle"}
    options |= {"optimizer": "adam"}  # which counts its steps
    together = train_many(x, y, NETWORKS, rows=FOLDS, seeds=SEEDS, **options)
    for history, params, rows, seed in zip(together, NETWORKS, FOLDS, SEEDS, strict=True):
        alone = mini_batch_sgd(x[rows], y[rows], params, seed=seed, **options)
        assert same(history, alone)
        assert history.last is not None
        assert alone.last is not None
        assert history.last.steps == alone.last.steps


def test_a_network_with_rows_of_its_own_can_be_left_out_and_the_others_go_on(backend32: Backend) -> None:
    x, y = sparse_pixels()
    rows, rates = [FOLDS[i] for i in (2, 0, 1, 2)], [1e30, 0.1, 1e30, 0.2]
    networks = [init_params(TOY, seed=seed) for seed in (5, 6, 7, 8)]
    options: dict[str, Any] = {"epochs": 4, "batch_size": 8, "backend": backend32, "activation": "relu"}
    together = train_many(x, y, networks, rows=rows, learning_rates=rates, **options)
    assert [history.status for history in together] == ["diverged", "done", "diverged", "done"]
    for i in (1, 3):
        alone = mini_batch_sgd(x[rows[i]], y[rows[i]], networks[i], learning_rate=rates[i], seed=i, **options)
        assert same(together[i], alone)


def test_each_network_is_validated_on_what_is_held_out_of_its_rows(backend: Backend) -> None:
    x, y = toy()
    options: dict[str, Any] = {"epochs": 9, "batch_size": 8, "backend": backend, "patience": 2, "min_delta": 0.05}
    together = train_many(x, y, NETWORKS, rows=FOLDS, seeds=SEEDS, validation="held_out", **options)
    assert {history.status for history in together} == {"stopped"}
    for history, params, rows, seed in zip(together, NETWORKS, FOLDS, SEEDS, strict=True):
        others = np.setdiff1d(np.arange(50), rows)
        alone = mini_batch_sgd(x[rows], y[rows], params, seed=seed, validation=(x[others], y[others]), **options)
        assert same(history, alone)
        assert (history.best_epoch, history.validation_loss) == (alone.best_epoch, alone.validation_loss)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (FOLDS[:2], SettingError, "there must be rows for each of the 3 networks; got 2"),
        ([*FOLDS[:2], []], ValueError, "the rows of network 2 must be numbers of samples, one or more"),
        ([*FOLDS[:2], [0.5]], ValueError, "the rows of network 2 must be numbers of samples, one or more; got float64"),
        ([[0, 50], *FOLDS[:2]], ValueError, "the rows of network 0 go from 0 to 50; the samples are 0 to 49"),
        ([[0, -1], *FOLDS[:2]], ValueError, "the rows of network 0 go from -1 to 0"),
        ([[0, 3, 3], *FOLDS[:2]], ValueError, "the rows of network 0 name sample 3 more than once"),
    ],
)
def test_wrong_rows_are_named(rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train_many(*toy(), NETWORKS, rows=rows, backend="numpy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": "held_out"}, "validation='held_out' needs rows"),
        ({"validation": "others", "rows": FOLDS}, "unknown validation 'others'"),
        ({"validation": 0.2, "rows": FOLDS}, "beside rows validation is a pair of arrays or 'held_out'; got 0.2"),
        ({"validation": "held_out", "rows": [*FOLDS[:2], range(50)]}, "no samples are held out of the training of network 2"),
    ],
)
def test_rows_and_validation_that_do_not_fit_together_are_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        train_many(*toy(), NETWORKS, backend="numpy", **change)


# One that diverges ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("data", [toy, sparse_pixels])
@pytest.mark.parametrize("path", ["auto", "loop"])
def test_a_network_that_diverges_is_left_out_and_the_others_go_on(backend32: Backend, path: str, data: Any) -> None:
    x, y = data()
    rates, decays = [0.1, 1e30, 0.2, 0.3], [0.0, 0.01, 0.01, 0.0]
    networks = [init_params(TOY, seed=seed) for seed in (5, 6, 7, 8)]
    shared: dict[str, Any] = {"activation": "relu", "epochs": 6, "batch_size": 8, "backend": backend32, "path": path}
    together = train_many(x, y, networks, learning_rates=rates, seeds=[3] * 4, weight_decay=decays, **shared)
    assert [history.status for history in together] == ["done", "diverged", "done", "done"]
    lost = together.pop(1)
    assert lost.reason is not None
    assert lost.reason.startswith("the loss is")
    assert lost.reason.endswith("in epoch 1 at learning rate 1e+30")
    assert (len(lost), lost.interrupted) == (0, False)
    assert bits(lost.params) == bits([(w.astype(np.float32), b.astype(np.float32)) for w, b in networks[1]])  # as it was before
    for history, i in zip(together, (0, 2, 3), strict=True):
        alone = mini_batch_sgd(x, y, networks[i], learning_rate=rates[i], seed=3, weight_decay=decays[i], **shared)
        assert same(history, alone)
        assert (len(history), history.reason) == (6, None)


def explodes_in(epoch: int, steps: int) -> Any:
    """A step of the user's own that makes the parameters of every second network NaN in that epoch."""
    calls = 0

    def step(backend: Backend, params: Any, slots: Any, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == epoch * 2 * steps - 1:  # two networks take turns by the epoch; this is near the end of the second one's
            params = [(w * np.nan, b) for w, b in params]
        return network.train_step(backend, params, slots, *rest)

    return step


def test_what_a_network_had_reached_before_it_diverged_is_kept() -> None:
    x, y = toy(n=40)
    shared: dict[str, Any] = {"batch_size": 10, "backend": "numpy"}
    first, second = train_many(x, y, NETWORKS[:2], epochs=5, step=explodes_in(3, 4), **shared)
    assert (len(first), first.status) == (5, "done")
    assert (len(second), second.status) == (2, "diverged")
    assert second.reason == "the loss is nan in epoch 3 at learning rate 0.5"
    two = mini_batch_sgd(x, y, NETWORKS[1], epochs=2, seed=1, step=explodes_in(9, 4), **shared)
    assert same(second, two)


def test_when_all_have_diverged_the_training_ends(backend32: Backend) -> None:
    x, y = toy()
    together = train_many(x, y, NETWORKS, learning_rates=1e30, activation="relu", epochs=9, backend=backend32, batch_size=8)
    assert [history.status for history in together] == ["diverged"] * 3
    assert all(history.reason for history in together)


# Ctrl-C -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["auto", "loop"])
def test_ctrl_c_returns_of_each_network_what_was_reached(backend32: Backend, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = toy()
    epochs = 0
    original = Trainer.epoch

    def interrupted(trainer: Trainer) -> Any:
        nonlocal epochs
        epochs += 1
        result = original(trainer)
        if epochs == 3:
            raise KeyboardInterrupt
        return result

    rates = [0.1, 1e30, 0.2]
    shared: dict[str, Any] = {"backend": backend32, "activation": "relu", "path": path, "batch_size": 8}
    expected = train_many(x, y, NETWORKS, learning_rates=rates, epochs=2, **shared)
    monkeypatch.setattr(Trainer, "epoch", interrupted)
    together = train_many(x, y, NETWORKS, learning_rates=rates, epochs=9, **shared)
    assert [history.status for history in together] == ["interrupted", "diverged", "interrupted"]
    assert [history.interrupted for history in together] == [True, False, True]
    assert [len(history) for history in together] == [2, 0, 2]
    for history, two in zip(together, expected, strict=True):
        assert same(history, two)


# The trainer ------------------------------------------------------------------------------------------------------------------


def test_networks_can_be_let_go_in_any_pattern_and_the_others_keep_their_bits(backend32: Backend) -> None:
    from mlp_accel.optimizers import find_optimizer

    x, y = sparse_pixels()
    decays = [0.0, 0.1, 0.0, 0.1, 0.2]
    networks = [init_params(TOY, seed=seed) for seed in range(5)]
    optimizers = [find_optimizer("momentum", weight_decay=decay) for decay in decays]

    def trainer(indices: list[int]) -> Trainer:
        settings: dict[str, Any] = {"learning_rates": [0.01 * (1 + i) for i in indices], "seeds": indices, "epochs": 3}
        settings["optimizers"] = [optimizers[i] for i in indices]
        return Trainer(x, y, [networks[i] for i in indices], backend32, batch_size=8, **settings)

    together = trainer([0, 1, 2, 3, 4])
    left = [0, 1, 2, 3, 4]
    alone = {place: trainer([place]) for place in left}
    for kept in ([0, 1, 3, 4], [1, 2], [1]):
        epoch = together.epoch()
        for at, place in enumerate(left):
            own = alone[place].epoch()
            assert (epoch.losses[at], epoch.accuracies[at]) == (own.losses[0], own.accuracies[0])
            assert bits(together.params(at)) == bits(alone[place].params())
        together.keep(kept)
        left = [left[at] for at in kept]
        assert len(together.states()) == len(left)
        for at, place in enumerate(left):
            assert bits(together.params(at)) == bits(alone[place].params())


def test_a_step_of_the_users_own_runs_in_one_thread(backend_name: str) -> None:
    x, y = toy()
    threads = set()

    def step(*arguments: Any) -> Any:
        threads.add(threading.get_ident())
        return network.train_step(*arguments)

    train_many(x, y, NETWORKS, epochs=1, backend=backend_name, step=step)
    assert threads == {threading.get_ident()}
