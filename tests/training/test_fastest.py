"""The backend that is found out by measuring: what is taken, what is kept, and that the training is the user's own."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from mlp_accel import (
    BackendUnavailableError,
    PathError,
    SettingError,
    evaluate,
    get_backend,
    init_params,
    mini_batch_sgd,
    network,
    train_many,
)
from mlp_accel.backends import kept_answers
from mlp_accel.cli.options import backends_to_measure
from mlp_accel.doctor import caches, report
from mlp_accel.training import fastest
from mlp_accel.training.fastest import Candidate, Fastest, Measurement
from tests.conftest import require

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(300, 6)).astype(np.float32), RNG.integers(0, 3, 300)
LAYERS = [6, 5, 3]
TIMES = {("numpy", "loop"): 0.2, ("numba", "sparse"): None, ("numba", "dense"): 0.025, ("numba", "loop"): 0.9}

Timed = Callable[..., Candidate]
TIMED: Timed = fastest._timed


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What is measured is kept in a folder of the test; Numba's kernels stay where they are."""
    monkeypatch.setattr(kept_answers, "cache_root", lambda: tmp_path)
    return tmp_path / fastest.FOLDER


@pytest.fixture
def measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """NumPy and Numba run here, and take the times of `TIMES`; the names of what is measured."""
    require(request, "numba")
    names: list[str] = []

    def timed(start: Any, x: Any, y: Any, networks: Any, backend: str, path: str, *_: object) -> Candidate:
        names.append(f"{backend} {path}")
        seconds = TIMES[backend, path]
        return Candidate(backend, path, seconds, None if seconds else "it takes sparse data alone")

    usable(monkeypatch, "numpy", "numba")
    monkeypatch.setattr(fastest, "_timed", timed)
    return names


