"""Rows of our own: the parity of each path with NumPy, epoch times of one network and of many, and the map of who is fastest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_stages.cases import BATCH, MNIST, Case, reference_losses, samples, trainer
from gpu_stages.device import gpu_backend
from gpu_stages.rows import Effort
from gpu_stages.timing import epoch_times, warm_up
from mlp_accel import get_backend, load
from mlp_accel.backends import unavailable
from mlp_accel.backends.base import Backend
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.bench.checks import PARAMETER_TOLERANCE, PEER, losses_differ
from mlp_accel.training.train import evaluate
from mlp_accel.training.trainer import Trainer

PARITY_STEPS = 5
TF32_TOLERANCE = 5e-3

MAP_STEPS = 20
"""Steps of an epoch in the map."""

MAP_SHARE = 0.25
"""Share of `Effort.seconds` that each contender of a cell of the map gets: who is fastest shows soon."""


def parity(path: str, effort: Effort, case: Case = MNIST, tf32: bool = False) -> dict[str, Any]:
    """Compare a path with NumPy: its parameters after a few steps, its loss after an epoch; and two runs with each other."""
    backend = gpu_backend(tf32)
    x, y = samples(case, effort.samples)
    few = x[: PARITY_STEPS * BATCH], y[: PARITY_STEPS * BATCH]
    (ours, our_loss), (theirs, their_loss) = (
        _train(case, few, by, way) for by, way in ((backend, path), (get_backend("numpy"), "loop"))
    )
    difference = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))
    tolerance = TF32_TOLERANCE if tf32 else PARAMETER_TOLERANCE["float32"]
    problems = [losses_differ([our_loss], [their_loss], PEER)]
    if not difference <= tolerance:  # NaN too
        problems.append(f"after {PARITY_STEPS} steps the parameters differ by {difference:.1e} (tolerance {tolerance:.0e})")
    first, loss = _train(case, (x, y), backend, path)
    again, _ = _train(case, (x, y), backend, path)
    problems.append(losses_differ([loss], reference_losses(case, effort.samples)[:1], PEER))
    if not all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)):
        problems.append("a second training gives other bits")
    return {
        "mismatch": "; ".join(filter(None, problems)) or None,
        "device": backend.device,
        "case": str(case),
        "parameter_difference": difference,
        "loss": [loss],
        "numpy_loss": reference_losses(case, effort.samples)[0],
    }


def _train(case: Case, data: Any, backend: Backend, path: str) -> tuple[list[npt.NDArray[Any]], float]:
    training = trainer(case, data, backend, path)
    loss = training.epoch().losses[0]
    return [array for pair in training.params() for array in pair], loss


class OurEpochs:
    """Networks in training by a path, for `epoch_times`: the wall clock is that of `mlp-accel bench`."""

    def __init__(self, backend: CupyBackend, path: str, case: Case, networks: int, n: int | None) -> None:
        self.training = trainer(case, samples(case, n), backend, path, networks)
        self._device_seconds = backend.launch_clock()

    def epoch(self) -> tuple[Sequence[float], float, float | None]:
        """See `gpu_stages.timing.Epochs`."""
        result = self.training.epoch()
        return result.losses, result.seconds, self._device_seconds()


def times(path: str, effort: Effort, case: Case = MNIST, tf32: bool = False, networks: int = 1) -> dict[str, Any]:
    """Epoch times of a path, for one network or many side by side; the losses are compared with NumPy's."""
    backend = gpu_backend(tf32)
    engines: list[OurEpochs] = []

    def make() -> OurEpochs:
        engines.append(OurEpochs(backend, path, case, networks, effort.samples))
        return engines[0]

    fields = epoch_times(make, effort, networks)
    losses = fields.pop("first_epoch_losses")
    problems = [losses_differ(fields["loss"], reference_losses(case, effort.samples), PEER)]
    if networks > 1:
        problems.append(_last_network(case, effort, networks, losses[-1]))
    fields |= {"case": str(case), "taken": str(engines[0].training.taken), "device": backend.device, "versions": backend.versions()}
    if case is MNIST:
        fields |= _test_accuracy(backend, engines[0].training.params())
    fields["memory_pool_bytes"] = int(backend.xp.get_default_memory_pool().total_bytes())
    return {"mismatch": "; ".join(filter(None, problems)) or None, **fields}


def _last_network(case: Case, effort: Effort, networks: int, loss: float) -> str | None:
    """What is wrong with the first loss of the last of many networks: NumPy trains that one alone."""
    training = trainer(case, samples(case, effort.samples), get_backend("numpy"), "loop", first_seed=networks - 1)
    expected = training.epoch().losses[0]
    if abs(loss - expected) <= PEER.first * expected:
        return None
    return f"the first loss of network {networks - 1} is {loss:.6g}, NumPy's is {expected:.6g}"


def _test_accuracy(backend: Backend, params: Any) -> dict[str, Any]:
    mnist = load("mnist")
    loss, accuracy = evaluate(backend, params, mnist.x_test, mnist.y_test, "tanh")
    return {"test_loss": loss, "test_accuracy": accuracy}


def cell(hidden: int, batch: int, effort: Effort) -> dict[str, Any]:
    """Seconds for a step by each way to train, and who is fastest, for one size of the hidden layer and of the minibatch.

    ``rule`` is the path that is taken on the GPU where nobody asks for another one, and ``rule_costs`` how many times longer it
    takes than the fastest there.
    """
    gpu = gpu_backend()
    case = Case((784, hidden, 10), learning_rate=0.01)
    x, y = samples(case, effort.samples)
    n = min(len(x), MAP_STEPS * batch)

    def training(backend: Backend, path: str | None) -> Trainer:
        return trainer(case, (x[:n], y[:n]), backend, path, batch_size=batch)

    rule = training(gpu, None).taken.name
    on_gpu = dict.fromkeys((rule, "loop", "graph"))
    contenders: dict[str, tuple[Backend, str | None]] = {path: (gpu, path) for path in on_gpu}
    contenders |= {name: (get_backend(name), None) for name in ("numpy", "numba") if unavailable(name) is None}
    seconds = {name: _median_epoch(training(*how), MAP_SHARE * effort.seconds) / -(-n // batch) for name, how in contenders.items()}
    fastest = min(on_gpu, key=seconds.__getitem__)
    return {
        "case": str(case),
        "batch_size": batch,
        "samples": n,
        "seconds_per_step": seconds,
        "rule": rule,
        "rule_costs": seconds[rule] / seconds[fastest],
        "fastest_on_gpu": fastest,
        "fastest": min(seconds, key=seconds.__getitem__),
    }


def _median_epoch(training: Trainer, seconds: float) -> float:
    """Median time of the epochs in the second half of a while."""
    training.epoch()
    times: list[float] = []
    warm_up(lambda: times.append(training.epoch().seconds), seconds)
    return float(np.median(times[len(times) // 2 :]))
