"""Peers train the same network in the same way; those that cannot say why."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel import get_backend, init_params, load
from mlp_accel.backends.threads import available_cores
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.peers import PEERS, peer_class
from mlp_accel.bench.engines.peers.base import Peer
from mlp_accel.bench.protocol import run_benchmark
from mlp_accel.datasets import Dataset
from mlp_accel.errors import PeerUnavailableError
from mlp_accel.optimizers import OPTIMIZERS, find_optimizer
from mlp_accel.schedules import find_schedule
from mlp_accel.training.trainer import Trainer
from tests.bench.conftest import there, times

N = 150


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, N + 50)
    x = rng.normal(size=(N + 50, 8)) + 4 * np.eye(3, 8)[y]
    path = tmp_path_factory.mktemp("data") / "clouds.npz"
    np.savez(path, x_train=x[:N], y_train=y[:N], x_test=x[N:], y_test=y[N:])
    return load(path)


def settings(data: Dataset, **changes: Any) -> Config:
    config = Config(
        layer_sizes=(8, 6, 3),
        dtype="float64",
        batch_size=16,
        learning_rate=0.1,
        threads=available_cores(),  # fewer would change the affinity of the process that runs the tests
        path="loop",
        data=data.name,
        n_train=len(data.x_train),
    )
    return replace(config, **changes)


SLOW_TO_COMPILE = "pytorch-compile"
"""Has a test of its own: each network costs it seconds."""


@pytest.fixture(params=[name for name in PEERS if name != SLOW_TO_COMPILE])
def peer_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    missing = _missing(name)
    if missing:
        pytest.skip(f"peer {name}: {missing} is not installed")
    return name


def _missing(name: str) -> str | None:
    modules = peer_class(name).modules
    return next((module for module in modules if importlib.util.find_spec(module.partition(".")[0]) is None), None)


def make(name: str, config: Config) -> Peer:
    try:
        return peer_class(name)(config)
    except PeerUnavailableError as error:
        pytest.skip(f"peer {name}: {error}")


def our_training(data: Dataset, layer_sizes: list[int], rate: float, activation: str = "tanh", gradient: str = "exact") -> Trainer:
    """In batches of all samples."""
    start, backend = init_params(layer_sizes), get_backend("numpy", "float64")
    settings: dict[str, Any] = {"activation": activation, "gradient": gradient}
    return Trainer(data.x_train, data.y_train, [start], backend, batch_size=N, learning_rates=[rate], **settings)


@pytest.mark.parametrize("gradient", ["exact", "notebook"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
@pytest.mark.parametrize("hidden", [[6], [7, 5]])
def test_on_one_batch_a_peer_reaches_the_same_parameters_as_we(
    clouds: Dataset, peer_name: str, hidden: list[int], activation: str, gradient: str
) -> None:
    """With one batch an epoch the order of the samples does not matter."""
    rate = 0.5 if gradient == "exact" else 0.01
    changes = {"layer_sizes": [8, *hidden, 3], "activation": activation, "gradient": gradient, "learning_rate": rate}
    peer = make(peer_name, settings(clouds, batch_size=N, **changes))
    peer.warm_up()
    peer.load()
    ours = our_training(clouds, [8, *hidden, 3], rate, activation=activation, gradient=gradient)
    for _ in range(5):
        epoch = ours.epoch()
        (loss,), (accuracy,) = epoch.losses, epoch.accuracies
        their_loss, their_accuracy = peer.epoch()
        assert their_loss == pytest.approx(loss, rel=1e-6)  # PyTorch's sum of losses is float32
        assert their_accuracy in (None, pytest.approx(accuracy))
    for (weights, bias), (expected_weights, expected_bias) in zip(peer.params(), ours.params(), strict=True):
        np.testing.assert_allclose(weights, expected_weights, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(bias, expected_bias, rtol=1e-10, atol=1e-12)


RULES: dict[str, dict[str, Any]] = {
    "sgd": {"weight_decay": 0.02},
    "momentum": {"momentum": 0.8, "weight_decay": 0.02},
    "nesterov": {"momentum": 0.8, "weight_decay": 0.02},
    "adam": {"weight_decay": 0.02},
    "adamw": {"weight_decay": 0.02},
}


@pytest.mark.parametrize("decay", [True, False], ids=["decay", "no decay"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_peer_trains_by_the_same_rule_as_we(clouds: Dataset, peer_name: str, optimizer: str, decay: bool) -> None:
    rule = RULES[optimizer] | ({} if decay else {"weight_decay": 0.0})
    peer = make(peer_name, settings(clouds, optimizer=optimizer, learning_rate=0.01, batch_size=N, **rule))
    peer.warm_up()
    peer.load()
    backend = get_backend("numpy", "float64")
    ours = Trainer(
        *(clouds.x_train, clouds.y_train, [init_params([8, 6, 3])], backend),
        batch_size=N,
        learning_rates=0.01,
        optimizers=[find_optimizer(optimizer, **rule)],
    )
    for _ in range(4):
        peer.epoch()
        ours.epoch()
    # scikit-learn adds epsilon before the correction for the first steps (the last form in the paper's section 2), we after it.
    tolerance = 1e-4 if (peer_name, optimizer) == ("scikit-learn", "adam") else 1e-9
    for (weights, bias), (expected_weights, expected_bias) in zip(peer.params(), ours.params(), strict=True):
        np.testing.assert_allclose(weights, expected_weights, rtol=tolerance, atol=1e-2 * tolerance)
        np.testing.assert_allclose(bias, expected_bias, rtol=tolerance, atol=1e-2 * tolerance)


def test_a_falling_rate_is_followed_step_by_step_or_it_is_said_that_it_is_not(clouds: Dataset, peer_name: str) -> None:
    falling = {"schedule": "linear", "schedule_epochs": 2, "learning_rate": 0.1, "activation": "tanh"}
    peer = make(peer_name, settings(clouds, **falling))
    form = peer.warm_up()["form"]
    if not peer.schedules:
        assert form == f"{peer.form}, at a constant rate"
        return
    assert form == peer.form
    peer.load()
    backend = get_backend("numpy", "float64")
    ours = Trainer(
        *(clouds.x_train, clouds.y_train, [init_params([8, 6, 3])], backend),
        batch_size=16,
        learning_rates=0.1,
        schedule=find_schedule("linear"),
        epochs=2,
    )
    for _ in range(2):
        ours.epoch()
        peer.epoch()
    for (weights, bias), (expected_weights, expected_bias) in zip(peer.params(), ours.params(), strict=True):
        np.testing.assert_allclose(weights, expected_weights, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(bias, expected_bias, rtol=1e-8, atol=1e-10)


@pytest.mark.skipif(_missing(SLOW_TO_COMPILE) is not None, reason="torch is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch warns of what its compiler does
def test_the_compiled_step_trains_as_we_do_also_after_a_new_start(clouds: Dataset) -> None:
    rule = {"optimizer": "momentum", "momentum": 0.8, "schedule": "linear", "schedule_epochs": 2, "learning_rate": 0.1}
    peer = make(SLOW_TO_COMPILE, settings(clouds, **rule))
    assert peer.warm_up()["form"] == "torch.compile of the step"
    peer.load()
    peer.epoch()
    peer.restart(0)
    ours = Trainer(
        *(clouds.x_train, clouds.y_train, [init_params([8, 6, 3])], get_backend("numpy", "float64")),
        batch_size=16,
        optimizers=[find_optimizer("momentum", momentum=0.8)],
        learning_rates=0.1,
        schedule=find_schedule("linear"),
        epochs=2,
    )
    for _ in range(2):
        epoch = ours.epoch()
        loss, accuracy = peer.epoch()
        assert loss == pytest.approx(epoch.losses[0], rel=1e-6)
        assert accuracy == pytest.approx(epoch.accuracies[0])
    for (weights, bias), (expected_weights, expected_bias) in zip(peer.params(), ours.params(), strict=True):
        np.testing.assert_allclose(weights, expected_weights, rtol=1e-5, atol=1e-7)  # its learning rate is a float32
        np.testing.assert_allclose(bias, expected_bias, rtol=1e-5, atol=1e-7)


def test_every_sample_counts_once_also_those_of_a_short_last_batch(clouds: Dataset, peer_name: str) -> None:
    peer = make(peer_name, settings(clouds, learning_rate=1e-12))  # 150 samples are 9 batches of 16 and one of 6
    peer.warm_up()
    peer.load()
    loss, accuracy = peer.epoch()
    everything = our_training(clouds, [8, 6, 3], 1e-12).epoch()
    assert loss == pytest.approx(everything.losses[0], rel=1e-6)
    assert accuracy in (None, pytest.approx(everything.accuracies[0]))


def test_the_test_set_is_judged_with_the_parameters_it_reached(clouds: Dataset, peer_name: str) -> None:
    peer = make(peer_name, settings(clouds))
    peer.warm_up()
    peer.load()
    before = peer.evaluate()
    for _ in range(5):
        peer.epoch()
    after = peer.evaluate()
    assert after["test_loss"] < before["test_loss"]
    assert after["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("scikit-learn", {"layer_sizes": [8, 6, 2]}, "two classes"),
        ("scikit-learn", {"gradient": "notebook"}, "only the exact gradient"),
        ("pytorch", {"gradient": "notebook"}, "only the exact gradient"),
        ("jax", {"gradient": "notebook"}, "only the exact gradient"),
        ("notebook", {"layer_sizes": [8, 6, 5, 3]}, "exactly one hidden layer"),
        ("notebook", {"activation": "relu"}, "it has no relu, only tanh"),
        ("pytorch", {"activation": "gelu"}, "it has no gelu, only tanh, relu, sigmoid"),
        ("notebook", {"optimizer": "momentum", "momentum": 0.9}, "it has no momentum, only sgd"),
        ("scikit-learn", {"optimizer": "adamw", "weight_decay": 0.01}, "it has no adamw, only sgd, momentum, nesterov, adam"),
        ("scikit-learn", {"weight_decay": 0.01}, "it has no weight decay that means the same as ours"),
    ],
)
def test_what_a_peer_has_no_form_of_is_said(clouds: Dataset, name: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(PeerUnavailableError, match=reason):
        peer_class(name)(settings(clouds, **changes))


@pytest.mark.parametrize("name", ["scikit-learn", "pytorch", "pytorch-handwritten", "jax"])
def test_a_peer_that_is_not_installed_says_how_to_get_it(clouds: Dataset, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in peer_class(name).modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PeerUnavailableError, match=r"not installed .* python -m pip install 'mlp-accel\[peers\]'"):
        peer_class(name)(settings(clouds))


def test_listing_the_peers_imports_none_of_their_libraries() -> None:
    code = (
        "import sys; from mlp_accel.bench.engines.peers import PEERS, peer_class\n"
        "for name in PEERS: peer_class(name)\n"
        "print([name for name in ('sklearn', 'torch', 'jax') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_in_the_benchmark_peers_take_turns_with_backends_and_are_checked(clouds: Dataset) -> None:
    """In worker processes, limited to one thread."""
    names = [name for name in PEERS if _missing(name) is None and name != SLOW_TO_COMPILE]
    config = settings(clouds, dtype="float32", threads=1, learning_rate=0.01)
    reference, *peers = run_benchmark(["numpy", *names], replace(config, epochs=2)).results
    for peer in peers:
        assert (peer.kind, peer.status) == ("peer", "ok"), peer.reason
        assert (peer.device, peer.path) == ("cpu", None)
        assert peer.form == peer_class(peer.name).form
        assert peer.versions
        assert len(times(peer).samples) == 2
        assert peer.loss[0] == pytest.approx(reference.loss[0], rel=0.05)
        assert there(peer.cores_used) > 0


THREADS = """
import sys, threadpoolctl, time
from mlp_accel.bench.engines.worker import create
peer = create("peer", sys.argv[1], eval(sys.argv[2]))
peer.warm_up()
pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
if "torch" in sys.modules:
    pools.append(sys.modules["torch"].get_num_threads())
if "jax" in sys.modules:
    peer.load()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(20):
        peer.epoch()
    pools = [round((time.process_time() - cpu) / (time.perf_counter() - wall)) or 1]
print(max(pools))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to list threads from")
def test_one_thread_means_one(clouds: Dataset, peer_name: str) -> None:
    command = [sys.executable, "-c", THREADS, peer_name, repr(settings(clouds, threads=1).to_dict())]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "1\n", result.stderr
