"""Rows of our own: the probe, the parity of each path with NumPy, epoch times, many networks, and the map of the loop."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_stages.rows import BATCH, LAYER_SIZES, LEARNING_RATE, UnavailableError, epoch_times
from mlp_accel import get_backend, init_params, load
from mlp_accel.activations import BUILT_IN
from mlp_accel.backends import Backend, unavailable
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.backends.loop import LoopPath
from mlp_accel.backends.paths import Task, start_path
from mlp_accel.bench.checks import BACKEND, PARAMETER_TOLERANCE, PEER, losses_differ
from mlp_accel.optimizers import OPTIMIZERS, Optimizer
from mlp_accel.training.snapshot import initial_state
from mlp_accel.training.train import evaluate
from mlp_accel.training.trainer import Trainer, density

ROOT = Path(__file__).resolve().parents[2]
PARITY_STEPS = 5
TF32_TOLERANCE = 5e-3
MAP_STEPS = 20


def gpu_backend(tf32: bool = False) -> CupyBackend:
    """A CuPy backend."""
    problem = unavailable("cupy")
    if problem is not None:
        raise UnavailableError(problem.reason)
    return CupyBackend(tf32=tf32)


def probe() -> dict[str, Any]:
    """Name, versions and properties of the GPU."""
    backend = gpu_backend()
    gpu = backend.gpu
    attributes = gpu.cp.cuda.Device(gpu.index).attributes
    wanted = ("MultiProcessorCount", "ClockRate", "MemoryClockRate", "MaxSharedMemoryPerBlockOptin", "L2CacheSize")
    free, total = gpu.memory()
    return {
        "device": backend.device,
        "versions": backend.versions(),
        "compute_capability": ".".join(map(str, gpu.capability)),
        "memory_bytes": {"free": free, "total": total},
        "attributes": {name: int(attributes[name]) for name in wanted if name in attributes},
    }


def gpu_tests(timeout: float) -> dict[str, Any]:
    """Run the tests that need a GPU."""
    gpu_backend()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cupy", "--require-backend", "cupy", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"mismatch": f"pytest did not end within {timeout:.0f} s"}
    if "No module named pytest" in done.stderr:
        raise UnavailableError("pytest is not installed: python -m pip install -e '.[test]'")
    output = done.stdout.strip().splitlines()
    verdict = None if done.returncode == 0 else f"pytest: exit status {done.returncode}"
    return {"mismatch": verdict, "pytest": output[-40:]}


def parity(path: str, tf32: bool = False) -> dict[str, Any]:
    """Compare a path with the NumPy backend: its parameters after a few steps and after an epoch, and the loss of both."""
    ours, theirs = gpu_backend(tf32), get_backend("numpy")
    mnist = load("mnist")
    fields: dict[str, Any] = {"device": ours.device}
    problems = []
    for name, n in (("steps", PARITY_STEPS * BATCH), ("epoch", len(mnist.x_train))):
        data = mnist.x_train[:n], mnist.y_train[:n]
        results = [_train(backend, *data, by) for backend, by in ((ours, path), (theirs, "loop"))]
        (params, loss), (their_params, their_loss) = results
        difference = max(
            float(np.abs(a - b).max() / np.abs(b).max())
            for layer, other in zip(params, their_params, strict=True)
            for a, b in zip(layer, other, strict=True)
        )
        fields[f"{name}_parameter_difference"] = difference
        fields[f"{name}_loss"] = {"ours": loss, "numpy": their_loss}
        tolerance = TF32_TOLERANCE if tf32 else PARAMETER_TOLERANCE["float32"]
        if name == "steps" and not difference <= tolerance:
            problems.append(f"after {PARITY_STEPS} steps the parameters differ by {difference:.1e} (tolerance {tolerance:.0e})")
        wrong = losses_differ([loss], [their_loss], PEER if tf32 else BACKEND)
        if wrong:
            problems.append(wrong)
    again = _train(ours, mnist.x_train, mnist.y_train, path)
    if any(not np.array_equal(a, b) for one, other in zip(params, again[0], strict=True) for a, b in zip(one, other, strict=True)):
        problems.append("a second training gives other bits")
    fields["loss"] = [fields["epoch_loss"]["ours"]]
    return {"mismatch": "; ".join(problems) or None, **fields}


def _train(backend: Backend, x: npt.NDArray[Any], y: npt.NDArray[Any], path: str) -> tuple[Any, float]:
    options: dict[str, Any] = {"batch_size": BATCH, "learning_rates": [LEARNING_RATE], "path": path}
    trainer = Trainer(x, y, [init_params(LAYER_SIZES)], backend, **options)
    loss = trainer.epoch().losses[0]
    return trainer.params(), loss


class OurEngine:
    """One or many networks by a path of the CuPy backend, for `epoch_times`."""

    def __init__(self, backend: CupyBackend, path: str, networks: int) -> None:
        self.backend, self.cp = backend, backend.xp
        mnist = load("mnist")
        start = time.perf_counter()
        x, y = backend.asarray(mnist.x_train), backend.asarray(np.array(mnist.y_train, np.int64))
        backend.synchronize()
        self.transfer_seconds = time.perf_counter() - start
        self.n = len(mnist.x_train)
        optimizer = OPTIMIZERS["sgd"]
        rule, tanh = Optimizer.record_for([optimizer]), BUILT_IN["tanh"]
        task = Task(LAYER_SIZES, BATCH, backend.dtype, "uint8", density(mnist.x_train), tanh, "exact", rule, networks)
        states = [initial_state(init_params(LAYER_SIZES, seed=seed), rule.n_slots) for seed in range(networks)]
        self.run, _ = start_path(backend, LoopPath(backend), task, states, x, y, (path, "gpu_study.py"))
        rates = np.full(-(-self.n // BATCH), LEARNING_RATE)
        self.scalars = np.stack([optimizer.scalars(rule, rates, first_step=1)] * networks)
        self.events = [self.cp.cuda.Event(), self.cp.cuda.Event()]
        self.losses: Any = None

    def launch(self, orders: npt.NDArray[np.int32]) -> None:
        self.events[0].record()
        self.losses, _ = self.run.epoch(orders, self.scalars)
        self.events[1].record()

    def read(self) -> tuple[list[float], float | None]:
        losses = self.backend.to_numpy(self.losses).sum(axis=1) / self.n
        self.events[1].synchronize()
        return losses.tolist(), self.cp.cuda.get_elapsed_time(*self.events) / 1000


def times(path: str, tf32: bool = False, networks: int = 1, epochs: int = 10, reference: bool = True) -> dict[str, Any]:
    """Epoch times of a path, for one network or many side by side; the losses are compared with NumPy's."""
    backend = gpu_backend(tf32)
    engines: list[OurEngine] = []

    def make() -> OurEngine:
        engines.append(OurEngine(backend, path, networks))
        return engines[0]

    mnist = load("mnist")
    fields = epoch_times(make, epochs, len(mnist.x_train), networks)
    params = engines[0].run.states()[0].params
    test_loss, test_accuracy = evaluate(backend, params, mnist.x_test, mnist.y_test, "tanh")
    fields |= {"transfer_seconds": engines[0].transfer_seconds, "test_loss": test_loss, "test_accuracy": test_accuracy}
    fields |= {"device": backend.device, "versions": backend.versions()}
    fields["memory_pool_bytes"] = int(backend.xp.get_default_memory_pool().total_bytes())
    mismatch = losses_differ(fields["loss"], reference_losses(3), PEER) if reference else None
    return {"mismatch": mismatch, **fields}


