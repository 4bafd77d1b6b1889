"""The paths of the CuPy backend without a GPU: CuPy's array functions by NumPy, the kernels by the shim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlp_accel import init_params, mini_batch_sgd, train_many
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.backends.cupy.paths.runs import DeviceSamples
from mlp_accel.backends.loop import LoopPath
from mlp_accel.backends.paths import EpochPath, PathRun, Task
from mlp_accel.errors import PathError, SettingError
from mlp_accel.optimizers import Optimizer
from mlp_accel.training.trainer import Trainer
from tests.backends.cupy.fake_cupy import A100, FakeCupy
from tests.backends.cupy.problem import Problem, Result, arrays, distance, reference
from tests.backends.cupy.small import (
    ACTIVATIONS,
    RULES,
    SGD,
    SIZES,
    TANH,
    Reference,
    bits,
    chase,
    data,
    rule_of,
    trainer_by,
    wavelet,
)

PATHS = ("cluster:2", "graph", "steps", "loop")
SMALL = Task((20, 12, 5), 16, "float32", "uint8", 1.0, TANH, "exact", SGD)


def path_of(backend: CupyBackend, name: str) -> EpochPath:
    path = LoopPath(backend) if name == "loop" else backend.path_named(name)
    assert path is not None
    return path


def start(backend: CupyBackend, name: str, problem: Problem) -> PathRun:
    x, y = backend.asarray(problem.x), backend.asarray(problem.y.astype(np.int64))
    return path_of(backend, name).start(problem.task, problem.states, x, y)


def epoch(backend: CupyBackend, run: PathRun, problem: Problem) -> Result:
    losses, hits = (backend.to_numpy(array) for array in run.epoch(problem.orders, problem.scalars))
    return Result(run.states(), losses, hits)


PAIRS = [
    *((activation, list(RULES)[i % len(RULES)]) for i, activation in enumerate(ACTIVATIONS)),
    *(("tanh", rule) for rule in list(RULES)[len(ACTIVATIONS) :]),
]
"""Every activation and every rule, those of a user's own included."""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("activation", "rule"), PAIRS)
def test_a_step_from_given_parameters_and_slots_agrees_with_float64(cupy: FakeCupy, activation: str, rule: str, path: str) -> None:
    gradient = "notebook" if activation == "sigmoid" else "exact"
    task = replace(SMALL, activation=ACTIVATIONS[activation], rule=rule_of(rule), gradient=gradient)
    problem, backend = Problem.random(task, 16), CupyBackend()
    result, expected = epoch(backend, start(backend, path, problem), problem), reference(problem)
    assert distance(result, expected) < 2e-6
    np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-6)
    np.testing.assert_array_equal(result.hits, expected.hits)


@pytest.mark.parametrize("path", [None, "cluster", "graph", "steps", "loop"])
def test_each_path_trains_as_the_reference_does(cupy: FakeCupy, path: str | None) -> None:
    x, y = data(55)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "schedule": "cosine"}
    ours = mini_batch_sgd(x, y, init_params(SIZES), backend=CupyBackend(), path=path, **options)
    theirs = mini_batch_sgd(x, y, init_params(SIZES), backend=Reference("float64"), **options)
    assert ours.path == (path or "cluster")
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-5)
    assert ours.accuracy == theirs.accuracy
    for (weights, bias), (their_weights, their_bias) in zip(ours.params, theirs.params, strict=True):
        np.testing.assert_allclose(weights, their_weights, atol=3e-6)
        np.testing.assert_allclose(bias, their_bias, atol=3e-6)


@pytest.mark.parametrize("path", PATHS)
def test_networks_with_rows_of_their_own_are_bit_equal_to_runs_on_these_rows(cupy: FakeCupy, path: str) -> None:
    x, y = data(55)
    networks = [init_params(SIZES, seed=seed) for seed in range(3)]
    rows = [np.flatnonzero(np.arange(55) % 3 != fold) for fold in range(3)]  # 36, 37 and 37 samples
    options: dict[str, Any] = {"epochs": 2, "batch_size": 12, "path": path, "optimizer": "adam"}
    together = train_many(x, y, networks, rows=rows, backend=CupyBackend(), **options)
    for seed, (history, params, own) in enumerate(zip(together, networks, rows, strict=True)):
        alone = mini_batch_sgd(x[own], y[own], params, seed=seed, backend=CupyBackend(), **options)
        assert (bits(history.params), history.loss) == (bits(alone.params), alone.loss)


