"""Validation: the parameters that come back are the best ones, however the training ends."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_accel import History, NonFiniteLossError, SettingError, evaluate, get_backend, init_params, mini_batch_sgd, train_many
from mlp_accel.backends import Backend
from mlp_accel.datasets.split import stratified_share
from mlp_accel.training.validation import EarlyStopping
from tests.training.test_training import TOY, bits, sparse_pixels, toy


def noisy(n: int = 60, seed: int = 0) -> tuple[Any, Any]:
    """Samples that a network can only learn by heart, so that the validation loss rises at last."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)), rng.integers(0, 3, n)


HELD_OUT = noisy(40, seed=1)
OVERFITTING: dict[str, Any] = {"batch_size": 8, "learning_rate": 0.3, "validation": HELD_OUT}


def after(epochs: int, backend: Any, **settings: Any) -> Any:
    """The parameters after so many epochs of the training without validation."""
    plain = {name: value for name, value in (OVERFITTING | settings).items() if name != "validation"}
    return mini_batch_sgd(*noisy(), init_params(TOY), backend=backend, epochs=epochs, **plain).params


def test_the_parameters_are_those_of_the_best_epoch_and_nothing_else_changes(backend: Backend) -> None:
    history = mini_batch_sgd(*noisy(), init_params(TOY), backend=backend, epochs=12, **OVERFITTING)
    plain = mini_batch_sgd(*noisy(), init_params(TOY), backend=backend, epochs=12, batch_size=8, learning_rate=0.3)
    assert (history.loss, history.accuracy) == (plain.loss, plain.accuracy)
    assert history.last is not None
    assert bits(history.last.params) == bits(plain.params)
    best = history.best_epoch
    assert best is not None
    assert best < 12  # or the test would show nothing
    assert history.validation_loss[best - 1] == min(history.validation_loss)
    assert bits(history.params) == bits(after(best, backend))
    assert history.status == "done"
    expected = evaluate(backend, history.params, *HELD_OUT, "tanh")
    assert (history.validation_loss[best - 1], history.validation_accuracy[best - 1]) == expected


def test_without_validation_the_parameters_are_the_last_ones(backend_name: str) -> None:
    history = mini_batch_sgd(*toy(), init_params(TOY), backend=backend_name, epochs=2)
    assert (history.validation_loss, history.validation_accuracy, history.best_epoch) == ([], [], None)
    assert history.last is not None
    assert bits(history.params) == bits(history.last.params)
    assert "validation_loss" not in history.rows()[0]


def test_the_last_epoch_is_returned_if_it_is_the_best(backend_name: str) -> None:
    history = mini_batch_sgd(*toy(), init_params(TOY), backend=backend_name, epochs=3, validation=toy(30, seed=1))
    assert history.best_epoch == 3
    assert history.last is not None
    assert bits(history.params) == bits(history.last.params)


def test_training_ends_when_patience_runs_out(backend: Backend) -> None:
    history = mini_batch_sgd(*noisy(), init_params(TOY), backend=backend, epochs=99, patience=3, **OVERFITTING)
    assert history.status == "stopped"
    assert history.reason == "the validation loss has not become better for 3 epochs"
    assert history.best_epoch == len(history) - 3
    assert bits(history.params) == bits(after(history.best_epoch, backend))


def test_accuracy_can_be_what_is_watched(backend_name: str) -> None:
    history = mini_batch_sgd(*noisy(), init_params(TOY), backend=backend_name, epochs=12, monitor="accuracy", **OVERFITTING)
    best = history.validation_accuracy.index(max(history.validation_accuracy)) + 1
    assert history.best_epoch == best
    assert bits(history.params) == bits(after(best, backend_name))


def test_ctrl_c_returns_the_best_parameters_so_far(backend_name: str) -> None:
    def press_ctrl_c(history: History) -> None:
        if len(history) == 10:
            raise KeyboardInterrupt

    history = mini_batch_sgd(*noisy(), init_params(TOY), backend=backend_name, epochs=99, callbacks=[press_ctrl_c], **OVERFITTING)
    assert (history.status, len(history), len(history.validation_loss)) == ("interrupted", 10, 10)
    assert history.best_epoch is not None
    assert history.best_epoch < 10
    assert bits(history.params) == bits(after(history.best_epoch, backend_name))


