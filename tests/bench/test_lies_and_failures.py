"""Wrong measurements that are planted are caught; what breaks costs only its own row."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from mlp_accel.bench import runs
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import Engine
from mlp_accel.bench.protocol import run_benchmark
from tests.bench.conftest import planted, times


def plant(monkeypatch: pytest.MonkeyPatch, behaviour: str, name: str = "numba") -> None:
    """Make the engine `name` a misbehaving one."""
    monkeypatch.setattr(runs, "Engine", lambda timeout, **_: Engine(planted(name, behaviour), timeout))


NOT_SYNCHRONISED = """
import threading
honest_load, honest_epoch, honest_params = BackendWorker.load, BackendWorker.epoch, BackendWorker.params
BackendWorker.pending = None
def load(self):  # the true losses are known beforehand, so that only the time is a lie
    answer = honest_load(self)
    self.known = [honest_epoch(self) for _ in range(10)]
    return honest_load(self)
def epoch(self):
    if self.pending:
        self.pending.join()
    self.pending = threading.Thread(target=lambda: (time.sleep(0.25), honest_epoch(self)))
    self.pending.start()
    time.sleep(0.2)
    return self.known.pop(0)
BackendWorker.load, BackendWorker.epoch = load, epoch"""

REMEMBERED = """
honest_load, honest_epoch, honest_params = BackendWorker.load, BackendWorker.epoch, BackendWorker.params
def load(self):
    answer = honest_load(self)
    self.reached = honest_params(self)
    self.known = [(honest_epoch(self), honest_params(self)) for _ in range(10)]
    return answer
def epoch(self):
    if not self.known:
        time.sleep(0.1)  # it takes its time
        return honest_epoch(self)
    answer, self.reached = self.known.pop(0)
    return answer
def params(self):
    return self.reached if self.known else honest_params(self)
BackendWorker.load, BackendWorker.epoch, BackendWorker.params = load, epoch, params
honest_evaluate = BackendWorker.evaluate
def evaluate(self):
    kept, self.trainer = self.trainer, Reached(self.reached)
    answer = honest_evaluate(self)
    self.trainer = kept
    return answer
class Reached:
    rests = 0
    def __init__(self, reached):
        self.params = lambda: reached
BackendWorker.evaluate = evaluate
"""
"""All that is asked for is known before the clock starts, parameters and all."""

LIES = {
    "half of the data": """
