"""The learning rate of every minibatch: against formulas, against PyTorch, and what is refused."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel import Schedule, SettingError, init_params, mini_batch_sgd, train_many
from mlp_accel.schedules import SCHEDULES, find_schedule
from tests.training import plain

EPOCHS, STEPS_PER_EPOCH = 5, 20
STEPS = EPOCHS * STEPS_PER_EPOCH


def all_rates(schedule: Schedule, learning_rate: float = 0.3, epochs: int = EPOCHS, steps: int = STEPS_PER_EPOCH) -> Any:
    return np.concatenate([schedule.rates(learning_rate, epoch, epochs, steps) for epoch in range(epochs)])


def named(name: str) -> Schedule:
    return find_schedule(name, step_epochs=2, gamma=0.5) if name == "step" else find_schedule(name)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_the_rates_are_those_of_the_formulas(name: str, epochs: int) -> None:
    expected = 0.3 * np.array(plain.factors(name, epochs * STEPS_PER_EPOCH, STEPS_PER_EPOCH))
    np.testing.assert_allclose(all_rates(named(name), epochs=epochs), expected, rtol=1e-13, atol=1e-17)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    made: dict[str, Any] = torch_schedulers(torch)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    rates = []
    scheduler = made[name](optimizer, STEPS, STEPS_PER_EPOCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a step beyond the last
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if len(rates) < STEPS:
                scheduler.step()
    np.testing.assert_allclose(all_rates(named(name)), rates, rtol=1e-10)


def torch_schedulers(torch: Any) -> dict[str, Any]:
    """For each schedule what makes PyTorch's of an optimiser, the number of steps and that of an epoch."""
    made = torch.optim.lr_scheduler
    return {
        "constant": lambda optimizer, n, _: made.ConstantLR(optimizer, factor=1.0, total_iters=n),
        "linear": lambda optimizer, n, _: made.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=n),
        "cosine": lambda optimizer, n, _: made.CosineAnnealingLR(optimizer, T_max=n),
        "step": lambda optimizer, _, epoch: made.StepLR(optimizer, step_size=2 * epoch, gamma=0.5),
        "one-cycle": lambda optimizer, n, _: made.OneCycleLR(
            optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=n, cycle_momentum=False
        ),
    }


def test_the_last_rate_of_linear_and_cosine_is_not_yet_zero() -> None:
    for name in ("linear", "cosine"):
        rates = all_rates(named(name))
        assert rates[0] == 0.3
        assert 0 < rates[-1] < 0.01
        assert (np.diff(rates) < 0).all()


def test_one_cycle_starts_and_ends_as_it_says_and_reaches_its_rate_after_the_warm_up() -> None:
    for share in (0.1, 0.3, 0.75):
        rates = all_rates(find_schedule("one-cycle", warmup=share), 1.0)
        assert rates[0] == pytest.approx(1 / 25)
        assert rates[-1] == pytest.approx(1 / 25e4)
        assert rates.max() == pytest.approx(1.0)
        assert rates.argmax() == round(share * STEPS) - 1
    assert all_rates(find_schedule("one-cycle", warmup=0.0), 1.0).argmax() == 0
    assert np.isfinite(all_rates(find_schedule("one-cycle"), epochs=1, steps=1)).all()


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_with_a_warm_up_the_rate_first_rises_in_a_straight_line_to_where_the_schedule_starts(name: str) -> None:
    rates = all_rates(find_schedule(name, warmup=0.2))
    rising = round(0.2 * STEPS)
    np.testing.assert_allclose(rates[:rising], 0.3 * np.arange(1, rising + 1) / rising, rtol=1e-14)
    np.testing.assert_allclose(rates[rising:], 0.3 * np.array(plain.factors(name, STEPS - rising, 1)), rtol=1e-13, atol=1e-17)


def test_a_warm_up_of_no_step_changes_nothing() -> None:
    np.testing.assert_array_equal(all_rates(find_schedule("constant", warmup=0.0)), np.full(STEPS, 0.3))
    np.testing.assert_array_equal(all_rates(find_schedule("linear", warmup=0.001)), all_rates(find_schedule("linear")))


def root(step: int, steps: int) -> float:
    """A schedule of one's own."""
    return 1 / math.sqrt(1 + step)


def half(step: int, steps: int) -> Any:
    """A number of NumPy is one too."""
    return np.float32(0.5)


def test_a_function_of_the_users_own_is_a_schedule() -> None:
    np.testing.assert_allclose(all_rates(find_schedule(root)), 0.3 / np.sqrt(1 + np.arange(STEPS)), rtol=1e-14)
    np.testing.assert_array_equal(all_rates(find_schedule(half)), np.full(STEPS, 0.15))
    assert find_schedule(root).name == "root"


def test_a_function_of_the_users_own_knows_the_length_of_an_epoch_if_it_asks() -> None:
    def by_epoch(step: int, steps: int, steps_per_epoch: int = 1) -> float:
        return 1.0 + step // steps_per_epoch

    expected = np.repeat(np.arange(1.0, EPOCHS + 1), STEPS_PER_EPOCH)
    np.testing.assert_array_equal(all_rates(Schedule(by_epoch), 1.0), expected)