@pytest.mark.parametrize("path", ["cluster", "graph"])
def test_floating_samples_train_as_the_reference_does(cupy: FakeCupy, path: str) -> None:
    x, y = data(55)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16}
    ours = mini_batch_sgd(x / np.float32(255), y, init_params(SIZES), backend=CupyBackend(), path=path, **options)
    theirs = mini_batch_sgd(x / np.float32(255), y, init_params(SIZES), backend=Reference("float64"), **options)
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-5)
    assert ours.accuracy == theirs.accuracy


def test_functions_of_a_users_own_are_in_every_path(cupy: FakeCupy) -> None:
    x, y = data(40)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "activation": wavelet, "optimizer": chase}
    theirs = mini_batch_sgd(x, y, init_params(SIZES), backend=Reference("float64"), **options)
    for path in PATHS:
        ours = mini_batch_sgd(x, y, init_params(SIZES), backend=CupyBackend(), path=path, **options)
        assert ours.path == path
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-5)


@pytest.mark.parametrize("path", ["cluster:2", "graph", "steps"])
def test_states_come_in_one_transfer_and_stay_as_they_were(cupy: FakeCupy, path: str) -> None:
    task = replace(SMALL, rule=rule_of("adam"), networks=3)
    problem, backend = Problem.random(task, 20), CupyBackend()
    before = [a.tobytes() for a in arrays(Result(problem.states, np.zeros(0), np.zeros(0)))]
    run = start(backend, path, problem)
    cupy.events.clear()
    states = run.states()
    assert cupy.events.count("to host") == 1
    result = Result(states, np.zeros(0), np.zeros(0))
    assert [a.tobytes() for a in arrays(result)] == before
    epoch(backend, run, problem)
    assert [a.tobytes() for a in arrays(result)] == before
    assert [a.tobytes() for a in arrays(Result(run.states(), np.zeros(0), np.zeros(0)))] != before


@pytest.mark.parametrize("sample", [20, -1, 10**6])
@pytest.mark.parametrize("path", PATHS)
def test_an_order_with_a_sample_that_there_is_not_is_refused_before_anything_is_launched(
    cupy: FakeCupy, path: str, sample: int
) -> None:
    problem, backend = Problem.random(SMALL, 20), CupyBackend()
    run = start(backend, path, problem)
    problem.orders[0, 7] = sample
    cupy.events.clear()
    with pytest.raises(IndexError, match="orders must hold numbers of the 20 samples, 0 to 19; they hold numbers from"):
        run.epoch(problem.orders, problem.scalars)
    assert cupy.events == []


@pytest.mark.parametrize("path", PATHS)
def test_networks_that_are_left_out_cost_the_others_nothing(cupy: FakeCupy, path: str) -> None:
    problem, backend = Problem.random(replace(SMALL, networks=3, rule=rule_of("momentum")), 20), CupyBackend()
    all_three, two = (start(backend, path, problem) for _ in range(2))
    results = [epoch(backend, all_three, problem) for _ in range(2)]
    epoch(backend, two, problem)
    two.keep([0, 2])
    left = replace(problem, orders=problem.orders[[0, 2]], scalars=problem.scalars[[0, 2]])
    result = epoch(backend, two, left)
    for ours, theirs in zip(result.states, [results[1].states[i] for i in (0, 2)], strict=True):
        assert bits(ours.params) == bits(theirs.params)
        assert [bits(layer) for layer in ours.slots] == [bits(layer) for layer in theirs.slots]
    np.testing.assert_array_equal(result.losses, results[1].losses[[0, 2]])