original = BackendWorker._trainer
def half(self, x, y, *factor):
    return original(self, x[: len(x) // 2], y[: len(y) // 2]) if len(x) == 800 else original(self, x, y, *factor)
BackendWorker._trainer = half""",
    "a wrong gradient": """
from mlp_accel.backends.numpy.backend import NumpyBackend
original = NumpyBackend.update
def wrong(self, params, *arguments):
    before = params[0].copy()
    (weights, bias), slots = original(self, params, *arguments)
    weights += 0.001 * (weights - before)
    return (weights, bias), slots
NumpyBackend.update = wrong""",
    "half of the data, but only after the first epoch": """
import numpy as np
original = BackendWorker.epoch
def lazy(self):
    answer = original(self)
    trainer = self.trainer
    (group,) = trainer._groups
    trainer.x, group.n, group.orders = trainer.x[:400], 400, np.arange(400)[None]
    return answer
BackendWorker.epoch = lazy""",
    "2 % of the samples skipped": """
original = BackendWorker._trainer
def most(self, x, y, *factor):
    return original(self, x[:784], y[:784], *factor)
BackendWorker._trainer = most""",
    "2 % of the samples skipped, but only after the first epoch": """
import numpy as np
original = BackendWorker.epoch
def lazy(self):
    answer = original(self)
    trainer = self.trainer
    (group,) = trainer._groups
    trainer.x, group.n, group.orders = trainer.x[:784], 784, np.arange(784)[None]
    return answer
BackendWorker.epoch = lazy""",
    "one layer frozen after the first epoch": """
from mlp_accel.backends.numpy.backend import NumpyBackend
original, updates = NumpyBackend.update, []
def update(self, params, *arguments):
    before = [array.copy() for array in params]
    (weights, bias), slots = original(self, params, *arguments)
    updates.append(len(weights))
    if len(updates) > 200 and len(weights) == 8:
        weights[...], bias[...] = before
    return (weights, bias), slots
NumpyBackend.update = update""",
    "epochs remembered": REMEMBERED,
    "epochs remembered, unless they are surprising": REMEMBERED
    + """
honest_restart = BackendWorker.restart
def restart(self, seed):
    self.known = []
    return honest_restart(self, seed)
BackendWorker.restart = restart""",
    "trained on the test set as well": """
import numpy as np
original = BackendWorker._trainer
def all_of_it(self, x, y, *factor):
    if len(x) == 800:
        x, y = np.concatenate([x, self.data.x_test]), np.concatenate([y, self.data.y_test])
    return original(self, x, y, *factor)
BackendWorker._trainer = all_of_it""",
    "trained on the test set when the clock had stopped": """
original = BackendWorker.evaluate
def evaluate(self):
    self.trainer = self._trainer(self.data.x_test, self.data.y_test)
    for _ in range(5):
        self.trainer.epoch()
    return original(self)
BackendWorker.evaluate = evaluate""",
    "the labels of the test set for its predictions": """
original = BackendWorker.evaluate
BackendWorker.evaluate = lambda self: {**original(self), "test_accuracy": 1.0}""",
    "not synchronised": NOT_SYNCHRONISED
    + """
def params(self):  # as a device does that is asked for a result
    if self.pending:
        self.pending.join()
    return honest_params(self)
BackendWorker.params = params""",
    "not synchronised, and not waiting when it is read": NOT_SYNCHRONISED,
    "no training at all": """
BackendWorker.epoch = lambda self: (1.0, 0.5)""",
    "a loss that is not a number": """
BackendWorker.epoch = lambda self: (float("nan"), 0.5)""",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_wrong_result_is_a_mismatch_and_never_a_time(monkeypatch: pytest.MonkeyPatch, config: Config, lie: str) -> None:
    plant(monkeypatch, LIES[lie] + AS_NUMPY)
    result = run_benchmark(["numpy", "numba"], replace(config, epochs=2))
    honest, liar = result.results
    assert honest.status == "ok", honest.reason
    assert liar.status == "mismatch", liar
    assert "surprising" not in lie or "an epoch that it could not know beforehand took" in str(liar.reason)
    assert "synchronised" not in lie or "clock had stopped" in str(liar.reason) or "clock stopped" in str(liar.reason)
    assert liar.reason
    assert liar.epoch_seconds is None
    assert liar.cold_start_seconds is None
    json.dumps(result.to_dict(), allow_nan=False)


AS_NUMPY = """
init = BackendWorker.__init__
BackendWorker.__init__ = lambda self, name, *arguments: init(self, "numpy", *arguments)"""
"""The planted worker computes with NumPy, whatever it is called: it starts faster."""


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("import ctypes\nBackendWorker.epoch = lambda self: ctypes.string_at(0)", "SIGSEGV"),
        ("import os\nBackendWorker.epoch = lambda self: os._exit(7)", "exit status 7"),
        (
            "def epoch(self): raise MemoryError('no room for 3 TiB')\nBackendWorker.epoch = epoch",
            "out of memory: no room for 3 TiB",
        ),
        ("import sys\nsys.exit('cannot even start')", "cannot even start"),
    ],
)
def test_a_crash_costs_only_its_own_row(monkeypatch: pytest.MonkeyPatch, config: Config, behaviour: str, reason: str) -> None:
    plant(monkeypatch, behaviour + AS_NUMPY)
    honest, broken = run_benchmark(["numpy", "numba"], replace(config, epochs=2)).results
    assert honest.status == "ok"
    assert broken.status == "failed"
    assert reason in str(broken.reason)
    assert broken.epoch_seconds is None


def test_without_the_reference_nothing_is_called_right(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    plant(monkeypatch, "import sys\nsys.exit(1)", "numpy")
    reference, other = run_benchmark(["numpy", "numba"], replace(config, epochs=1)).results
    assert reference.status == "failed"
    assert other.status == "mismatch"
    assert "the reference (numpy loop) has failed" in str(other.reason)


def test_a_training_that_carries_rounding_errors_away_is_called_unstable(config: Config) -> None:
    unstable = replace(config, learning_rate=300.0, activation="sigmoid", layer_sizes=(8, 64, 64, 3))
    rows = run_benchmark(["numpy", "numba"], replace(unstable, epochs=1)).results
    assert rows[1].status == "mismatch"
    assert "the training is unstable at learning rate 300" in str(rows[1].reason)


def test_a_wrong_gradient_is_not_blamed_on_the_training(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    plant(monkeypatch, LIES["a wrong gradient"] + AS_NUMPY)
    reason = run_benchmark(["numpy", "numba"], replace(config, epochs=1)).results[1].reason
    assert "differ from the reference" in str(reason)
    assert "unstable" not in str(reason)


@pytest.mark.parametrize(
    ("exception", "words"),
    [
        ("from mlp_accel.errors import SettingError\nerror = SettingError('too many threads')", "too many threads"),
        ("from mlp_accel.errors import DatasetError\nerror = DatasetError('the file is gone')", "the file is gone"),
        ("error = MemoryError('no room')", "out of memory: no room"),
    ],
)
def test_what_the_user_can_fix_is_told_apart(monkeypatch: pytest.MonkeyPatch, config: Config, exception: str, words: str) -> None:
    plant(monkeypatch, f"{exception}\ndef load(self): raise error\nBackendWorker.load = load{AS_NUMPY}")
    honest, refused = run_benchmark(["numpy", "numba"], replace(config, epochs=1)).results
    assert honest.status == "ok"
    assert (refused.status, refused.refused) == ("failed", True)
    assert words in str(refused.reason)


def test_a_backend_that_hangs_costs_only_its_own_row(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    plant(monkeypatch, "BackendWorker.epoch = lambda self: time.sleep(1000)" + AS_NUMPY)
    honest, hung = run_benchmark(["numpy", "numba"], replace(config, epochs=2), timeout=8).results
    assert honest.status == "ok"
    assert len(times(honest).samples) == 2
    assert (hung.status, hung.reason) == ("failed", "no answer to 'epoch' within 8 s")


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process can be limited on Linux")
def test_a_backend_that_runs_out_of_memory_costs_only_its_own_row(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    hungry = """
import resource
original = BackendWorker.epoch
def epoch(self):
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    self.hoard = np.ones(2**32)
    return original(self)
BackendWorker.epoch = epoch"""
    plant(monkeypatch, "import numpy as np" + hungry + AS_NUMPY)
    honest, starved = run_benchmark(["numpy", "numba"], replace(config, epochs=1)).results
    assert honest.status == "ok"
    assert (starved.status, starved.refused) == ("failed", True)
    assert "out of memory: Unable to allocate 32.0 GiB" in str(starved.reason)