def usable(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def unavailable(name: str) -> BackendUnavailableError | None:
        return None if name in names else BackendUnavailableError(name, "no device", "none is plugged in", "plug one in")

    monkeypatch.setattr(fastest, "unavailable", unavailable)


def train(backend: Any = "fastest", **settings: Any) -> Any:
    return mini_batch_sgd(X, Y, init_params(LAYERS), **{"backend": backend, "epochs": 2, "batch_size": 32, **settings})


def bits(params: Sequence[tuple[Any, Any]]) -> list[bytes]:
    return [array.tobytes() for pair in params for array in pair]


def test_the_fastest_is_taken_and_the_history_says_why(measured: list[str], cache: Path) -> None:
    history = train()
    assert (history.backend, history.path) == ("numba", "dense")
    [file] = cache.glob("*.json")
    words = "fastest: numba dense, 0.025 s an epoch against numpy loop 0.2, numba loop 0.9; cupy: no device"
    assert history.selection.startswith(words)
    assert str(file) in history.selection
    assert history.to_dict()["selection"] == history.selection
    assert measured == ["numpy loop", "numba sparse", "numba dense", "numba loop"]


def test_what_is_kept_is_not_measured_again(measured: list[str], cache: Path) -> None:
    train()
    measured.clear()
    assert train().path == "dense"
    mini_batch_sgd(X[1:], Y[1:], init_params(LAYERS, seed=3), backend="fastest", epochs=1, batch_size=32, learning_rate=0.1)
    assert not measured
    for others in ({"batch_size": 64}, {"optimizer": "adam"}, {"activation": "relu"}, {"path": "loop"}):
        measured.clear()
        train(**others)
        assert measured, others


def test_the_training_is_that_of_the_backend_and_path_by_name(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usable(monkeypatch, backend_name, "numpy")
    monkeypatch.setattr(fastest, "EPOCHS", 1)
    before, state = (X.copy(), Y.copy()), random.getstate()
    history = train()
    assert np.array_equal(X, before[0])
    assert np.array_equal(Y, before[1])
    assert random.getstate() == state
    by_name = train(get_backend(history.backend), path=history.path)
    assert bits(history.params) == bits(by_name.params)
    assert history.loss == by_name.loss


def test_every_backend_is_measured_by_each_of_its_paths(backend_name: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    usable(monkeypatch, backend_name, "numpy")
    monkeypatch.setattr(fastest, "EPOCHS", 1)
    lines: list[str] = []
    train(Fastest(say=lines.append))
    [file] = cache.glob("*.json")
    found = Measurement.from_dict(json.loads(file.read_text()))
    paths = {(name, path.name) for name in {backend_name, "numpy"} for path in get_backend(name).paths}
    paths |= {(name, "loop") for name in {backend_name, "numpy"}}
    assert {(row.backend, row.path) for row in found.candidates if row.path} == paths
    for row in found.candidates:
        assert (row.seconds is None) != (row.problem is None)
        assert any(line.strip().startswith(f"{row.name}: ") for line in lines)
    times = [row.seconds for row in found.candidates if row.seconds]
    assert times == sorted(times)
    assert "300 samples" in lines[0]


def test_without_numba_and_cupy_numpy_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    usable(monkeypatch, "numpy")
    history = train()
    assert (history.backend, history.path) == ("numpy", "loop")
    assert "numba: no device (none is plugged in)" in history.selection


def test_one_that_fails_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    usable(monkeypatch, "numpy", "numba")

    def broken(name: str, dtype: str = "float32") -> Any:
        if name == "numba" and dtype == "float64":
            raise RuntimeError("a kernel is broken")
        return get_backend(name, dtype)

    monkeypatch.setattr(fastest, "get_backend", broken)
    lines: list[str] = []
    assert train(Fastest("float64", lines.append)).backend == "numpy"
    assert "  numba dense: left out: a kernel is broken" in lines


def test_a_path_that_is_asked_for_restricts_the_choice(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    history = train(path="loop")
    assert (history.backend, history.path) == ("numpy", "loop")
    monkeypatch.setattr(fastest, "_timed", TIMED)
    with pytest.raises(PathError, match=r"no backend can train this: numpy scenic: the backend numpy has no path 'scenic'"):
        train(path="scenic")


def test_wrong_data_are_the_same_error_as_ever(measured: list[str]) -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(n, 7\)"):
        mini_batch_sgd(X, Y, init_params([7, 3]), backend="fastest")
    assert not measured


@pytest.mark.parametrize("damage", ["", "[1]", '{"candidates": []}', "{", "null"])
def test_a_damaged_file_is_measured_again_and_said(
    measured: list[str], cache: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    train()
    [file] = cache.glob("*.json")
    sound = json.loads(file.read_text())["candidates"]
    for content in (damage, json.dumps({**json.loads(file.read_text()), "candidates": [{**sound[0], "seconds": -1}]})):
        file.write_text(content)
        measured.clear()
        caplog.clear()
        assert train().path == "dense"
        assert measured
        assert f"{file} is damaged" in caplog.text
        assert json.loads(file.read_text())["candidates"] == sound


def test_where_nothing_can_be_kept_it_is_measured_and_said(
    measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(kept_answers, "cache_root", lambda: tmp_path / "file")
    assert "kept" not in train().selection
    assert "the fastest backend is looked for at every start, because it cannot be kept" in caplog.text


def test_another_process_that_measures_is_waited_for(measured: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    cache.mkdir(parents=True)
    monkeypatch.setattr(fastest, "PATIENCE", 0.01)
    lines: list[str] = []
    with FileLock(cache / ".lock", thread_local=False):
        assert train(Fastest("float32", lines.append)).path == "dense"
    assert lines[:2] == [
        "fastest: another process is measuring; waiting for it",
        "fastest: it is still measuring; not waiting any longer",
    ]


def test_auto_says_what_a_measurement_would_have_it_take(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TIMES, ("numba", "loop"), 0.001)
    assert train("auto").selection.startswith("auto: ")
    assert not measured
    train()
    measured.clear()
    chosen = train("auto")
    assert "; fastest would take numba loop, 0.001 s an epoch against " in chosen.selection
    assert chosen.selection.startswith("auto: ")
    assert "would take" not in train("numpy").selection, "it was named"
    assert "would take" not in train("auto", path="loop").selection, "another question"
    assert not measured


def test_several_networks_with_rules_of_two_kinds(measured: list[str]) -> None:
    many = train_many(
        *(X, Y, [init_params(LAYERS, seed) for seed in range(3)]),
        backend="fastest",
        epochs=1,
        optimizer="momentum",
        weight_decay=[0.0, 0.1, 0.0],
    )
    assert [history.path for history in many] == ["dense"] * 3
    assert all(history.selection.startswith("fastest: numba dense") for history in many)


def test_sparse_matrices_and_large_data_are_measured_by_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    usable(monkeypatch, "numpy")
    monkeypatch.setattr(fastest, "MOST_STEPS", 8)
    lines: list[str] = []
    x = sparse.random(900, 6, 0.2, "csr", np.float32, rng=1)
    history = mini_batch_sgd(x, np.arange(900) % 3, init_params(LAYERS), backend=Fastest(say=lines.append), epochs=1, batch_size=10)
    assert history.backend == "numpy"
    assert "on 75 of 900 samples" in lines[0]


def test_a_step_of_ones_own_is_not_run_for_it() -> None:
    with pytest.raises(SettingError, match=r"'fastest' does not measure a step of your own; name a backend: cupy, numba, numpy"):
        train(step=network.train_step)


def test_where_there_is_no_network_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    words = r"'fastest' from .* is measured for a network and its data, by train, mini_batch_sgd, .*; here choose from cupy, numba"
    with pytest.raises(SettingError, match=words):
        get_backend("fastest")
    with pytest.raises(SettingError, match=words):
        backends_to_measure("numpy,fastest")
    monkeypatch.setenv("MLP_ACCEL_BACKEND", "fastest")
    for call in (get_backend, lambda: backends_to_measure(None), lambda: evaluate(None, init_params(LAYERS), X, Y, "tanh")):
        with pytest.raises(SettingError, match=r"the environment variable MLP_ACCEL_BACKEND"):
            call()


def test_the_variable_is_heeded(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLP_ACCEL_BACKEND", "fastest")
    assert train(None).path == "dense"
    assert report._select("fastest", "MLP_ACCEL_BACKEND", {}, [])["backend"] == "fastest"


def test_a_checkpoint_goes_on_by_its_own_backend(measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = train(epochs=4)
    train(checkpoint=tmp_path / "run")
    fastest.forget()
    monkeypatch.setitem(TIMES, ("numpy", "loop"), 1e-6)
    measured.clear()
    resumed = train(epochs=4, checkpoint=tmp_path / "run")
    assert (resumed.backend, resumed.path, resumed.resumed) == ("numba", "dense", 2)
    assert bits(resumed.params) == bits(whole.params)
    assert not measured


def test_doctor_lists_what_is_kept_and_clears_it(
    measured: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLP_ACCEL_CACHE_DIR", str(tmp_path))
    train()
    [file] = cache.glob("*.json")
    [entry] = caches.kept()["fastest"]
    assert entry["file"] == str(file)
    assert entry["found"].startswith("6-5-3 at batch size 32")
    assert "numba dense, 0.025 s an epoch against numpy loop 0.2" in entry["found"]
    file.with_name("0.json").write_text("no JSON")
    assert [entry["found"] for entry in caches.kept()["fastest"]].count("damaged") == 1
    monkeypatch.setattr(caches, "_current", lambda: None)
    assert sorted(caches.clean()) == sorted([file, file.with_name("0.json")])
    assert caches.kept()["fastest"] == []


@pytest.mark.filterwarnings("ignore:Maximum iterations")
def test_the_estimator_is_measured_too(measured: list[str], caplog: pytest.LogCaptureFixture) -> None:
    sklearn = pytest.importorskip("mlp_accel.sklearn")
    settings = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0, "batch_size": 50, "tol": 0}
    with caplog.at_level(logging.INFO, "mlp_accel"):
        found = sklearn.MLPClassifier(backend="fastest", **settings).fit(X, Y)
    assert (found.backend_, found.path_) == ("numba", "dense")
    assert found.selection_.startswith("fastest: numba dense")
    named = sklearn.MLPClassifier(backend="numba", path="dense", **settings).fit(X, Y)
    assert bits([*zip(found.coefs_, found.intercepts_, strict=True)]) == bits([*zip(named.coefs_, named.intercepts_, strict=True)])
    assert np.array_equal(found.predict_proba(X), named.predict_proba(X))
    measured.clear()
    fastest.forget()
    found.partial_fit(X, Y)
    assert not measured, "it goes on by the same backend"
    with pytest.raises(ValueError, match="for lbfgs name a backend"):
        sklearn.MLPClassifier(backend="fastest", solver="lbfgs").fit(X, Y)