def test_ctrl_c_between_two_columns_leaves_both_of_one_length(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []

    def interrupted(history: History, name: str, value: Any) -> None:
        if name == "best_epoch" and value is not None:
            written.append(value)
            if len(written) == 3:
                raise KeyboardInterrupt
        object.__setattr__(history, name, value)

    monkeypatch.setattr(History, "__setattr__", interrupted)
    history = mini_batch_sgd(*noisy(), init_params(TOY), backend=backend_name, epochs=9, **OVERFITTING)
    monkeypatch.undo()
    assert {len(column) for column in (history.loss, history.validation_loss, history.validation_accuracy)} == {2}
    assert history.best_epoch in (1, 2)
    assert bits(history.params) == bits(after(history.best_epoch, backend_name))


@pytest.mark.parametrize("data", [toy, sparse_pixels])
def test_a_share_is_trained_without_and_validated_with(backend_name: str, data: Any) -> None:
    x, y = data(90)
    history = mini_batch_sgd(x, y, init_params(TOY), backend=backend_name, epochs=3, batch_size=8, validation=0.2, seed=5)
    chosen = stratified_share(y, 0.2, seed=5)
    pair = (x[chosen], y[chosen])
    said = mini_batch_sgd(
        x[~chosen], y[~chosen], init_params(TOY), backend=backend_name, epochs=3, batch_size=8, validation=pair, seed=5
    )
    assert (history.loss, history.validation_loss) == (said.loss, said.validation_loss)
    assert bits(history.params) == bits(said.params)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_a_share_is_the_same_of_every_class(counts: list[int], share: float, seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    try:
        chosen = stratified_share(y, share, seed)
    except SettingError:
        assert round(share * len(y)) == 0 or share * max(counts) < 1 or max(counts) == 1
        return
    numbers = np.bincount(y[chosen], minlength=len(counts))
    for number, count in zip(numbers, counts, strict=True):
        assert number == min(int(share * count), count - 1) or number in (int(share * count) + 1, count - 1)
        assert number < count
    assert np.array_equal(chosen, stratified_share(y, share, seed))


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "stops"),
    [
        ([3, 2, 1], 1, 0.0, False),
        ([3, 2, 2], 1, 0.0, True),
        ([1, 2, 0.5, 2], 2, 0.0, False),
        ([1, 0.99, 0.98], 2, 0.1, True),  # each is better by too little
        ([1, 0.95, 0.89], 2, 0.1, False),  # together it is enough
        ([1, 2, 3], None, 0.0, False),
    ],
)
def test_progress_is_more_than_min_delta(losses: list[float], patience: int | None, min_delta: float, stops: bool) -> None:
    stopping = EarlyStopping("loss", patience, min_delta)
    assert (stopping.reason_to_stop(losses, [0.0] * len(losses)) is not None) == stops
    assert EarlyStopping("accuracy", patience, min_delta).best_epoch([], [0.5, 0.7, 0.7]) == 2


def test_the_history_tells_of_validation() -> None:
    history = mini_batch_sgd(*noisy(), init_params(TOY), backend="numpy", epochs=2, **OVERFITTING)
    content = json.loads(history.to_json())
    assert content["best_epoch"] == history.best_epoch
    assert [row["validation_loss"] for row in content["history"]] == history.validation_loss
    loss, accuracy = history.plot().axes
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), history.validation_loss)
    np.testing.assert_array_equal(accuracy.lines[1].get_ydata(), history.validation_accuracy)