def test_training_asks_for_the_rate_of_every_minibatch_once_and_in_order() -> None:
    asked: list[tuple[int, int]] = []

    def noted(step: int, steps: int) -> float:
        asked.append((step, steps))
        return 1.0 / (1 + step)

    x, y = np.zeros((6, 2)), np.zeros(6, int)
    mini_batch_sgd(x, y, init_params([2, 2]), backend="numpy", epochs=3, batch_size=4, schedule=noted)
    assert asked == [(step, 6) for step in range(6)]
    asked.clear()
    train_many(
        x, y, [init_params([2, 2])] * 3, backend="numpy", epochs=3, batch_size=4, schedule=noted, weight_decay=[0.0, 0.1, 0.0]
    )
    assert asked == [(step, 6) for step in range(6)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, None, "fast", [1.0, 2.0], 1j])
def test_a_schedule_that_returns_no_rate_is_refused_with_the_step(value: Any) -> None:
    def odd(step: int, steps: int) -> Any:
        return value if step == 7 else 1.0

    with pytest.raises(SettingError, match=r"the schedule 'odd' must return a number, 0 or more; at step 7 it returned"):
        all_rates(find_schedule(odd))
    with pytest.raises(SettingError, match="at step 7"):
        mini_batch_sgd(np.zeros((16, 2)), np.zeros(16, int), init_params([2, 2]), backend="numpy", batch_size=2, schedule=odd)


@pytest.mark.parametrize(
    ("value", "settings", "message"),
    [
        ("exponential", {}, "unknown schedule 'exponential'; choose one of constant, linear, cosine, step, one-cycle"),
        (0.5, {}, "a schedule is a name or a function"),
        (None, {}, "a schedule is a name or a function"),
        ("cosine", {"gamma": 0.5}, "the schedule 'cosine' has no setting gamma; step has it"),
        ("linear", {"step_epochs": 2}, "the schedule 'linear' has no setting step_epochs"),
        ("step", {"gamma": 0.0}, "gamma must be a positive number; got 0"),
        ("step", {"gamma": float("nan")}, "gamma must be a positive number"),
        ("step", {"step_epochs": 0}, "step_epochs must be a whole number of epochs, 1 or more; got 0"),
        ("step", {"step_epochs": 1.5}, "step_epochs must be a whole number of epochs"),
        ("step", {"step_epochs": float("inf")}, "step_epochs must be a whole number of epochs, 1 or more; got inf"),
        ("step", {"gamma": float("inf")}, "gamma must be a positive number; got inf"),
        ("step", {"gamma": "0.5"}, "gamma must be a positive number; got 0.5"),
        ("linear", {"warmup": "a fifth"}, "warmup must be a share of the steps, from 0 to below 1; got a fifth"),
        ("cosine", {"warmup": 1.0}, "warmup must be a share of the steps, from 0 to below 1; got 1.0"),
        ("cosine", {"warmup": -0.1}, "warmup must be a share"),
        ("cosine", {"warmup": float("nan")}, "warmup must be a share"),
        (Schedule(), {"warmup": 0.1}, "give the settings of a schedule in the Schedule, or beside its name, not both"),
    ],
)
def test_a_schedule_or_setting_that_cannot_be_is_refused(value: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        find_schedule(value, **settings)
    with pytest.raises(SettingError, match=message):
        mini_batch_sgd(np.zeros((4, 2)), np.zeros(4, int), init_params([2, 2]), backend="numpy", schedule=value, **settings)


@pytest.mark.parametrize(
    ("function", "warmup", "settings", "message"),
    [
        ("cosine", 1.5, {}, "warmup must be a share of the steps, from 0 to below 1; got 1.5"),
        (SCHEDULES["one-cycle"], -0.1, {}, "warmup must be a share"),
        ("one-cycle", None, {"warmup": 1.0}, "warmup must be a share"),
        ("step", None, {"gamma": 0.0}, "gamma must be a positive number; got 0"),
        ("step", None, {"step_epochs": 1.5}, "step_epochs must be a whole number of epochs, 1 or more; got 1.5"),
        ("linear", None, {"gamma": 0.5}, "the schedule 'linear' has no setting gamma; step has it"),
        ("linear", None, {"speed": 0.5}, "the schedule 'linear' has no setting speed$"),
        ("falling", None, {}, "unknown schedule 'falling'; choose one of constant, linear, cosine, step, one-cycle"),
        (0.5, None, {}, "a schedule is a name or a function"),
    ],
)
def test_a_schedule_that_is_made_by_hand_is_checked_as_well(function: Any, warmup: Any, settings: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Schedule(function, warmup, tuple(settings.items()))


def test_a_schedule_that_is_made_of_a_name_is_the_one_of_that_name() -> None:
    assert Schedule("cosine", warmup=0.2) == find_schedule("cosine", warmup=0.2)
    assert Schedule("step", settings=(("gamma", 0.5),)) == find_schedule("step", gamma=0.5)


def test_rates_are_computed_in_float64() -> None:
    rates: npt.NDArray[np.float64] = named("cosine").rates(float(np.float32(0.1)), 0, 1, 3)
    assert rates.dtype == np.float64