@pytest.mark.parametrize("path", ["cluster", "graph", "loop"])
def test_many_networks_are_bit_equal_to_one_by_one(cupy: FakeCupy, path: str) -> None:
    x, y = data(45)
    networks = [init_params(SIZES, seed=seed) for seed in (3, 4, 5)]
    own: dict[str, Any] = {"learning_rates": [0.1, 0.4, 0.2], "momentum": [0.9, 0.5, 0.2], "seeds": [7, 8, 7]}
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "optimizer": "momentum", "backend": CupyBackend(), "path": path}
    cupy.events.clear()
    together = train_many(x, y, networks, **own, **options)
    if path == "cluster":
        assert cupy.events.count("launch train_epoch") == 1 + 2  # the trial, two epochs
    for i, history in enumerate(together):
        alone = mini_batch_sgd(
            *(x, y, networks[i]),
            learning_rate=own["learning_rates"][i],
            momentum=own["momentum"][i],
            seed=own["seeds"][i],
            **options,
        )
        assert bits(history.params) == bits(alone.params)
        assert (history.loss, history.accuracy) == (alone.loss, alone.accuracy)


def test_samples_labels_or_networks_of_other_sizes_are_refused(cupy: FakeCupy) -> None:
    problem, backend = Problem.random(replace(SMALL, rule=rule_of("momentum")), 20), CupyBackend()
    for wrong in (replace(problem, y=problem.y[:-1]), replace(problem, x=problem.x[:, 1:])):
        with pytest.raises(ValueError, match="takes 20 values and a label for each sample; got"):
            start(backend, "graph", wrong)
    (weights, bias), output = problem.states[0].params
    for params in ([(weights.T, bias), output], [(weights, bias[1:]), output], [output]):
        with pytest.raises(ValueError, match="a network of 20-12-5 at batch size 16 has the shapes"):
            start(backend, "graph", replace(problem, states=[replace(problem.states[0], params=params)]))


# Launches -------------------------------------------------------------------------------------------------------------------------


def test_a_cluster_epoch_is_one_launch(cupy: FakeCupy) -> None:
    trainer = trainer_by("cluster", CupyBackend(), n=200)
    trainer.epoch()
    cupy.events.clear()
    trainer.epoch()
    assert [entry for entry in cupy.events if entry.startswith(("launch", "product"))] == ["launch train_epoch"]
    assert cupy.events.count("to device") == 1  # the order; learning rates that do not change stay


def test_a_graph_is_captured_once_whatever_the_learning_rates_and_launched_once_an_epoch(cupy: FakeCupy) -> None:
    from mlp_accel.schedules import Schedule, linear

    trainer = trainer_by("graph", CupyBackend(), n=60, schedule=Schedule(linear), epochs=3)
    trainer.epoch()
    cupy.events.clear()
    trainer.epoch()
    trainer.epoch()
    assert [entry for entry in cupy.events if "graph" in entry or "capture" in entry] == [
        "graph of 25"
    ] * 2  # 6 steps of 4, the sums