def test_a_run_that_diverges_has_the_best_parameters_it_had() -> None:
    def too_fast(step: int, steps: int) -> float:
        return 1.0 if step < 3 * 8 else 1e30

    with pytest.raises(NonFiniteLossError) as caught:
        mini_batch_sgd(*noisy(), init_params(TOY), backend="numpy", epochs=9, schedule=too_fast, activation="relu", **OVERFITTING)
    history = caught.value.history
    assert history.best_epoch is not None
    assert bits(history.params) == bits(after(history.best_epoch, "numpy", activation="relu"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation": 0.0}, "between 0 and 1; got 0.0"),
        ({"validation": 1}, "between 0 and 1; got 1"),
        ({"validation": "half"}, "between 0 and 1; got 'half'"),
        ({"validation": 0.001}, "is none of them"),
        ({"validation": 0.2, "patience": 0}, "patience must be at least 1 epoch; got 0"),
        ({"validation": 0.2, "min_delta": float("nan")}, "min_delta must be a number, 0 or more; got nan"),
        ({"validation": 0.2, "monitor": "f1"}, "unknown monitor 'f1'; choose one of loss, accuracy"),
        ({"patience": 3}, "need samples to watch"),
        ({"validation": (np.zeros((2, 5)), np.zeros(2, int))}, r"x must have shape \(n, 6\)"),
        ({"validation": (np.zeros((2, 6)), np.array([0, 3]))}, "labels from 0 to 3"),
        ({"validation": (np.zeros((2, 6), np.uint8), np.zeros(2, int))}, "differ in dtype: float64 and uint8"),
    ],
    ids=str,
)
def test_what_cannot_be_validated_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mini_batch_sgd(*toy(), init_params(TOY), backend="numpy", **settings)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("path", ["auto", "loop"])
@pytest.mark.parametrize("data", [toy, sparse_pixels])
def test_a_training_that_goes_on_has_the_bits_of_one_that_never_stopped(
    backend: Backend, path: str, optimizer: str, data: Any
) -> None:
    settings: dict[str, Any] = {"backend": backend, "path": path, "optimizer": optimizer, "batch_size": 8, "schedule": "step"}
    x, y = data()
    whole = mini_batch_sgd(x, y, init_params(TOY), epochs=5, **settings)
    first = mini_batch_sgd(x, y, init_params(TOY), epochs=2, **settings)
    assert first.last is not None
    rest = mini_batch_sgd(x, y, first.last, epochs=5, **settings)
    assert first.loss + rest.loss == whole.loss
    assert bits(rest.params) == bits(whole.params)


def test_a_snapshot_that_does_not_fit_is_refused() -> None:
    last = mini_batch_sgd(*toy(), init_params(TOY), backend="numpy", epochs=2).last
    assert last is not None
    with pytest.raises(SettingError, match="trained for 2 epochs; there are none left of 2"):
        mini_batch_sgd(*toy(), last, backend="numpy", epochs=2)
    with pytest.raises(ValueError, match="must hold 2 slots"):
        mini_batch_sgd(*toy(), last, backend="numpy", epochs=3, optimizer="adam")


def test_each_of_many_networks_has_its_own_best_epoch(backend: Backend) -> None:
    networks = [init_params(TOY, seed=seed) for seed in (1, 2, 3)]
    options: dict[str, Any] = {"epochs": 30, "backend": backend, "patience": 2, "optimizer": "adam"}
    options |= {"batch_size": 8, "validation": HELD_OUT}
    together = train_many(*noisy(), networks, learning_rates=[0.03, 0.01, 0.1], seeds=[4, 5, 6], **options)
    for params, rate, seed, history in zip(networks, [0.03, 0.01, 0.1], [4, 5, 6], together, strict=True):
        alone = mini_batch_sgd(*noisy(), params, learning_rate=rate, seed=seed, **options)
        assert (history.status, history.best_epoch, history.validation_loss) == (
            alone.status,
            alone.best_epoch,
            alone.validation_loss,
        )
        assert bits(history.params) == bits(alone.params)
    assert len({len(history) for history in together}) > 1


def test_validation_uses_the_backend_that_is_given() -> None:
    backend = get_backend("numpy", "float64")
    history = mini_batch_sgd(*noisy(), init_params(TOY), backend=backend, epochs=1, **OVERFITTING)
    assert history.params[0][0].dtype == np.float64
