"""The optimisers with the schedules: against PyTorch and against formulas, one of the user's own, and what is refused."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel import Optimizer, SettingError, get_backend, init_params, mini_batch_sgd, train_many
from mlp_accel.backends import Backend
from mlp_accel.elementwise import sign
from mlp_accel.errors import RecordingError
from mlp_accel.optimizers import OPTIMIZERS, find_optimizer
from mlp_accel.schedules import SCHEDULES
from tests.conftest import require
from tests.test_schedules import torch_schedulers
from tests.training import plain

LAYERS, N, BATCH, EPOCHS = [9, 5, 3], 160, 8, 3
STEPS_PER_EPOCH = N // BATCH
SEED = 5
RATES = {"sgd": 0.3, "momentum": 0.05, "nesterov": 0.05, "adam": 0.01, "adamw": 0.01, "lion": 0.003}
PLACES = [("numpy", "loop"), ("numpy", "auto"), ("numba", "loop"), ("numba", "auto")]


def lion(p: Any, g: Any, m: Any, rate: Any = 1e-4, beta1: Any = 0.9, beta2: Any = 0.99, weight_decay: Any = 0.0) -> Any:
    """A rule of the user's own (Chen et al., 2023)."""
    p = p - rate * (sign(beta1 * m + (1.0 - beta1) * g) + weight_decay * p)
    return p, beta2 * m + (1.0 - beta2) * g


def plain_lion(theta: float, g: float, state: plain.Scalars, t: int, lr: float, weight_decay: float = 0.0) -> float:
    m = state.get("m", 0.0)
    state["m"] = 0.99 * m + 0.01 * g
    return theta - lr * (float(np.sign(0.9 * m + 0.1 * g)) + weight_decay * theta)


def pixels() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Sparse images whose brightest corner is their class."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, N)
    x = rng.integers(1, 256, (N, 9)) * (rng.random((N, 9)) < 0.2)
    x[np.arange(N), 3 * y] = 255
    return x.astype(np.uint8), y


def network() -> list[tuple[Any, Any]]:
    """Where all start; the biases are not zero, so that weight decay has something to do."""
    return init_params(LAYERS, seed=2, random_bias=True)


def rows() -> list[npt.NDArray[np.int64]]:
    return list(plain.minibatches(N, BATCH, EPOCHS, SEED))


