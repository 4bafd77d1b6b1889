"""Epoch times under pytest-benchmark, for those who keep their history there: ``pytest benchmarks/``.

The engines are those of ``mlp-accel bench``, and the seconds are those of their own clocks, but they run in blocks, one after
the other, so a machine that slows down meanwhile is unfair to the later ones. Published figures come from ``mlp-accel bench``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlp_accel.backends import BACKENDS, backend_class
from mlp_accel.backends.paths import LOOP
from mlp_accel.backends.threads import thread_count
from mlp_accel.bench.checks import losses_differ, parameters_differ
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import Engine, EngineError
from mlp_accel.bench.engines.peers import PEERS
from mlp_accel.bench.runs import Measurement
from mlp_accel.training.parameters import load_params

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed: pip install '.[benchmark]'")

ROUNDS = 10
WARM_UP_ROUNDS = 2
CONFIG = Config(threads=thread_count())


ENGINES = [
    *((name, path) for name in reversed(BACKENDS) for path in (LOOP, *backend_class(name).path_names)),
    *((name, None) for name in PEERS),
]
"""Each backend by each of its paths, and the peers."""


class EngineTime:
    """The sum of what the clock of an engine has measured: the timer of these benchmarks."""

    seconds = 0.0

    @classmethod
    def now(cls) -> float:
        """Seconds of training so far."""
        return cls.seconds


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[float]]]:
    """Parameters of the NumPy loop after its first steps, and its loss in the first epoch."""
    path = tmp_path_factory.mktemp("reference") / "numpy.npz"
    engine = started("numpy", LOOP)
    engine.call("check", str(path))
    yield path, [engine.call("epoch", False)["loss"]]
    engine.close()


def started(name: str, path: str | None) -> Engine:
    """A worker that is ready to train."""
    engine = Engine()
    engine.call("create", "peer" if name in PEERS else "backend", name, CONFIG.to_dict(), path)
    engine.call("warm_up")
    engine.call("load")
    return engine


@pytest.mark.parametrize(("name", "path"), ENGINES)
@pytest.mark.benchmark(group="MNIST 784-32-10, batch 128, an epoch", timer=EngineTime.now)
def test_epoch(benchmark: Any, reference: tuple[Path, list[float]], tmp_path: Path, name: str, path: str | None) -> None:
    """An epoch of MNIST; right as ``bench`` understands it."""
    try:
        engine = started(name, path)
    except EngineError as error:
        if error.status == "unavailable" or error.refused:  # this path cannot be taken here
            pytest.skip(f"{name}: {error.reason}")
        raise
    losses = []

    def epoch() -> None:
        answer = engine.call("epoch", False)
        EngineTime.seconds += answer["seconds"]
        losses.append(answer["loss"])

    try:
        if name in BACKENDS:
            ours = tmp_path / "ours.npz"
            engine.call("check", str(ours))
            assert parameters_differ(load_params(ours), load_params(reference[0]), CONFIG.dtype) is None
        benchmark.pedantic(epoch, rounds=ROUNDS, iterations=1, warmup_rounds=WARM_UP_ROUNDS)
    finally:
        engine.close()
    assert losses_differ(losses, reference[1], Measurement.of(name).tolerance) is None
