"""Training: what it reaches, what it records, how it ends, and what it refuses."""

from __future__ import annotations

import inspect
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mlp_accel import History, NonFiniteLossError, evaluate, get_backend, init_params, mini_batch_sgd
from mlp_accel.backends import BACKENDS, Backend, unavailable
from mlp_accel.datasets import Dataset
from mlp_accel.recipes import RECIPES
from mlp_accel.threads import available_cores
from mlp_accel.training import SGDStep, Trainer
from mlp_accel.workspace import Workspace

TOY = [6, 5, 3]


def toy(n: int = 50, seed: int = 0) -> tuple[Any, Any]:
    """Three separable clouds."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return rng.normal(size=(n, 6)) + 3 * np.eye(3, 6)[y], y


class SpyStep(SGDStep):
    """Notes the samples of each step."""

    def __init__(self, seen: list[bytes], learning_rate: float) -> None:
        super().__init__(learning_rate)
        object.__setattr__(self, "seen", seen)

    def __call__(self, backend: Backend, params: Any, x: Any, y: Any, rows: Any, workspace: Workspace) -> Any:
        self.__dict__["seen"].append(backend.to_numpy(rows).tobytes())
        return super().__call__(backend, params, x, y, rows, workspace)


def bits(params: Any) -> list[bytes]:
    return [np.ascontiguousarray(a).tobytes() for pair in params for a in pair]


def test_the_default_recipe_reaches_96_percent_in_5_epochs(mnist: Dataset, backend_name: str) -> None:
    recipe = RECIPES["default"]
    assert (recipe.epochs, recipe.hidden, recipe.batch_size) == (5, (32,), 128)
    backend = get_backend(backend_name)
    params = recipe.initial_params(mnist.n_in, mnist.n_classes)
    history = mini_batch_sgd(mnist.x_train, mnist.y_train, params, backend=backend)
    _, accuracy = evaluate(backend, history.params, mnist.x_test, mnist.y_test)
    assert accuracy >= 0.96


def test_the_defaults_of_mini_batch_sgd_are_those_of_the_default_recipe() -> None:
    recipe = RECIPES["default"].to_dict()
    defaults = {name: parameter.default for name, parameter in inspect.signature(mini_batch_sgd).parameters.items()}
    for name in ("epochs", "batch_size", "learning_rate", "activation", "gradient", "seed", "loss_average"):
        assert defaults[name] == recipe[name], name


def test_backends_follow_numpys_losses_for_three_epochs(mnist: Dataset, backend_name: str) -> None:
    losses = [
        mini_batch_sgd(mnist.x_train, mnist.y_train, init_params([784, 32, 10]), epochs=3, backend=name).loss
        for name in ("numpy", backend_name)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_every_backend_starts_from_the_same_bits_and_visits_samples_in_the_same_order() -> None:
    orders: list[list[bytes]] = []
    x, y = toy()
    for name in BACKENDS:
        if unavailable(name) is not None:
            continue
        seen: list[bytes] = []
        backend = get_backend(name)
        trainer = Trainer(x, y, init_params(TOY, seed=4), SpyStep(seen, 0.1), backend, batch_size=8, seed=4, fused=False)
        assert bits(trainer.host_params()) == bits(
            [(w.astype(np.float32), b.astype(np.float32)) for w, b in init_params(TOY, seed=4)]
        )
        trainer.epoch()
        trainer.epoch()
        assert len(seen) == 14
        assert b"".join(seen[:7]) != b"".join(seen[7:])
        orders.append(seen)
    assert len(orders) >= 2
    for a, b in pairwise(orders):
        assert a == b


def test_the_same_run_gives_the_same_bits(backend: Backend) -> None:
    x, y = toy()
    first, second = (mini_batch_sgd(x, y, init_params(TOY), backend=backend, epochs=3, batch_size=8) for _ in range(2))
    assert bits(first.params) == bits(second.params)
    assert first.loss == second.loss


@pytest.mark.skipif(available_cores() < 2, reason="one core: there is no second thread to compare with")
@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
@pytest.mark.parametrize("backend_name", ["numba"])
def test_numba_gives_the_same_bits_for_any_number_of_threads(
    mnist: Dataset, backend_name: str, dtype: str, activation: str, request: pytest.FixtureRequest
) -> None:
    from tests.conftest import require

    require(request, backend_name)
    runs = []
    for threads in (1, 2, 2):
        params = init_params([784, 40, 20, 10])
        x, y = mnist.x_train[:4100], mnist.y_train[:4100]
        backend = get_backend(backend_name, dtype)
        runs.append(mini_batch_sgd(x, y, params, epochs=2, activation=activation, backend=backend, threads=threads))
    assert bits(runs[0].params) == bits(runs[1].params) == bits(runs[2].params)
    assert runs[0].loss == runs[1].loss == runs[2].loss


def test_the_short_last_batch_is_used(backend: Backend) -> None:
    x, y = toy(n=21)
    whole = Trainer(x, y, init_params(TOY), SGDStep(0.1), backend, batch_size=8)
    order = whole.backend.asarray(np.arange(21))
    workspace = Workspace.allocate(backend, TOY, 8)
    params, losses, _ = backend.train_epoch(whole.step, whole.params, whole.x, whole.y, order, 8, workspace)
    assert losses.shape == (3,)
    by_hand = whole.params
    for rows in (np.arange(8), np.arange(8, 16), np.arange(16, 21)):
        by_hand, _, _ = whole.step(
            backend, [(backend.copy(w), backend.copy(b)) for w, b in by_hand], whole.x, whole.y, backend.asarray(rows), Workspace()
        )
    for (w, b), (v, c) in zip(params, by_hand, strict=True):
        np.testing.assert_allclose(backend.to_numpy(w), backend.to_numpy(v), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(backend.to_numpy(b), backend.to_numpy(c), rtol=1e-5, atol=1e-6)


def test_a_backends_epoch_is_the_shared_loop(backend: Backend) -> None:
    x, y = toy(n=45)
    fused, shared = (
        mini_batch_sgd(x, y, init_params(TOY), backend=backend, epochs=3, batch_size=8, fused=fused) for fused in (True, False)
    )
    np.testing.assert_allclose(fused.loss, shared.loss, rtol=1e-4)


def test_reused_memory_full_of_nan_changes_nothing(backend: Backend) -> None:
    x, y = toy(n=20)
    histories = []
    for poison in (0.0, np.nan):
        trainer = Trainer(x, y, init_params(TOY), SGDStep(0.1), backend, batch_size=8)
        w = trainer._workspace
        for array in (w.x, w.y_hat, *w.outputs, *w.deltas, *(a for pair in w.grads for a in pair)):
            array[...] = poison
        histories.append((trainer.epoch()[:2], bits(trainer.host_params())))
    assert histories[0] == histories[1]


def test_the_history_is_the_mean_over_the_samples(backend64: Backend) -> None:
    x, y = toy(n=20)
    tiny = mini_batch_sgd(x, y, init_params(TOY), backend=backend64, epochs=1, batch_size=8, learning_rate=1e-12)
    loss, accuracy = evaluate(backend64, init_params(TOY), x, y)
    assert tiny.loss[0] == pytest.approx(loss, rel=1e-9)
    assert tiny.accuracy[0] == pytest.approx(accuracy)


def test_the_notebooks_average_has_a_divisor_one_too_small(backend64: Backend) -> None:
    x, y = toy(n=20)
    settings: dict[str, Any] = {"backend": backend64, "epochs": 1, "batch_size": 8, "learning_rate": 1e-12}
    plain = Trainer(x, y, init_params(TOY), SGDStep(1e-12), backend64, batch_size=8)
    order = np.random.default_rng([0, 1]).permutation(20)
    means = []
    for rows in np.split(order, [8, 16]):
        loss, _ = evaluate(backend64, plain.host_params(), x[rows], y[rows])
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
    original = backend.sgd_update

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4 * 7 + 6:  # 4 arrays, 7 batches an epoch: in the second epoch, between two arrays of a step
            raise KeyboardInterrupt
        return original(*arguments, **keywords)

    monkeypatch.setattr(backend, "sgd_update", interrupted)
    history = mini_batch_sgd(x, y, init_params(TOY), backend=backend, epochs=9, batch_size=8, fused=False)
    one = mini_batch_sgd(x, y, init_params(TOY), backend=backend_name, epochs=1, batch_size=8, fused=False)
    assert (len(history), history.interrupted) == (1, True)
    assert bits(history.params) == bits(one.params)


def test_ctrl_c_while_an_epoch_is_written_down_leaves_columns_and_parameters_of_one_epoch(
    backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = toy()
    written: list[Any] = []

    def interrupted(history: History, name: str, value: Any) -> None:
        if name == "params":
            written.append(value)
            if len(written) == 4:  # none, those before the training, and after each epoch
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
        evaluate(get_backend(backend_name), params, x, y)


def test_labels_that_change_to_no_class_during_the_training_are_an_error(backend_name: str) -> None:
    if backend_name == "cupy":
        pytest.skip("the labels are copied to the GPU")
    x, y = np.zeros((6, 5), np.uint8), np.zeros(6, int)

    def change(_: History) -> None:
        y[:] = 10**9

    with pytest.raises(IndexError):
        mini_batch_sgd(x, y, init_params([5, 4, 3]), backend=backend_name, epochs=2, callbacks=[change])


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
        ({"activation": "gelu"}, "unknown activation 'gelu'"),
        ({"gradient": "right"}, "unknown gradient 'right'"),
        ({"loss_average": "median"}, "unknown loss average 'median'"),
        ({"threads": 0}, "0 from the argument threads"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mini_batch_sgd(*toy(), init_params(TOY), backend="numpy", **settings)


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
    assert content["backend"] == "numpy"
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
    results = [evaluate(backend, init_params(TOY), x, y, batch_size=size) for size in (1, 7, 50, 1000)]
    for loss, accuracy in results:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert accuracy == results[0][1]
