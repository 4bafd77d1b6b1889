"""Paths: which one is taken and what is said about it, and that each trains what the loop trains."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from mlp_accel import Activation, Optimizer, PathError, SettingError, get_backend, init_params, mini_batch_sgd, network, train_many
from mlp_accel.activations import BUILT_IN
from mlp_accel.backends import BACKENDS, GRADIENTS, Backend, backend_class
from mlp_accel.backends.loop import LoopPath
from mlp_accel.backends.numpy.backend import NumpyBackend
from mlp_accel.backends.paths import EpochPath, PathRun, State, Taken, Task, requested_path, start_path
from mlp_accel.elementwise import exp, log1p, maximum, tanh, where
from mlp_accel.optimizers import OPTIMIZERS, find_optimizer
from mlp_accel.training.trainer import Trainer, density
from tests.conftest import require
from tests.tolerances import assert_close

LAYERS, N, BATCH = [30, 7, 6, 4], 24, 24


def pixels(n: int = N, n_in: int = LAYERS[0], seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images of which four fifths are black; one sample is all black."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 256, (n, n_in)) * (rng.random((n, n_in)) < 0.2)
    x[n // 2] = 0
    return x.astype(np.uint8), rng.integers(0, LAYERS[-1], n)


# What is asked for ------------------------------------------------------------------------------------------------------------


def test_the_argument_goes_before_the_environment_and_that_before_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    assert requested_path() == ("auto", "default")
    monkeypatch.setenv("MLP_ACCEL_PATH", "sparse")
    assert requested_path() == ("sparse", "the environment variable MLP_ACCEL_PATH")
    assert requested_path("loop") == ("loop", "")
    assert requested_path("loop", "the option --path") == ("loop", "the option --path")


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_means_unset(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    monkeypatch.setenv("MLP_ACCEL_PATH", empty)
    assert requested_path() == ("auto", "default")


@pytest.mark.parametrize(("former", "now"), [("cluster:4", "cluster:4"), ("ops", "loop")])
def test_the_variable_that_is_gone_says_what_has_taken_its_place(monkeypatch: pytest.MonkeyPatch, former: str, now: str) -> None:
    monkeypatch.setenv("MLP_ACCEL_CUPY_PATH", former)
    x, y = pixels()
    with pytest.raises(SettingError, match=f"^MLP_ACCEL_CUPY_PATH is gone; set MLP_ACCEL_PATH={now} instead$"):
        mini_batch_sgd(x, y, init_params(LAYERS), backend="numpy")


def test_an_unknown_path_is_an_error_that_names_value_source_and_choices(
    backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = pixels()
    choices = ", ".join(("auto", *(path.name for path in get_backend(backend_name).paths), "loop"))
    message = f"the backend {backend_name} has no path 'sparce'; choose one of {choices}"
    with pytest.raises(SettingError, match=message):
        mini_batch_sgd(x, y, init_params(LAYERS), backend=backend_name, path="sparce")
    monkeypatch.setenv("MLP_ACCEL_PATH", "sparce")
    with pytest.raises(SettingError, match="'sparce', asked for by the environment variable MLP_ACCEL_PATH; choose one of auto"):
        mini_batch_sgd(x, y, init_params(LAYERS), backend=backend_name)


def test_the_environment_is_read_at_the_call(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pixels()
    monkeypatch.setenv("MLP_ACCEL_PATH", "loop")
    history = mini_batch_sgd(x, y, init_params(LAYERS), backend=backend_name, epochs=1)
    assert (history.path, history.passed_over) == ("loop", [])


# Which one is taken -----------------------------------------------------------------------------------------------------------


class Fake(EpochPath):
    """A path that is the loop under another name, or refuses."""

    def __init__(self, name: str, backend: Backend, refuses: str | None = None, fails: str | None = None) -> None:
        self.name = name  # type: ignore[misc]
        self.backend, self.refuses, self.fails = backend, refuses, fails
        self.started = 0

    def why_not(self, task: Task) -> str | None:
        return self.refuses

    def start(self, task: Task, states: Sequence[State], x: Any, y: Any) -> PathRun:
        self.started += 1
        if self.fails is not None:
            raise PathError(self.fails)
        return LoopPath(self.backend).start(task, states, x, y)


class ManyPaths(NumpyBackend):
    """A backend with the paths that a test gives it."""

    given: ClassVar[list[EpochPath]] = []

    @property
    def paths(self) -> Sequence[EpochPath]:
        return self.given


@pytest.fixture
def many_paths(monkeypatch: pytest.MonkeyPatch) -> ManyPaths:
    backend = ManyPaths("float64")
    paths = [Fake("first", backend, refuses="it is too wide"), Fake("second", backend, fails="no memory"), Fake("third", backend)]
    monkeypatch.setattr(ManyPaths, "given", paths)
    return backend


def train(backend: Backend, **settings: Any) -> Any:
    return mini_batch_sgd(*pixels(), init_params(LAYERS), backend=backend, epochs=1, batch_size=10, **settings)


def test_the_first_path_that_can_is_taken_and_the_history_says_why_not_those_before(
    many_paths: ManyPaths, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mlp_accel"):
        history = train(many_paths)
    assert history.path == "third"
    assert history.passed_over == [("first", "it is too wide"), ("second", "no memory")]
    assert history.to_dict()["passed_over"] == [["first", "it is too wide"], ["second", "no memory"]]
    assert "30-7-6-4 at batch size 10 trains by third; not first: it is too wide; not second: no memory" in caplog.text


def test_a_path_that_fails_at_its_start_is_a_warning_in_the_log(many_paths: ManyPaths, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mlp_accel"):
        train(many_paths)
    assert "the path second is not taken: no memory" in caplog.text


@pytest.mark.parametrize(("path", "reason"), [("first", "it is too wide"), ("second", "no memory")])
def test_a_path_that_was_asked_for_is_taken_or_an_error(many_paths: ManyPaths, path: str, reason: str) -> None:
    with pytest.raises(PathError, match=f"the path '{path}' cannot be taken for 30-7-6-4.*: {reason}"):
        train(many_paths, path=path)
    assert train(many_paths, path="third").passed_over == []


def test_the_message_names_the_variable_where_the_path_comes_from_it(
    many_paths: ManyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLP_ACCEL_PATH", "first")
    message = "^the path 'first', asked for by the environment variable MLP_ACCEL_PATH, cannot be taken for .*: it is too wide$"
    with pytest.raises(PathError, match=message):
        train(many_paths)


def test_the_loop_is_the_last_path_of_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ManyPaths("float64")
    monkeypatch.setattr(ManyPaths, "given", [Fake("only", backend, refuses="never")])
    history = train(backend)
    assert (history.path, history.passed_over) == ("loop", [("only", "never")])


def test_a_step_of_the_users_own_runs_in_the_loop_which_says_so(many_paths: ManyPaths) -> None:
    def own(*arguments: Any) -> Any:
        return network.train_step(*arguments)

    history = train(many_paths, step=own)
    assert history.path == "loop"
    reason = "a step of your own runs in the loop"
    assert history.passed_over == [(name, reason) for name in ("first", "second", "third")]
    assert all(path.started == 0 for path in many_paths.given if isinstance(path, Fake))
    with pytest.raises(PathError, match=f"^the path 'third' cannot be taken for .*: {reason}$"):
        train(many_paths, step=own, path="third")


def test_a_step_that_decays_the_weights_does_so_on_every_backend(backend64: Backend) -> None:
    x, y = pixels()

    def decays(backend: Backend, params: Any, slots: Any, *rest: Any) -> Any:
        return network.train_step(backend, [(0.5 * w, b) for w, b in params], slots, *rest)

    plain, own = (
        mini_batch_sgd(x, y, init_params(LAYERS), backend=backend64, batch_size=8, learning_rate=1e-9, epochs=2, step=step)
        for step in (None, decays)
    )
    assert own.path == "loop"
    np.testing.assert_allclose(own.params[0][0], plain.params[0][0] * 0.5**6, rtol=1e-6, atol=1e-9)


def test_each_of_several_networks_knows_its_path(many_paths: ManyPaths) -> None:
    x, y = pixels()
    histories = train_many(x, y, [init_params(LAYERS)] * 2, backend=many_paths, epochs=1, weight_decay=[0.0, 0.1])
    assert [history.path for history in histories] == ["third"] * 2
    assert [history.passed_over for history in histories] == [[("first", "it is too wide"), ("second", "no memory")]] * 2


def test_what_was_taken_reads_as_a_sentence() -> None:
    assert str(Taken("loop")) == "loop"
    assert (
        str(Taken("loop", (("sparse", "too dense"), ("dense", "too wide")))) == "loop; not sparse: too dense; not dense: too wide"
    )


def test_a_task_tells_all_that_the_choice_depends_on() -> None:
    x, y = pixels()
    settings: dict[str, Any] = {"batch_size": 99, "optimizers": find_optimizer("adam"), "learning_rates": 0.1}
    trainer = Trainer(x, y, [init_params(LAYERS)] * 3, get_backend("numpy"), **settings)
    task = trainer.task
    assert (task.layer_sizes, task.batch_size, task.dtype, task.data) == (tuple(LAYERS), N, "float32", "uint8")
    assert task.density == pytest.approx(np.count_nonzero(x) / x.size)
    assert (task.activation, task.gradient, task.networks, task.own_step) == (BUILT_IN["tanh"], "exact", 3, False)
    assert (task.rule.n_slots, str(task)) == (2, "30-7-6-4 at batch size 24")
    assert Trainer(x / 255, y, [init_params(LAYERS)], get_backend("numpy", "float64")).task.data == "float64"


def test_the_density_of_pixels_is_looked_up_in_samples_from_all_over() -> None:
    x = np.zeros((5000, 10), np.uint8)
    assert density(x) == 0.0
    x[2500:] = 1
    assert density(x) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_names_of_its_paths_are_known_without_a_device(name: str) -> None:
    names = backend_class(name).path_names
    assert len(set(names)) == len(names)
    assert not {"auto", "loop"} & set(names)


def test_the_names_that_are_known_are_those_of_the_paths(backend_name: str) -> None:
    backend = get_backend(backend_name)
    assert tuple(path.name for path in backend.paths) == backend.path_names
    for path in backend.paths:
        found = backend.path_named(path.name)
        assert found is not None
        assert found.name == path.name
    assert backend.path_named("loop") is None


# One step from common parameters and slots ------------------------------------------------------------------------------------


def _softplus(z: Any) -> Any:
    return maximum(z, 0.0) + log1p(exp(-abs(z)))


def mish(z: Any) -> Any:
    return z * tanh(_softplus(z))


def mish_slope(z: Any) -> Any:
    t, e = tanh(_softplus(z)), exp(-abs(z))
    return t + z * (where(z >= 0, 1.0, e) / (1.0 + e)) * (1.0 - t * t)


def odd(p: Any, g: Any, a: Any, b: Any, rate: Any = 0.1, step: Any = 1.0, beta: Any = 0.5, weight_decay: Any = 0.0) -> Any:
    """A rule like none that is built in: its slots change places, and it clips."""
    g = maximum(minimum_of(g, 0.5), -0.5) + weight_decay * p
    return p - (rate / (1.0 + beta**step)) * (g + beta * a) / (1.0 + abs(b)), b + g, a


def minimum_of(a: Any, b: Any) -> Any:
    return -maximum(-a, -b)


KINDS = [*BUILT_IN.values(), Activation(mish, mish_slope, of_input=True), Activation(lambda z: 0.5 * z, lambda a: 0.5, name="half")]
RULES = [*OPTIMIZERS.values(), find_optimizer("momentum", weight_decay=0.1), Optimizer(odd), find_optimizer(odd, weight_decay=0.1)]
CPU_PATHS = [(name, path) for name in BACKENDS if name != "cupy" for path in backend_class(name).path_names]


@pytest.fixture(params=CPU_PATHS, ids="-".join)
def cpu_path(request: pytest.FixtureRequest) -> tuple[Backend, EpochPath]:
    """Every path of every backend for the CPU, in float64."""
    name, path_name = request.param
    require(request, name)
    backend = get_backend(name, "float64")
    path = backend.path_named(path_name)
    assert path is not None
    return backend, path


def common_state(n_slots: int, seed: int, layers: list[int] = LAYERS) -> State:
    """Parameters and slots of which none is zero; the slots are positive, since Adam takes the root of one."""
    rng = np.random.default_rng(seed)
    params = [(w, 0.3 * rng.normal(size=b.shape)) for w, b in init_params(layers, seed)]
    slots = [[(0.1 + rng.random(w.shape), 0.1 + rng.random(b.shape)) for _ in range(n_slots)] for w, b in params]
    return State(params, slots)


def a_task(activation: Activation, gradient: str, optimizer: Optimizer, networks: int = 1, layers: list[int] = LAYERS) -> Task:
    rule = Optimizer.record_for([optimizer])
    return Task(tuple(layers), BATCH, "float64", "uint8", 0.2, activation, gradient, rule, networks)


def copies(states: Sequence[State]) -> list[State]:
    def pairs(params: Any) -> Any:
        return [(w.copy(), b.copy()) for w, b in params]

    return [State(pairs(state.params), [pairs(slots) for slots in state.slots]) for state in states]


def assert_agree(backend: Backend, path: EpochPath, task: Task, states: list[State], scalars: Any, n: int, epochs: int = 1) -> None:
    """Train by the path and by the loop, and compare all that comes out."""
    assert path.why_not(task) is None
    x, y = pixels(n, task.layer_sizes[0])
    rng = np.random.default_rng(9)
    runs = [kind.start(task, copies(states), backend.asarray(x), backend.asarray(y)) for kind in (path, LoopPath(backend))]
    for epoch in range(epochs):
        orders = np.stack([rng.permutation(n) for _ in states])
        (losses, hits), (right_losses, right_hits) = (run.epoch(orders, scalars[epoch]) for run in runs)
        assert_close("path", "float64", backend.to_numpy(losses), backend.to_numpy(right_losses))
        np.testing.assert_array_equal(backend.to_numpy(hits), backend.to_numpy(right_hits))
    for ours, theirs in zip(runs[0].states(), runs[1].states(), strict=True):
        for a, b in zip(ours.params, theirs.params, strict=True):
            for own, right in zip(a, b, strict=True):
                assert_close("path", "float64", own, right)
        for own_slots, right_slots in zip(ours.slots, theirs.slots, strict=True):
            assert len(own_slots) == len(right_slots) == task.rule.n_slots
            for a, b in zip(own_slots, right_slots, strict=True):
                for own, right in zip(a, b, strict=True):
                    assert_close("path", "float64", own, right)


@pytest.mark.parametrize("activation", KINDS, ids=str)
def test_a_step_by_a_path_is_a_step_of_the_loop(cpu_path: tuple[Backend, EpochPath], activation: Activation) -> None:
    backend, path = cpu_path
    for number, optimizer in enumerate(RULES):
        gradient = GRADIENTS[(number + KINDS.index(activation)) % 2]  # each with each activation and each rule
        task = a_task(activation, gradient, optimizer)
        scalars = optimizer.scalars(task.rule, np.array([0.25]), first_step=3)[None, None]
        assert_agree(backend, path, task, [common_state(task.rule.n_slots, number)], scalars, n=N)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("optimizer", RULES, ids=str)
def test_epochs_by_a_path_are_epochs_of_the_loop_for_several_networks_and_a_short_minibatch(
    cpu_path: tuple[Backend, EpochPath], optimizer: Optimizer, gradient: str
) -> None:
    backend, path = cpu_path
    for layers in (LAYERS, [33, 4]):
        task = a_task(BUILT_IN["sigmoid"], gradient, optimizer, networks=3, layers=layers)
        states = [common_state(task.rule.n_slots, seed, layers) for seed in range(3)]
        rates = np.array([0.1, 0.05, 0.02])
        scalars = [
            np.stack([optimizer.scalars(task.rule, rate * np.linspace(1, 0.1, 3), 1 + 3 * epoch) for rate in rates])
            for epoch in range(2)
        ]
        assert_agree(backend, path, task, states, scalars, n=2 * BATCH + 7, epochs=2)


def test_a_path_changes_neither_what_it_is_given_nor_what_it_has_returned(cpu_path: tuple[Backend, EpochPath]) -> None:
    backend, path = cpu_path
    optimizer = OPTIMIZERS["adam"]
    for kind in (path, LoopPath(backend)):
        task = a_task(BUILT_IN["tanh"], "exact", optimizer)
        given = [common_state(2, 1)]
        x, y = pixels()
        before, own_x, own_y = copies(given), x.copy(), y.copy()
        run = kind.start(task, given, backend.asarray(x), backend.asarray(y))
        scalars = optimizer.scalars(task.rule, np.array([0.25]), 1)[None]
        order = np.arange(N)[None]
        run.epoch(order, scalars)
        first = run.states()
        kept = copies(first)
        run.epoch(order, scalars)
        for states, old in ((given, before), (first, kept)):
            for (w, b), (v, c) in zip(states[0].params, old[0].params, strict=True):
                np.testing.assert_array_equal(w, v)
                np.testing.assert_array_equal(b, c)
            for slots, old_slots in zip(states[0].slots, old[0].slots, strict=True):
                for pair, old_pair in zip(slots, old_slots, strict=True):
                    for a, c in zip(pair, old_pair, strict=True):
                        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(x, own_x)
        np.testing.assert_array_equal(y, own_y)


def test_a_path_trains_the_networks_that_are_kept_as_if_there_had_been_no_others(cpu_path: tuple[Backend, EpochPath]) -> None:
    backend, path = cpu_path
    optimizer = OPTIMIZERS["momentum"]
    task = a_task(BUILT_IN["tanh"], "exact", optimizer, networks=3)
    states = [common_state(1, seed) for seed in range(3)]
    x, y = (backend.asarray(a) for a in pixels())
    scalars = np.stack([optimizer.scalars(task.rule, np.array([rate]), 1) for rate in (0.1, 0.2, 0.3)])
    orders = np.stack([np.random.default_rng(seed).permutation(N) for seed in range(3)])
    for kind in (path, LoopPath(backend)):
        together = kind.start(task, states, x, y)
        together.epoch(orders, scalars)
        together.keep([0, 2])
        together.epoch(orders[[0, 2]], scalars[[0, 2]])
        together.keep([1])
        losses, _ = together.epoch(orders[[2]], scalars[[2]])
        alone = kind.start(a_task(BUILT_IN["tanh"], "exact", optimizer), states[2:], x, y)
        for _ in range(3):
            own, _ = alone.epoch(orders[[2]], scalars[[2]])
        np.testing.assert_array_equal(losses, own)
        for (w, b), (v, c) in zip(together.states()[0].params, alone.states()[0].params, strict=True):
            np.testing.assert_array_equal(w, v)
            np.testing.assert_array_equal(b, c)


@pytest.mark.parametrize("sample", [N, -1, 10**9])
def test_an_order_with_a_sample_that_there_is_not_is_refused_and_trains_nothing(
    cpu_path: tuple[Backend, EpochPath], sample: int
) -> None:
    backend, path = cpu_path
    optimizer = OPTIMIZERS["sgd"]
    task, states = a_task(BUILT_IN["tanh"], "exact", optimizer), [common_state(0, 1)]
    x, y = (backend.asarray(a) for a in pixels())
    order = np.random.default_rng(0).permutation(N)
    order[N // 2] = sample
    for kind in (path, LoopPath(backend)):
        run = kind.start(task, copies(states), x, y)
        with pytest.raises(IndexError, match=rf"numbers of the {N} samples"):
            run.epoch(order[None], optimizer.scalars(task.rule, np.array([0.1]), 1)[None])
        for (w, b), (v, c) in zip(run.states()[0].params, states[0].params, strict=True):
            np.testing.assert_array_equal(w, v)
            np.testing.assert_array_equal(b, c)


def test_what_a_path_does_not_know_is_a_reason_and_the_loop_trains_it(cpu_path: tuple[Backend, EpochPath]) -> None:
    backend, _ = cpu_path
    x, y = pixels()
    for data in (x, x / 255.0 + 0.1):
        history = mini_batch_sgd(data, y, init_params(LAYERS), backend=backend, epochs=1, activation=KINDS[-2], optimizer=odd)
        own = [own.name for own in backend.paths]
        assert history.path in (*own, "loop")
        assert [name for name, _ in history.passed_over] == own[: (*own, "loop").index(history.path)]
        assert all(reason for _, reason in history.passed_over)


def test_start_path_is_what_the_trainer_uses(many_paths: ManyPaths) -> None:
    x, y = pixels()
    task = a_task(BUILT_IN["tanh"], "exact", OPTIMIZERS["sgd"])
    run, taken = start_path(many_paths, LoopPath(many_paths), task, [common_state(0, 1)], x, y, ("auto", "default"))
    assert isinstance(run, PathRun)
    assert taken.name == "third"