def reference_losses(epochs: int) -> list[float]:
    """The NumPy backend's losses of the first epochs."""
    mnist = load("mnist")
    options: dict[str, Any] = {"batch_size": BATCH, "learning_rates": [LEARNING_RATE], "epochs": epochs}
    trainer = Trainer(mnist.x_train, mnist.y_train, [init_params(LAYER_SIZES)], get_backend("numpy"), **options)
    return [trainer.epoch().losses[0] for _ in range(epochs)]


def op_map(hidden: int, batches: tuple[int, ...]) -> dict[str, Any]:
    """Seconds for a step of NumPy on the host, and of loop and graph on the GPU, for one hidden size and several batch sizes."""
    gpu = gpu_backend()
    contenders: dict[str, tuple[Backend, str]] = {
        "numpy": (get_backend("numpy"), "loop"),
        "loop": (gpu, "loop"),
        "graph": (gpu, "graph"),
    }
    sizes = [LAYER_SIZES[0], hidden, LAYER_SIZES[-1]]
    mnist = load("mnist")
    cells = []
    for batch in batches:
        n = min(len(mnist.x_train), MAP_STEPS * batch)
        cell: dict[str, Any] = {"hidden": hidden, "batch_size": batch, "samples": n}
        for name, (backend, path) in contenders.items():
            options: dict[str, Any] = {"batch_size": batch, "learning_rates": [0.01], "epochs": 4, "path": path}
            trainer = Trainer(mnist.x_train[:n], mnist.y_train[:n], [init_params(sizes)], backend, **options)
            trainer.epoch()
            seconds = sorted(trainer.epoch().seconds for _ in range(3))
            cell[f"{name}_seconds_per_step"] = seconds[1] / -(-n // batch)
        cell["winner"] = min(contenders, key=lambda name: float(cell[f"{name}_seconds_per_step"]))
        cells.append(cell)
    return {"map": cells}
