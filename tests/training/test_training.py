"""Training: what it reaches, what it records, how it ends, and what it refuses."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mlp_accel import History, NonFiniteLossError, SettingError, evaluate, get_backend, init_params, mini_batch_sgd, network
from mlp_accel.activations import ACTIVATIONS
from mlp_accel.backends import BACKENDS, Backend, unavailable
from mlp_accel.backends.loop import to_backend
from mlp_accel.backends.threads import available_cores
from mlp_accel.datasets import Dataset
from mlp_accel.optimizers import find_optimizer
from mlp_accel.training.recipes import RECIPES
from mlp_accel.training.trainer import Trainer
from tests.conftest import require
from tests.reference import PoisonedArena

TOY = [6, 5, 3]


def toy(n: int = 50, seed: int = 0) -> tuple[Any, Any]:
    """Three separable clouds."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return rng.normal(size=(n, 6)) + 3 * np.eye(3, 6)[y], y


def sparse_pixels(n: int = 50, seed: int = 0) -> tuple[Any, Any]:
    """Images of which four fifths are black, and the brightest part tells the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.integers(1, 256, (n, 6)) * (rng.random((n, 6)) < 0.1)
    x[np.arange(n), 2 * y] = 255
    return x.astype(np.uint8), y


def bits(params: Any) -> list[bytes]:
    return [np.ascontiguousarray(a).tobytes() for pair in params for a in pair]


def test_the_default_recipe_reaches_96_percent_in_5_epochs(mnist: Dataset, backend_name: str) -> None:
    recipe = RECIPES["default"]
    assert (recipe.epochs, recipe.hidden, recipe.batch_size) == (5, (32,), 128)
    backend = get_backend(backend_name)
    params = recipe.initial_params(mnist.n_in, mnist.n_classes)
    history = mini_batch_sgd(mnist.x_train, mnist.y_train, params, backend=backend)
    _, accuracy = evaluate(backend, history.params, mnist.x_test, mnist.y_test, recipe.activation)
    assert accuracy >= 0.96


def test_the_defaults_of_mini_batch_sgd_are_those_of_the_default_recipe() -> None:
    recipe = asdict(RECIPES["default"])
    defaults = {name: parameter.default for name, parameter in inspect.signature(mini_batch_sgd).parameters.items()}
    shared = set(recipe) & set(defaults)
    assert len(shared) == 14
    assert {name: defaults[name] for name in shared} == {name: recipe[name] for name in shared}
    assert RECIPES["default"].to_dict()["learning_rate"] == find_optimizer("sgd").learning_rate == 0.5


def test_backends_follow_numpys_losses_for_three_epochs(mnist: Dataset, backend_name: str) -> None:
    losses = [
        mini_batch_sgd(mnist.x_train, mnist.y_train, init_params([784, 32, 10]), epochs=3, backend=name).loss
        for name in ("numpy", backend_name)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_every_backend_starts_from_the_same_bits_and_visits_samples_in_the_same_order() -> None:
    orders: list[list[bytes]] = []
    x, y = np.arange(300.0).reshape(50, 6), np.zeros(50, int)
    for name in BACKENDS:
        if unavailable(name) is not None:
            continue
        seen: list[bytes] = []

        def noted(backend: Backend, params: Any, slots: Any, x: Any, *rest: Any, seen: list[bytes] = seen) -> Any:
            seen.append(backend.to_numpy(x)[:, 0].tobytes())  # its first value tells the sample
            return network.train_step(backend, params, slots, x, *rest)

        trainer = Trainer(x, y, [init_params(TOY, seed=4)], get_backend(name), batch_size=8, seeds=[4], step=noted)
        assert bits(trainer.params()) == bits([(w.astype(np.float32), b.astype(np.float32)) for w, b in init_params(TOY, seed=4)])
        trainer.epoch()
        trainer.epoch()
        assert len(seen) == 14
        assert b"".join(seen[:7]) != b"".join(seen[7:])
        orders.append(seen)
    assert len(orders) >= 2
    for a, b in pairwise(orders):
        assert a == b


def test_the_order_of_the_samples_is_that_of_numpys_generator_for_the_seed() -> None:
    rows: list[float] = []

    def noted(backend: Backend, params: Any, slots: Any, x: Any, *rest: Any) -> Any:
        rows.extend(x[:, 0])
        return network.train_step(backend, params, slots, x, *rest)

    x = np.arange(50.0).repeat(6).reshape(50, 6)
    mini_batch_sgd(x, np.zeros(50, int), init_params(TOY), backend="numpy", epochs=2, batch_size=8, seed=3, step=noted)
    rng = np.random.default_rng([3, 1])
    np.testing.assert_array_equal(rows, np.concatenate([rng.permutation(50), rng.permutation(50)]))


def test_the_same_run_gives_the_same_bits(backend: Backend) -> None:
    x, y = toy()
    first, second = (mini_batch_sgd(x, y, init_params(TOY), backend=backend, epochs=3, batch_size=8) for _ in range(2))
    assert bits(first.params) == bits(second.params)
    assert first.loss == second.loss


@pytest.mark.skipif(available_cores() < 2, reason="one core: there is no second thread to compare with")
@pytest.mark.parametrize(
    ("activation", "optimizer"),
    [("tanh", "sgd"), ("relu", "momentum"), ("sigmoid", "adamw"), ("softplus", "nesterov"), ("gelu", "adam")],
)
@pytest.mark.parametrize("path", ["auto", "loop"])
@pytest.mark.parametrize("backend_name", ["numba"])
def test_numba_gives_the_same_bits_for_any_number_of_threads(
    mnist: Dataset, backend_name: str, dtype: str, path: str, activation: str, optimizer: str, request: pytest.FixtureRequest
) -> None:
    require(request, backend_name)
    runs = []
    for threads in (1, 2, 2):
        params = init_params([784, 40, 20, 10])
        x, y = mnist.x_train[:2100], mnist.y_train[:2100]
        backend = get_backend(backend_name, dtype)
        settings: dict[str, Any] = {"activation": activation, "optimizer": optimizer, "path": path}
        runs.append(mini_batch_sgd(x, y, params, epochs=2, backend=backend, threads=threads, **settings))
    assert bits(runs[0].params) == bits(runs[1].params) == bits(runs[2].params)
    assert runs[0].loss == runs[1].loss == runs[2].loss


@pytest.mark.parametrize("data", [toy, sparse_pixels])
def test_the_short_last_batch_is_used(backend: Backend, data: Any) -> None:
    x, y = data(n=21)
    trainer = Trainer(x, y, [init_params(TOY)], backend, batch_size=8, learning_rates=[0.1], shuffle=False)
    epoch = trainer.epoch()
    assert np.isfinite(epoch.losses[0])
    params = to_backend(backend, init_params(TOY))
    slots: list[Any] = [[], []]
    (rate,) = backend.scalar_rows(np.array([[0.1]]))
    for rows in (np.arange(8), np.arange(8, 16), np.arange(16, 21)):
        part = backend.minibatch(trainer.x, trainer.y, backend.asarray(rows))
        params, slots, _, _ = network.train_step(backend, params, slots, *part, trainer.task, rate)
    for (w, b), (v, c) in zip(trainer.params(), params, strict=True):
        np.testing.assert_allclose(w, backend.to_numpy(v), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, backend.to_numpy(c), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("data", [toy, sparse_pixels])
def test_the_path_that_a_backend_takes_is_the_shared_loop(backend: Backend, data: Any) -> None:
    x, y = data(n=45)
    taken, loop = (
        mini_batch_sgd(x, y, init_params(TOY), backend=backend, epochs=3, batch_size=8, path=path) for path in ("auto", "loop")
    )
    assert loop.path == "loop"
    np.testing.assert_allclose(taken.loss, loop.loss, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_reused_memory_full_of_nan_changes_nothing(backend: Backend, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = toy(n=20)
    histories = []
    for poisoned in (False, True):
        if poisoned:
            monkeypatch.setattr("mlp_accel.backends.loop.Arena", PoisonedArena)
        history = mini_batch_sgd(x, y, init_params(TOY), backend=backend, epochs=2, batch_size=8, optimizer=optimizer, path="loop")
        histories.append((history.loss, history.accuracy, bits(history.params)))
    assert histories[0] == histories[1]


def test_the_history_is_the_mean_over_the_samples(backend64: Backend) -> None:
    x, y = toy(n=20)
    tiny = mini_batch_sgd(x, y, init_params(TOY), backend=backend64, epochs=1, batch_size=8, learning_rate=1e-12)
    loss, accuracy = evaluate(backend64, init_params(TOY), x, y, "tanh")
    assert tiny.loss[0] == pytest.approx(loss, rel=1e-9)
    assert tiny.accuracy[0] == pytest.approx(accuracy)


def test_the_notebooks_average_has_a_divisor_one_too_small(backend64: Backend) -> None:
    x, y = toy(n=20)
    settings: dict[str, Any] = {"backend": backend64, "epochs": 1, "batch_size": 8, "learning_rate": 1e-12}
    order = np.random.default_rng([0, 1]).permutation(20)
    means = []
    for rows in np.split(order, [8, 16]):
        loss, _ = evaluate(backend64, init_params(TOY), x[rows], y[rows], "tanh")
        means.append(loss)
    notebook = mini_batch_sgd(x, y, init_params(TOY), loss_average="notebook", **settings)
    assert notebook.loss[0] == pytest.approx(sum(means) / (20 // 8), rel=1e-9)


def test_callbacks_see_every_epoch_and_may_end_the_training() -> None:
    x, y = toy()
    seen: list[int] = []
    history = mini_batch_sgd(
        x, y, init_params(TOY), backend="numpy", epochs=9, callbacks=[lambda h: seen.append(len(h)), lambda h: len(h) == 3]
    )
    assert seen == [1, 2, 3]
    assert len(history) == 3


def test_ctrl_c_returns_what_was_reached(backend_name: str) -> None:
    x, y = toy()

    def press_ctrl_c(history: History) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt

    history = mini_batch_sgd(x, y, init_params(TOY), backend=backend_name, epochs=9, callbacks=[press_ctrl_c])
    two = mini_batch_sgd(x, y, init_params(TOY), backend=backend_name, epochs=2)
    assert history.interrupted
    assert history.loss == two.loss
    assert bits(history.params) == bits(two.params)


def test_ctrl_c_in_the_middle_of_an_epoch_keeps_the_parameters_of_the_last_whole_one(
    backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = toy()
    backend = get_backend(backend_name)
    steps = 0
    original = backend.update

    def interrupted(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 2 * 7 + 6:  # 2 layers, 7 minibatches an epoch: in the second epoch, between the two layers of a step
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(backend, "update", interrupted)
    settings: dict[str, Any] = {"batch_size": 8, "path": "loop", "optimizer": "momentum"}
    history = mini_batch_sgd(x, y, init_params(TOY), backend=backend, epochs=9, **settings)
    one = mini_batch_sgd(x, y, init_params(TOY), backend=backend_name, epochs=1, **settings)
    assert (len(history), history.interrupted, history.status) == (1, True, "interrupted")
    assert bits(history.params) == bits(one.params)


def test_ctrl_c_while_an_epoch_is_written_down_leaves_columns_and_parameters_of_one_epoch(
    backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = toy()
    written: list[Any] = []

    def interrupted(history: History, name: str, value: Any) -> None:
        if name == "params":
            written.append(value)
            if len(written) == 3:  # those before the training, and after each epoch
                raise KeyboardInterrupt
        object.__setattr__(history, name, value)

    monkeypatch.setattr(History, "__setattr__", interrupted)
    history = mini_batch_sgd(x, y, init_params(TOY), backend=backend_name, epochs=9)
    monkeypatch.undo()
    one = mini_batch_sgd(x, y, init_params(TOY), backend=backend_name, epochs=1)
    assert (history.interrupted, history.loss) == (True, one.loss)
    assert len(history.accuracy) == len(history.seconds) == 1
    assert bits(history.params) == bits(one.params)


@pytest.mark.parametrize(
    "shapes", [[(5, 4), (3,), (4, 3), (3,)], [(5, 4), (4,), (1, 3), (3,)], [(5, 4), (4,), (4, 3), (7,)], [(5,), (5,)], []]
)
def test_parameters_that_do_not_fit_together_are_refused(backend_name: str, shapes: list[tuple[int, ...]]) -> None:
    x, y = np.zeros((6, 5), np.uint8), np.zeros(6, int)
    arrays = [np.zeros(shape) for shape in shapes]
    params = list(zip(arrays[::2], arrays[1::2], strict=True))
    with pytest.raises(ValueError, match="layer"):
        mini_batch_sgd(x, y, params, backend=backend_name)
    with pytest.raises(ValueError, match="layer"):
        evaluate(get_backend(backend_name), params, x, y, "tanh")


@pytest.mark.parametrize("data", [toy, sparse_pixels])
@pytest.mark.parametrize("path", ["auto", "loop"])
def test_labels_that_their_owner_changes_during_the_training_have_no_effect(backend_name: str, path: str, data: Any) -> None:
    x, y = data(30)
    settings: dict[str, Any] = {"backend": backend_name, "epochs": 3, "batch_size": 8, "path": path}
    expected = mini_batch_sgd(x, y.copy(), init_params(TOY), **settings)

    def change(_: History) -> None:
        y[:] = 10**9

    history = mini_batch_sgd(x, y, init_params(TOY), callbacks=[change], **settings)
    assert (history.loss, bits(history.params)) == (expected.loss, bits(expected.params))


@pytest.mark.parametrize("data", [toy, sparse_pixels])
@pytest.mark.parametrize("kind", ["big-endian", "int32", "uint8", "read-only", "Fortran order", "strided"])
def test_labels_and_inputs_of_any_kind_train_the_same(backend_name: str, kind: str, data: Any) -> None:
    x, y = data(30)
    x = x.astype(np.float32) if x.dtype != np.uint8 else x

    def changed(a: Any) -> Any:
        if kind == "big-endian":
            return a.astype(a.dtype.newbyteorder(">"))
        if kind in ("int32", "uint8"):
            return a.astype(kind) if a is y else a
        if kind == "Fortran order":
            return np.asfortranarray(a)
        if kind == "strided":
            return np.repeat(a, 2, axis=0)[::2]
        a = a.copy()
        a.flags.writeable = False
        return a

    params = init_params(TOY)
    for path in ("auto", "loop"):
        settings: dict[str, Any] = {"backend": backend_name, "epochs": 2, "batch_size": 8, "path": path}
        expected = mini_batch_sgd(x, y, params, **settings)
        given = [(changed(w), changed(b)) for w, b in params]
        history = mini_batch_sgd(changed(x), changed(y), given, **settings)
        assert (history.loss, bits(history.params)) == (expected.loss, bits(expected.params))
        assert evaluate(backend_name, given, changed(x), changed(y), "tanh") == evaluate(backend_name, params, x, y, "tanh")


@pytest.mark.filterwarnings("error")
def test_a_loss_that_is_not_finite_stops_with_epoch_and_learning_rate(backend_name: str) -> None:
    x, y = toy()
    with pytest.raises(NonFiniteLossError, match=r"the loss is (nan|inf) in epoch \d+ at learning rate 1e\+30") as info:
        mini_batch_sgd(x, y, init_params(TOY), backend=backend_name, epochs=9, learning_rate=1e30, activation="relu")
    assert all(np.isfinite(info.value.history.loss))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "number of epochs must be at least 1; got 0"),
        ({"batch_size": 0}, "batch size must be at least 1; got 0"),
        ({"learning_rate": float("nan")}, "learning rate must be a positive number; got nan"),
        ({"learning_rate": -1}, "learning rate must be a positive number; got -1"),
        ({"activation": "swish"}, "unknown activation 'swish'"),
        ({"gradient": "right"}, "unknown gradient 'right'"),
        ({"loss_average": "median"}, "unknown loss average 'median'"),
        ({"threads": 0}, "0 from the argument threads"),
        ({"threads": 1.9}, "1.9 from the argument threads"),
        ({"momentum": 0.9}, "'sgd' has no setting momentum"),
        ({"path": "sparce"}, "the backend numpy has no path 'sparce'; choose one of auto, loop"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mini_batch_sgd(*toy(), init_params(TOY), backend="numpy", **settings)


def test_the_default_rate_of_the_notebooks_gradient_which_is_a_sum_is_small() -> None:
    x, y = toy()
    settings: dict[str, Any] = {"gradient": "notebook", "backend": "numpy", "epochs": 2}
    default = mini_batch_sgd(x, y, init_params(TOY), **settings)
    assert default.loss == mini_batch_sgd(x, y, init_params(TOY), learning_rate=0.01, **settings).loss


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 6)), np.zeros(3, int), "one label for each of the 4 samples"),
        (np.zeros((0, 6)), np.zeros(0, int), "at least one"),
        (np.zeros((4, 6)), np.zeros(4), "y must be integer labels; its dtype is float64"),
        (np.zeros((4, 6)), np.array([0, 1, 2, 3]), "labels from 0 to 3; the network knows 0 to 2"),
        (np.zeros((4, 6)), np.array([0, -1, 2, 1]), "labels from -1 to 2"),
        (np.zeros((4, 5)), np.zeros(4, int), r"x must have shape \(n, 6\)"),
        (np.zeros((4, 2, 3)), np.zeros(4, int), r"x must have shape \(n, 6\)"),
    ],
)
def test_data_that_do_not_fit_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mini_batch_sgd(x, y, init_params(TOY), backend="numpy")


def test_a_batch_larger_than_the_data_is_all_the_data(backend: Backend) -> None:
    x, y = toy(n=10)
    for average in ("samples", "notebook"):
        a, b = (
            mini_batch_sgd(x, y, init_params(TOY), backend=backend, epochs=2, batch_size=size, loss_average=average)
            for size in (10, 999)
        )
        assert a.loss == b.loss


def test_the_history_exports_to_json() -> None:
    history = mini_batch_sgd(*toy(), init_params(TOY), backend="numpy", epochs=2)
    content = json.loads(history.to_json())
    assert (content["backend"], content["path"], content["passed_over"]) == ("numpy", "loop", [])
    assert (content["status"], content["reason"], content["interrupted"]) == ("done", None, False)
    assert [row["epoch"] for row in content["history"]] == [1, 2]
    assert content["history"][1] == {
        "epoch": 2,
        "loss": history.loss[1],
        "accuracy": history.accuracy[1],
        "seconds": history.seconds[1],
    }
    assert all(seconds > 0 for seconds in history.seconds)


def test_evaluate_does_not_depend_on_its_batches(backend: Backend) -> None:
    x, y = toy(n=50)
    results = [evaluate(backend, init_params(TOY), x, y, "tanh", batch_size=size) for size in (1, 7, 50, 1000)]
    for loss, accuracy in results:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert accuracy == results[0][1]


def test_evaluate_takes_the_name_of_a_backend_or_chooses_one(backend_name: str) -> None:
    x, y = toy()
    expected = evaluate(get_backend("numpy", "float64"), init_params(TOY), x, y, "relu")
    for backend in (backend_name, None):
        loss, accuracy = evaluate(backend, init_params(TOY), x, y, "relu")
        assert loss == pytest.approx(expected[0], rel=1e-5)
        assert accuracy == expected[1]


def test_evaluate_must_be_told_the_activation() -> None:
    assert inspect.signature(evaluate).parameters["activation"].default is inspect.Parameter.empty
    x, y = toy()
    with pytest.raises(TypeError, match="activation"):
        evaluate("numpy", init_params(TOY), x, y)  # type: ignore[call-arg]
    losses = {evaluate("numpy", init_params(TOY), x, y, activation)[0] for activation in ACTIVATIONS}
    assert len(losses) == len(ACTIVATIONS)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_evaluate_refuses_a_batch_size_below_1(batch_size: int) -> None:
    with pytest.raises(SettingError, match=f"the batch size must be at least 1; got {batch_size}"):
        evaluate("numpy", init_params(TOY), *toy(), "tanh", batch_size=batch_size)


def test_evaluate_changes_nothing_that_it_is_given(backend: Backend) -> None:
    x, y = toy()
    x, params = x.astype(backend.dtype), [(w.astype(backend.dtype), b.astype(backend.dtype)) for w, b in init_params(TOY)]
    one_layer = [(np.eye(6, dtype=backend.dtype), np.zeros(6, backend.dtype))]  # whose logits are made of the inputs alone
    before = [a.copy() for a in (x, y)], bits(params), bits(one_layer)
    evaluate(backend, params, x, y, "softplus")
    evaluate(backend, one_layer, x, y, "tanh")
    np.testing.assert_array_equal(x, before[0][0])
    np.testing.assert_array_equal(y, before[0][1])
    assert (bits(params), bits(one_layer)) == before[1:]


@pytest.mark.parametrize("data", [toy, sparse_pixels])
def test_training_changes_nothing_that_it_is_given(backend: Backend, data: Any) -> None:
    x, y = data()
    x, y = x.astype(backend.dtype) if x.dtype != np.uint8 else x, y.astype(np.int64)
    params = [(w.astype(backend.dtype), b.astype(backend.dtype)) for w, b in init_params(TOY)]
    before = x.copy(), y.copy(), bits(params)
    for path in ("auto", "loop"):
        mini_batch_sgd(x, y, params, backend=backend, epochs=2, batch_size=8, optimizer="adam", path=path)
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(y, before[1])
        assert bits(params) == before[2]


def test_what_a_history_holds_is_left_alone_by_later_epochs(backend: Backend) -> None:
    x, y = toy()
    seen: list[tuple[Any, list[bytes]]] = []

    def note(history: History) -> None:
        seen.append((history.params, bits(history.params)))

    mini_batch_sgd(x, y, init_params(TOY), backend=backend, epochs=4, batch_size=8, callbacks=[note])
    assert len({tuple(copy) for _, copy in seen}) == 4
    for params, copy in seen:
        assert bits(params) == copy


def test_a_last_update_that_makes_parameters_infinite_is_seen(backend_name: str) -> None:
    x, y = toy()
    with pytest.raises(NonFiniteLossError, match=r"a parameter became infinite or NaN in epoch 1 at learning rate 1e\+39"):
        mini_batch_sgd(x, y, init_params(TOY), backend=backend_name, epochs=1, batch_size=len(x), learning_rate=1e39)