@pytest.fixture(params=PLACES, ids="-".join)
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A backend in float64 and a path."""
    name, path = request.param
    require(request, name)
    return {"backend": get_backend(name, "float64"), "path": path}


def trained(place: dict[str, Any], optimizer: Any, schedule: str, **settings: Any) -> Any:
    given: dict[str, Any] = {"step_epochs": 2, "gamma": 0.5} if schedule == "step" else {}
    x, y = pixels()
    rate = RATES[getattr(optimizer, "__name__", str(optimizer))]
    return mini_batch_sgd(
        x,
        y,
        network(),
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=rate,
        optimizer=optimizer,
        schedule=schedule,
        seed=SEED,
        **given,
        **settings,
        **place,
    ).params


def assert_equal_parameters(ours: Any, theirs: Any) -> None:
    for our_pair, their_pair in zip(ours, theirs, strict=True):
        for a, b in zip(our_pair, their_pair, strict=True):
            assert a.dtype == np.float64
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=0)


@cache
def with_torch(name: str, schedule: str, **settings: Any) -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, y = pixels()
    images, labels = torch.tensor(x / 255.0), torch.tensor(y)
    params = [torch.tensor(a, requires_grad=True) for pair in network() for a in pair]
    makers: dict[str, Any] = {
        "sgd": (torch.optim.SGD, {}),
        "momentum": (torch.optim.SGD, {"momentum": 0.9}),
        "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        "adam": (torch.optim.Adam, {}),
        "adamw": (torch.optim.AdamW, {}),
    }
    maker, own = makers[name]
    optimizer = maker(params, lr=RATES[name], **own | settings)
    scheduler = torch_schedulers(torch)[schedule](optimizer, EPOCHS * STEPS_PER_EPOCH, STEPS_PER_EPOCH)
    for number, batch in enumerate(rows()):
        hidden = torch.tanh(images[batch] @ params[0] + params[1])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(hidden @ params[2] + params[3], labels[batch]).backward()
        optimizer.step()
        if number < EPOCHS * STEPS_PER_EPOCH - 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                scheduler.step()
    arrays = [p.detach().numpy() for p in params]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


@cache
def by_formulas(name: str, schedule: str, **settings: Any) -> Any:
    x, y = pixels()
    factors = plain.factors(schedule, EPOCHS * STEPS_PER_EPOCH, STEPS_PER_EPOCH)
    rule = plain_lion if name == "lion" else plain.RULES[name]
    return plain.train(network(), x / 255.0, y, rows(), [RATES[name] * f for f in factors], rule, **settings)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_with_a_schedule_goes_the_way_of_pytorch(place: dict[str, Any], name: str, schedule: str) -> None:
    assert_equal_parameters(trained(place, name, schedule), with_torch(name, schedule))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_is_that_of_pytorch(place: dict[str, Any], name: str) -> None:
    ours = trained(place, name, "cosine", weight_decay=0.03)
    assert_equal_parameters(ours, with_torch(name, "cosine", weight_decay=0.03))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_another_momentum_is_that_of_the_formula_and_of_pytorch(place: dict[str, Any], name: str, momentum: float) -> None:
    ours = trained(place, name, "linear", momentum=momentum)
    assert_equal_parameters(ours, by_formulas(name, "linear", mu=momentum))
    if momentum or name == "momentum":  # PyTorch refuses Nesterov's rule without momentum
        assert_equal_parameters(ours, with_torch(name, "linear", momentum=momentum))


@pytest.mark.parametrize(("name", "schedule"), list(zip(OPTIMIZERS, SCHEDULES, strict=True)))
def test_an_optimiser_with_a_schedule_is_its_formula_number_by_number(place: dict[str, Any], name: str, schedule: str) -> None:
    assert_equal_parameters(trained(place, name, schedule), by_formulas(name, schedule))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_with_weight_decay_is_its_formula(place: dict[str, Any], name: str) -> None:
    ours = trained(place, name, "one-cycle", weight_decay=0.03)
    assert_equal_parameters(ours, by_formulas(name, "one-cycle", weight_decay=0.03))


def test_all_combinations_of_optimiser_and_schedule_are_their_formulas() -> None:
    place = {"backend": get_backend("numpy", "float64"), "path": "loop"}
    for name in OPTIMIZERS:
        for schedule in SCHEDULES:
            assert_equal_parameters(trained(place, name, schedule), by_formulas(name, schedule))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_rule_of_the_users_own_trains_by_every_path(place: dict[str, Any], weight_decay: float) -> None:
    ours = trained(place, lion, "cosine", weight_decay=weight_decay)
    assert_equal_parameters(ours, by_formulas("lion", "cosine", weight_decay=weight_decay))


def test_a_rule_may_have_as_many_slots_as_it_likes_and_the_step_anywhere_behind_the_rate(backend64: Backend) -> None:
    def odd(p: Any, g: Any, a: Any, b: Any, c: Any, rate: Any, beta: Any = 0.5, step: Any = 1.0, scale: Any = 2.0) -> Any:
        return p - rate / step * (a + g), beta * a + g, b + step, scale * c + p

    def plain_odd(theta: float, g: float, state: plain.Scalars, t: int, lr: float) -> float:
        a = state.get("a", 0.0)
        state["a"] = 0.5 * a + g
        return theta - lr / t * (a + g)

    x, y = pixels()
    settings: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 0.2, "seed": SEED}
    ours = mini_batch_sgd(x, y, network(), optimizer=odd, backend=backend64, path="loop", **settings).params
    assert_equal_parameters(ours, plain.train(network(), x / 255.0, y, rows(), [0.2] * len(rows()), plain_odd))


def test_slots_start_at_zero_live_beside_the_parameters_and_come_back_to_the_host(place: dict[str, Any]) -> None:
    from mlp_accel.training.trainer import Trainer

    x, y = pixels()
    backend, path = place["backend"], place["path"]
    trainer = Trainer(x, y, [network()], backend, batch_size=BATCH, optimizers=[find_optimizer("adam")], path=path, seeds=[SEED])
    (before,) = trainer.states()
    trainer.epoch()
    (after,) = trainer.states()
    for layer, (weights, bias) in enumerate(network()):
        for state in (before, after):
            assert [(w.shape, b.shape) for w, b in state.slots[layer]] == [(weights.shape, bias.shape)] * 2
            assert all(isinstance(a, np.ndarray) for pair in state.slots[layer] for a in pair)
        assert not any(a.any() for pair in before.slots[layer] for a in pair)
        first, second = after.slots[layer]
        assert first[0].any()
        assert (second[0] >= 0).all()


# Several networks at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        ("momentum", {"momentum": [0.9, 0.5, 0.0, 0.9], "weight_decay": [0.0, 0.01, 0.02, 0.0]}),
        ("nesterov", {"momentum": [0.9, 0.0, 0.5, 0.8]}),
        ("sgd", {"weight_decay": [0.0, 0.01, 0.0, 0.03]}),
        ("adam", {"weight_decay": [0.01, 0.0, 0.0, 0.02]}),
        ("adamw", {"weight_decay": [0.01, 0.0, 0.1, 0.02]}),
        (lion, {"weight_decay": [0.01, 0.0, 0.1, 0.0]}),
    ],
    ids=lambda value: getattr(value, "__name__", value) if not isinstance(value, dict) else "",
)
def test_networks_that_differ_in_their_settings_are_bit_equal_to_runs_of_their_own(
    place: dict[str, Any], optimizer: Any, settings: dict[str, Any]
) -> None:
    x, y = pixels()
    networks = [init_params(LAYERS, seed=seed) for seed in range(4)]
    rates, seeds = [0.1, 0.05, 0.05, 0.02], [4, 4, 1, 0]
    shared: dict[str, Any] = {"epochs": 2, "batch_size": 12, "optimizer": optimizer, "schedule": "cosine", "threads": 1, **place}
    together = train_many(x, y, networks, learning_rates=rates, seeds=seeds, **settings, **shared)
    for i, history in enumerate(together):
        own = {name: values[i] for name, values in settings.items()}
        alone = mini_batch_sgd(x, y, networks[i], learning_rate=rates[i], seed=seeds[i], **own, **shared)
        assert (history.loss, history.accuracy, history.path) == (alone.loss, alone.accuracy, alone.path)
        for ours, theirs in zip(history.params, alone.params, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)


def test_networks_with_different_rules_are_refused() -> None:
    with pytest.raises(SettingError, match="must have one rule; these have sgd, adam"):
        Optimizer.record_for([OPTIMIZERS["sgd"], OPTIMIZERS["adam"]])


# Settings ---------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_pytorch_where_it_has_them() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensor = [torch.zeros(1, requires_grad=True)]
    for name, theirs in (("adam", torch.optim.Adam(tensor)), ("adamw", torch.optim.AdamW(tensor))):
        ours, group = OPTIMIZERS[name], theirs.param_groups[0]
        beta1, beta2 = group["betas"]
        expected = {"beta1": beta1, "beta2": beta2, "epsilon": group["eps"], "weight_decay": group["weight_decay"]}
        assert ours.values == expected
        assert ours.learning_rate == group["lr"]


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        ("sgd", {"momentum": 0.9}, "'sgd' has no setting momentum: it has weight_decay; momentum, nesterov would have it"),
        ("adam", {"momentum": 0.9}, "'adam' has no setting momentum: it has beta1, beta2, epsilon, weight_decay"),
        ("rmsprop", {}, "unknown optimizer 'rmsprop'; choose one of sgd, momentum, nesterov, adam, adamw, or give a rule"),
        ("momentum", {"momentum": 1.0}, "momentum of the optimizer 'momentum' must be below 1; got 1.0"),
        ("momentum", {"momentum": -0.1}, "must be a number, 0 or more; got -0.1"),
        ("sgd", {"weight_decay": float("nan")}, "weight_decay of the optimizer 'sgd' must be a number, 0 or more; got nan"),
        ("sgd", {"weight_decay": float("inf")}, "must be a number"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(optimizer: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        find_optimizer(optimizer, **settings)
    with pytest.raises(SettingError, match=message):
        mini_batch_sgd(*pixels(), network(), backend="numpy", optimizer=optimizer, **settings)


def test_the_learning_rate_is_by_default_that_of_the_rule() -> None:
    def without(p: Any, g: Any, rate: Any) -> Any:
        return p - rate * g

    x, y = pixels()
    settings: dict[str, Any] = {"epochs": 1, "backend": "numpy"}
    for name, optimizer in OPTIMIZERS.items():
        default = mini_batch_sgd(x, y, network(), optimizer=name, **settings)
        said = mini_batch_sgd(x, y, network(), optimizer=name, learning_rate=optimizer.learning_rate, **settings)
        assert default.loss == said.loss
    with pytest.raises(SettingError, match="the rule without has no default for its rate: give a learning rate"):
        mini_batch_sgd(x, y, network(), optimizer=without, **settings)


def _no_rate(p: Any, g: Any, m: Any) -> Any:
    return p, m


def _default_before_rate(p: Any, g: Any, m: Any = 0.0, rate: Any = 0.1) -> Any:
    return p - rate * g, m


def _setting_without_default(p: Any, g: Any, rate: Any, beta: Any) -> Any:
    return p - rate * g * beta


def _setting_without_default_before_step(p: Any, g: Any, rate: Any, beta: Any, step: Any = 1.0) -> Any:
    return p - rate * g * beta / step


def _default_is_no_number(p: Any, g: Any, rate: Any = 0.1, kind: Any = None) -> Any:
    return p - rate * g


def _step_before_rate(p: Any, g: Any, step: Any, rate: Any) -> Any:
    return p - rate * g / step


def _forgets_a_slot(p: Any, g: Any, m: Any, v: Any, rate: Any) -> Any:
    return p - rate * g, m


def _keywords(p: Any, g: Any, rate: Any, **settings: Any) -> Any:
    return p - rate * g


def _branches(p: Any, g: Any, rate: Any) -> Any:
    return p - rate * g if g > 0 else p


def _returns_a_list(p: Any, g: Any, m: Any, rate: Any) -> Any:
    return [p - rate * g, m]


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (_no_rate, SettingError, "_no_rate is no update rule: a rule is a function"),
        (_default_before_rate, SettingError, "no argument before rate has a default; each"),
        (_setting_without_default, SettingError, "no argument before rate has a default; each"),
        (_setting_without_default_before_step, SettingError, "no argument before rate has a default; each"),
        (_default_is_no_number, SettingError, "each setting after it has one, which is a number"),
        (_step_before_rate, SettingError, "step comes after rate"),
        (_forgets_a_slot, SettingError, "_forgets_a_slot must return the parameter and its 2 slots; it returns 2 numbers"),
        (_keywords, SettingError, "_keywords is no update rule"),
        (_branches, RecordingError, "_branches: an if"),
        (_returns_a_list, RecordingError, "_returns_a_list must return a number, or a tuple of them"),
        (0.5, SettingError, "0.5 is no update rule"),
        (None, SettingError, "None is no update rule"),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_what_is_no_rule_is_refused_and_says_what_one_looks_like(rule: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Optimizer(rule)
    with pytest.raises(error, match=message):
        mini_batch_sgd(*pixels(), network(), backend="numpy", optimizer=rule)


def test_a_rule_that_divides_by_a_setting_that_is_zero_is_refused_by_name() -> None:
    def scaled(p: Any, g: Any, rate: Any = 0.1, limit: Any = 1.0) -> Any:
        return p - rate * g * (1.0 / limit)

    with pytest.raises(RecordingError, match=r"^scaled cannot be recorded: .* a setting that is 0, fails \(.*division by zero\)"):
        find_optimizer(scaled, limit=0.0)


def test_a_setting_that_is_zero_costs_nothing() -> None:
    plain_sgd = Optimizer.record_for([find_optimizer("sgd")])
    assert plain_sgd.rate_index == 0
    assert (plain_sgd.n_scalars, len(plain_sgd.record.assignments)) == (1, 2)
    assert Optimizer.record_for([find_optimizer("sgd", weight_decay=0.1)]).rate_index is None
    without = Optimizer.record_for([find_optimizer("adamw", weight_decay=0.0)])
    adam = Optimizer.record_for([find_optimizer("adam")])
    assert [line.op for line in without.record.assignments] == [line.op for line in adam.record.assignments]


@pytest.mark.parametrize("rate", [1e-3, np.float32(0.1)])
def test_the_corrections_of_adam_are_computed_in_float64_for_each_step(rate: float) -> None:
    optimizer = find_optimizer("adam")
    rule = Optimizer.record_for([optimizer])
    table = optimizer.scalars(rule, np.full(4, float(rate)), first_step=1000)
    assert table.shape == (4, rule.n_scalars)
    assert table.dtype == np.float64
    steps = np.arange(1000, 1004)
    expected = float(rate) / (1 - 0.9**steps)
    assert any(np.allclose(column, expected, rtol=1e-15, atol=0) for column in table.T)


def test_an_optimiser_says_its_settings() -> None:
    assert str(find_optimizer("momentum", momentum=0.8, weight_decay=0.01)) == "momentum (momentum 0.8, weight_decay 0.01)"
    assert str(OPTIMIZERS["sgd"]) == "sgd"


def test_a_setting_that_a_rule_does_not_have_is_refused_however_it_is_given() -> None:
    with pytest.raises(SettingError, match="'momentum' has no setting momentun; it has momentum, weight_decay"):
        Optimizer(OPTIMIZERS["momentum"].rule, (("momentun", 0.5),))
