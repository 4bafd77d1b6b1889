"""The sparse and the dense path against the loop in float64, and their memory."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="Numba is not installed")

from mlp_accel import get_backend, init_params, mini_batch_sgd
from mlp_accel.activations import ACTIVATIONS
from mlp_accel.backends.numba.compiler import VECTOR_BYTES
from mlp_accel.backends.numba.paths.dense import path as dense
from mlp_accel.backends.numba.paths.shared import memory, packing
from mlp_accel.backends.numba.paths.shared import run as shared
from mlp_accel.backends.numba.paths.sparse import lists
from mlp_accel.backends.numba.paths.sparse.lists import UNROLL
from mlp_accel.backends.numba.paths.sparse.path import DENSITY
from mlp_accel.backends.numba.team import RESTS, Team
from mlp_accel.backends.paths import State
from mlp_accel.backends.threads import available_cores
from mlp_accel.errors import PathError
from mlp_accel.optimizers import OPTIMIZERS, find_optimizer
from mlp_accel.training.snapshot import initial_state
from mlp_accel.training.trainer import Trainer

Result = tuple[list[tuple[npt.NDArray[Any], npt.NDArray[Any]]], float, float]


def images(n: int, n_in: int, share: float, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Noise of which `share` is not black."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, 256, (n, n_in), dtype=np.uint8) * (rng.random((n, n_in)) < share).astype(np.uint8)


KINDS = ["sparse", "sparse floats", "dense", "dense floats"]
"""A path, and the samples that it is tried on: uint8 images, or floating numbers."""


def samples(kind: str, n: int, n_in: int, share: float = 0.2) -> Any:
    """Samples for one of `KINDS`."""
    x = images(n, n_in, share)
    return x / 255.0 if kind == "sparse floats" else x / 255.0 - 0.1 if kind == "dense floats" else x


def train(path: str, dtype: str, x: Any, y: Any, sizes: list[int], threads: int = 1, epochs: int = 2, **config: Any) -> Result:
    """By one of the paths of the Numba backend, or by the loop of NumPy."""
    engine = get_backend("numpy" if path == "loop" else "numba", dtype)
    path = path.removesuffix(" floats")
    x = x if x.dtype == np.uint8 else x.astype(dtype)
    config = {"batch_size": 8, "optimizers": [find_optimizer("sgd")], "learning_rates": [0.1], **config}
    with engine.limit_threads(threads):
        trainer = Trainer(x, y, [init_params(sizes, 1)], engine, path=path, threads=threads, **config)
        for _ in range(epochs):
            epoch = trainer.epoch()
    return trainer.params(), epoch.losses[0], epoch.accuracies[0]


def assert_same(result: Result, reference: Result, tolerance: float) -> None:
    for ours, theirs in zip(result[0], reference[0], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))
    np.testing.assert_allclose(result[1], reference[1], rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_the_accuracy_is_that_of_the_loop(kind: str) -> None:
    x, y = samples(kind, 300, 90), np.random.default_rng(1).integers(0, 10, 300)
    results = [
        train(*path, x, y, [90, 20, 10], epochs=4, learning_rates=[1.0]) for path in ((kind, "float32"), ("loop", "float64"))
    ]
    assert results[1][2] > 0.3
    assert results[0][2] == pytest.approx(results[1][2], abs=1.01 / 300)  # a tie may be broken by the last bit


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n_in=st.one_of(st.integers(1, 200), st.integers(500, 1200)),
    hidden=st.lists(st.integers(1, 140), max_size=3),
    n_classes=st.integers(2, 20),
    n=st.integers(1, 40),
    batch_size=st.integers(1, 45),
    share=st.floats(0, 0.4),
    activation=st.sampled_from(ACTIVATIONS),
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    weight_decay=st.sampled_from([0.0, 0.01]),
    gradient=st.sampled_from(["exact", "notebook"]),
    dtype=st.sampled_from(["float32", "float64"]),
    threads=st.integers(1, 2),
)
def test_a_path_is_the_loop(
    kind: str,
    n_in: int,
    hidden: list[int],
    n_classes: int,
    n: int,
    batch_size: int,
    share: float,
    activation: str,
    optimizer: str,
    weight_decay: float,
    gradient: str,
    dtype: str,
    threads: int,
) -> None:
    x, y = samples(kind, n, n_in, share), np.random.default_rng(1).integers(0, n_classes, n)
    assume(not kind.startswith("sparse") or np.count_nonzero(x) <= DENSITY * x.size)  # else it is left to the dense path
    sizes = [n_in, *hidden, n_classes]
    if optimizer.startswith("adam"):
        dtype = "float64"  # it divides a gradient by its own size: where all of it is rounding, float32 says nothing
    config: dict[str, Any] = {"batch_size": batch_size, "activation": activation, "gradient": gradient}
    config |= {"optimizers": [find_optimizer(optimizer, weight_decay=weight_decay)], "learning_rates": [0.02]}
    reference = train("loop", "float64", x, y, sizes, **config)
    result = train(kind, dtype, x, y, sizes, min(threads, available_cores()), **config)
    assert_same(result, reference, 1e-4 if dtype == "float32" else 1e-6 if optimizer.startswith("adam") else 1e-9)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize(("n_in", "hidden"), [(60, [32]), (600, [32]), (600, [100])], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_minibatches_of_several_strips_are_trained_on_as_by_the_loop(
    kind: str, n_in: int, hidden: list[int], optimizer: str
) -> None:
    x, y = samples(kind, 1300, n_in), np.random.default_rng(1).integers(0, 5, 1300)
    config: dict[str, Any] = {"batch_size": 600, "optimizers": [find_optimizer(optimizer)], "learning_rates": [0.1]}
    reference = train("loop", "float64", x, y, [n_in, *hidden, 5], **config)
    assert_same(train(kind, "float32", x, y, [n_in, *hidden, 5], min(2, available_cores()), **config), reference, 1e-4)
    assert_same(train(kind, "float64", x, y, [n_in, *hidden, 5], **config), reference, 1e-9)


@pytest.mark.parametrize(("activation", "optimizer"), [("tanh", "sgd"), ("gelu", "adamw"), ("elu", "nesterov")])
@pytest.mark.parametrize("n_in", [150, 700])
@pytest.mark.parametrize("hidden", [[32], [130], [40, 20], []], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_threads_gives_the_same_bits(
    kind: str, hidden: list[int], n_in: int, activation: str, optimizer: str, dtype: str
) -> None:
    if available_cores() < 2:
        pytest.skip("one core: there is no second thread to compare with")
    x, y = samples(kind, 500, n_in), np.random.default_rng(1).integers(0, 10, 500)
    config: dict[str, Any] = {"batch_size": 33, "activation": activation, "optimizers": [find_optimizer(optimizer)]}
    runs = [train(kind, dtype, x, y, [n_in, *hidden, 10], threads, **config) for threads in (1, 2, 2)]
    bits = [[a.tobytes() for layer in params for a in layer] for params, _, _ in runs]
    assert bits[0] == bits[1] == bits[2]
    assert runs[0][1:] == runs[1][1:] == runs[2][1:]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("hidden", [[], [5], [32], [70], [300, 40]], ids=str)
@pytest.mark.parametrize("n_threads", [2, 3, 4, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_more_threads_than_there_are_cores_give_the_same_bits(
    kind: str, n_threads: int, hidden: list[int], optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = samples(kind, 200, 150), np.random.default_rng(1).integers(0, 10, 200)
    config: dict[str, Any] = {"batch_size": 33, "optimizers": [find_optimizer(optimizer)], "epochs": 1}
    runs = []
    for count in (1, n_threads):
        monkeypatch.setattr(shared, "usable_threads", lambda count=count: count)
        runs.append(train(kind, "float32", x, y, [150, *hidden, 10], **config))
    for (w, b), (v, c) in zip(runs[0][0], runs[1][0], strict=True):
        np.testing.assert_array_equal(w, v)
        np.testing.assert_array_equal(b, c)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_full_of_nan_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = samples(kind, 200, 150), np.random.default_rng(1).integers(0, 10, 200)
    config: dict[str, Any] = {"batch_size": 33, "optimizers": [find_optimizer("adam")], "activation": "silu"}
    clean = train(kind, "float32", x, y, [150, 70, 20, 10], **config)
    allocate = memory.aligned_empty

    def poisoned(shape: Any, dtype: Any) -> Any:
        array = allocate(shape, dtype)
        array.view(np.uint8)[...] = 0xFF  # NaN, and huge numbers where integers are
        return array

    for module in (memory, packing, lists, dense):
        monkeypatch.setattr(module, "aligned_empty", poisoned)
    again = train(kind, "float32", x, y, [150, 70, 20, 10], **config)
    assert [a.tobytes() for layer in clean[0] for a in layer] == [a.tobytes() for layer in again[0] for a in layer]
    assert clean[1:] == again[1:]


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_how_many_values_are_zero_decides_and_not_the_dtype(share: float, floats: bool) -> None:
    backend = get_backend("numba")
    x, y = images(50, 600, share), np.random.default_rng(1).integers(0, 10, 50)
    data: Any = x / 255.0 if floats else x
    trainer = Trainer(data, y, [init_params([600, 10], 1)], backend, batch_size=8)
    assert trainer.taken.name == ("sparse" if share == 0.2 else "dense")
    if share == 0.9:
        reason = r"here (89|90|91)% are not"
        assert re.search(reason, dict(trainer.taken.passed_over)["sparse"])
        with pytest.raises(PathError, match=reason):
            Trainer(data, y, [init_params([600, 10], 1)], backend, path="sparse")


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_no_number_is_seen(kind: str) -> None:
    x, y = samples(kind, 50, 60), np.random.default_rng(1).integers(0, 10, 50)
    params = init_params([60, 20, 10], 1)
    params[0][0][:] = np.nan
    trainer = Trainer(x, y, [params], get_backend("numba"), batch_size=8, activation="relu", path=kind.removesuffix(" floats"))
    assert np.isnan(trainer.epoch().losses[0])


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_on_the_same_samples_in_two_threads_do_not_disturb_each_other(kind: str) -> None:
    x, y = samples(kind, 300, 60), np.random.default_rng(1).integers(0, 10, 300)

    def run(seed: int) -> Any:
        return train(kind, "float32", x, y, [60, 20, 10], epochs=5, seeds=[seed])

    expected = [run(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, range(4)))
    for ours, theirs in zip(results, expected, strict=True):
        assert_same(ours, theirs, 0)


def packed(sizes: list[int], dtype: str, n_slots: int) -> State:
    """A network with numbers in its slots, all different."""
    params = [(w.astype(dtype), np.arange(b.shape[0], dtype=dtype)) for w, b in init_params(sizes, 1)]
    state = initial_state(params, n_slots)
    for slot in range(n_slots):
        for layer, (weights, bias) in enumerate(params):
            state.slots[layer][slot] = (weights * (slot + 2), bias - slot - 1)
    return state


def test_memory_begins_at_a_cache_line() -> None:
    network = packing.pack_network(packed([60, 20, 10], "float32", 2), 8, memory.UNITS, 1, 2)
    for array in (network.first, network.weights, network.bias, packing.allocate_scratch(network, 8, 1, True).deltas):
        assert array.ctypes.data % 64 == 0
    assert network.stride % 64 == 0
    assert not (network.slots % 64).any()
    assert network.panel * 4 % VECTOR_BYTES == 0


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n_slots", [0, 1, 2])
def test_packing_and_unpacking_changes_nothing(dtype: str, n_slots: int, n_threads: int) -> None:
    for sizes in ([5, 3], [7, 33, 4], [9, 65, 17, 11], [64, 200, 10]):
        state = packed(sizes, dtype, n_slots)
        again = packing.unpack_network(packing.pack_network(state, 8, memory.UNITS, 1, n_threads))
        before, after = ([*of.params, *(pair for slots in of.slots for pair in slots)] for of in (state, again))
        for (w, b), (v, c) in zip(before, after, strict=True):
            np.testing.assert_array_equal(w, v)
            np.testing.assert_array_equal(b, c)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 30),
    n_in=st.integers(1, 300),
    share=st.floats(0, 0.4),
    floats=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    n_segments=st.integers(1, 4),
)
def test_the_lists_hold_every_value_that_is_not_zero_once(
    n: int, n_in: int, share: float, floats: bool, dtype: str, n_segments: int
) -> None:
    x = images(n, n_in, share)
    numbers = x * np.dtype(dtype).type(1.0 / 255.0)
    listed = lists.list_samples(numbers if floats else x, dtype, n_segments)
    again, inputs = np.zeros_like(numbers), listed.entries.view(f"u{numbers.itemsize}")[::2].astype(int)
    for sample, bounds in enumerate(listed.bounds):
        for segment, (start, stop) in enumerate(pairwise(bounds)):
            assert (stop - start) % UNROLL == 0
            of_segment = slice(listed.segments[segment], listed.segments[segment + 1])
            values = listed.entries[2 * start + 1 : 2 * stop : 2]
            count = np.count_nonzero(values)
            assert count == np.count_nonzero(numbers[sample, of_segment])
            assert not values[count:].any()
            assert ((of_segment.start <= inputs[start:stop]) & (inputs[start:stop] < of_segment.stop)).all()
            assert (np.diff(inputs[start : start + count]) > 0).all()
            again[sample, inputs[start : start + count]] = values[:count]
    np.testing.assert_array_equal(again, numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_an_order_that_names_a_sample_that_is_not_there_is_refused(kind: str) -> None:
    x, y = samples(kind, 50, 60), np.random.default_rng(1).integers(0, 10, 50)
    trainer = Trainer(x, y, [init_params([60, 20, 10], 1)], get_backend("numba"), path=kind.removesuffix(" floats"))
    for wrong in (-1, 50):
        trainer._groups[0].run.epoch(np.arange(50)[None], np.full((1, 1, 1), 0.1))
        with pytest.raises(IndexError, match="50 samples"):
            trainer._groups[0].run.epoch(np.array([[0, wrong, *range(48)]]), np.full((1, 1, 1), 0.1))


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_has_the_order_it_began_with_whatever_was_expected(kind: str) -> None:
    n = 300
    x, y = samples(kind, n, 60), np.random.default_rng(1).integers(0, 10, n)
    x = x if x.dtype == np.uint8 else x.astype(np.float32)
    orders = [np.random.default_rng(seed).permutation(n)[None] for seed in range(4)]
    expected = [orders[1], None, orders[0], orders[0]]
    rates = np.full((1, -(-n // 32), 1), 0.1)
    results = []
    for follow in (False, True):
        backend = get_backend("numba")
        with backend.limit_threads(2):
            trainer = Trainer(x, y, [init_params([60, 20, 10], 1)], backend, batch_size=32, path=kind.split()[0], threads=2)
            run = trainer._groups[0].run
            sums = []
            for order, following in zip(orders, expected, strict=True):
                run.begin(order, rates)
                sums.append(run.finish(following if follow else None))
        results.append([*np.ravel(sums), *(a.tobytes() for layer in trainer.params() for a in layer)])
    assert results[0] == results[1]


@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_how_often_threads_rested_is_in_the_history(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images(300, 60, 0.2), np.random.default_rng(1).integers(0, 10, 300)
    finish = Team.finish

    def crowded(team: Team) -> None:
        finish(team)
        team._threads[0, RESTS] += 3  # as on a machine where other processes compute

    monkeypatch.setattr(Team, "finish", crowded)
    history = mini_batch_sgd(x, y, init_params([60, 20, 10], 1), backend="numba", path=path, epochs=2)
    assert history.rests >= 2 * 3
    loop = mini_batch_sgd(x, y, init_params([60, 20, 10], 1), backend="numba", path="loop", epochs=2)
    assert loop.rests == 0, "the loop's threads do not rest"


@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_without_the_clock_of_posix_the_loop_is_taken_which_is_said(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "HAS_CLOCK", False)
    x, y = images(50, 60, 0.2), np.random.default_rng(1).integers(0, 10, 50)
    trainer = Trainer(x, y, [init_params([60, 10], 1)], get_backend("numba"), batch_size=8)
    assert trainer.taken.name == "loop"
    assert "POSIX" in dict(trainer.taken.passed_over)[path]