def test_an_epoch_too_long_for_a_graph_is_launched_step_by_step_and_says_so(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mlp_accel.backends.cupy.paths.steps.MAX_GRAPH_LAUNCHES", 20)
    x, y = data(60)
    results = [
        mini_batch_sgd(x, y, init_params(SIZES), epochs=2, batch_size=10, backend=CupyBackend(), path=path)
        for path in ("graph", "steps")
    ]
    assert bits(results[0].params) == bits(results[1].params)
    assert caplog.text.count("an epoch of 25 launches is too long for a CUDA graph") == 1


def test_the_work_of_an_epoch_is_ordered_with_the_stream_around_it(cupy: FakeCupy) -> None:
    trainer = trainer_by("cluster", CupyBackend(), n=20)
    cupy.events.clear()
    trainer.epoch()
    launch = cupy.events.index("launch train_epoch")
    assert cupy.events.index("wait for event") < launch < len(cupy.events) - cupy.events[::-1].index("wait for event")
    assert len(cupy.streams) == 1


def test_images_are_copied_only_where_the_kernels_cannot_read_them(cupy: FakeCupy) -> None:
    backend = CupyBackend()
    memory, labels = backend.asarray(np.zeros(10 * 32 + 16, np.uint8)), backend.asarray(np.arange(10))
    start = -memory.data.ptr % 16
    for offset, is_copied in ((0, False), (4, True)):
        x = memory[start + offset : start + offset + 320].reshape(10, 32)
        images = DeviceSamples.prepare(backend.gpu, x, labels).x
        assert np.shares_memory(images, memory) != is_copied
        assert images.data.ptr % 16 == 0
    assert DeviceSamples.prepare(backend.gpu, memory[:200].reshape(10, 20), labels).x.shape == (10, 32)
    assert DeviceSamples.prepare(backend.gpu, memory[:200].reshape(10, 20), labels).labels.dtype == np.int32


# Which one ------------------------------------------------------------------------------------------------------------------------


def taken(backend: CupyBackend, x: Any, y: Any, sizes: Sequence[int], path: str | None = None, batch_size: int = 16) -> str:
    return str(Trainer(x, y, [init_params(sizes)], backend, batch_size=batch_size, path=path).taken)


@pytest.mark.parametrize(
    ("sizes", "kind", "settings", "name", "reason"),
    [
        ([20, 12, 8, 5], "uint8", {}, "graph", "it holds one hidden layer, the network has 2"),
        (SIZES, "uint8", A100, "graph", "it needs compute capability 9.0, this GPU has 8.0"),
        (SIZES, "float", {"capability": "75", "shared_limit": 65536}, "graph", "it needs compute capability 9.0, this GPU has 7.5"),
        (SIZES, "uint8", {"capability": "70", "shared_limit": 65536}, "loop", "it needs compute capability 7.5, this GPU has 7.0"),
        (
            SIZES,
            "uint8",
            {"shared_limit": 2000},
            "loop",
            "bytes of shared memory in each block of a cluster of 16, there are 2,000",
        ),
    ],
)
def test_what_a_path_cannot_do_goes_to_the_next_which_is_said(
    install: Callable[..., FakeCupy], sizes: list[int], kind: str, settings: dict[str, Any], name: str, reason: str
) -> None:
    install(**settings)
    x, y = data(30)
    report = taken(CupyBackend(), x if kind == "uint8" else x / 255, y, sizes)
    assert report.startswith(f"{name}; not cluster")
    assert reason in report


def test_a_network_too_wide_for_a_cluster_is_told_the_widest_that_fits(install: Callable[..., FakeCupy]) -> None:
    install(shared_limit=9000)
    with pytest.raises(
        PathError, match=r"20-300-5 at batch size 16 needs [\d,]+ bytes .* there are 9,000; the widest .* has \d+ units"
    ):
        taken(CupyBackend(), *data(30), [20, 300, 5], "cluster")


def test_slots_take_room_in_the_shared_memory(install: Callable[..., FakeCupy]) -> None:
    install(shared_limit=9000)
    cluster = path_of(CupyBackend(), "cluster")
    assert cluster.why_not(replace(SMALL, layer_sizes=(20, 40, 5))) is None
    reason = cluster.why_not(replace(SMALL, layer_sizes=(20, 40, 5), rule=Optimizer.record_for([RULES["adam"]])))
    assert "bytes of shared memory" in str(reason)


def test_float64_and_large_steps_are_left_to_the_loop_unless_a_path_is_asked_for(cupy: FakeCupy) -> None:
    x, y = data(30)
    assert taken(CupyBackend("float64"), x, y, SIZES).startswith(
        "loop; not cluster: its kernels compute in float32, this is float64"
    )
    large = replace(SMALL, layer_sizes=(400, 1000, 5), batch_size=1000)
    backend = CupyBackend()
    assert [path.why_not(large) for path in backend.paths[1:]] == ["a step of 2.4 GFLOP is left to cuBLAS"] * 2
    assert path_of(backend, "graph").why_not(large) is None


def test_the_size_of_a_cluster_may_be_asked_for(cupy: FakeCupy) -> None:
    x, y = data(20)
    assert taken(CupyBackend(), x, y, SIZES, "cluster:16") == "cluster:16"
    assert "attribute 14 = 1" in cupy.events
    with pytest.raises(SettingError, match="a cluster has 1, 2, 4, 8, 16 thread blocks; got '3'"):
        taken(CupyBackend(), x, y, SIZES, "cluster:3")
    with pytest.raises(SettingError, match="no path 'steps:2'; choose one of auto, cluster, graph"):
        taken(CupyBackend(), x, y, SIZES, "steps:2")
    assert tuple(path.name for path in CupyBackend().paths) == CupyBackend.path_names
