"""What the paths of the CuPy backend have in common: none is taken before its results have been compared with the loop's."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.arrays import Array
from mlp_accel.backends.base import Backend
from mlp_accel.backends.cupy import verdicts
from mlp_accel.backends.cupy.device import Device
from mlp_accel.backends.cupy.paths.runs import DeviceSamples, FusedRun
from mlp_accel.backends.cupy.portable import packed
from mlp_accel.backends.cupy.probe import first_line
from mlp_accel.backends.cupy.verdicts import Verdict
from mlp_accel.backends.loop import LoopPath
from mlp_accel.backends.paths import EpochPath, PathRun, State, Task
from mlp_accel.errors import BackendUnavailableError, DeviceMemoryError, PathError, SettingError
from mlp_accel.network import init_params

TF32_VARIABLE = "MLP_ACCEL_TF32"

TOLERANCE = {False: 1e-3, True: 5e-2}
"""Allowed difference between a path and the loop after two steps, relative to the largest change that the loop made to the array;
without TF32, and with it."""


def no_switch(value: str) -> str | None:
    """What is wrong with a value of ``MLP_ACCEL_TF32``: the end of a message that begins with the value. None if nothing is."""
    return None if value in ("0", "1") else "is neither 1 nor 0"


def tf32_asked_for() -> bool:
    """Whether products may round float32 operands to TF32 (10 bits after the point): as ``MLP_ACCEL_TF32`` says, by default not.

    Raises
    ------
    SettingError
        For a value that means nothing.
    """
    tf32 = os.environ.get(TF32_VARIABLE, "").strip()
    obstacle = no_switch(tf32 or "0")
    if obstacle:
        raise SettingError(f"{tf32!r} from the environment variable {TF32_VARIABLE} {obstacle}")
    return tf32 == "1"


class FusedPath(EpochPath):
    """A path whose kernels are our own and do more than one op each.

    Parameters
    ----------
    backend : Backend
        That on the GPU, whose loop the path is compared with.
    gpu : Device
        The backend's GPU.
    """

    compute_capability: ClassVar[tuple[int, int]]
    """The lowest that its kernels run on."""

    passed_over: frozenset[str]
    """Kernels that it must not take, by their names: what a trial in another process is told of those that have failed here."""

    def __init__(self, backend: Backend, gpu: Device) -> None:
        self.backend, self.gpu = backend, gpu
        self.passed_over: frozenset[str] = frozenset()
        self._verdicts: dict[Any, Verdict] = {}

    def why_not(self, task: Task) -> str | None:
        needed, found = self.compute_capability, self.gpu.capability
        if task.dtype != "float32":
            return f"its kernels compute in float32, this is {task.dtype}"
        if found < needed:
            return f"it needs compute capability {'.'.join(map(str, needed))}, this GPU has {'.'.join(map(str, found))}"
        return self._does_not_fit(task)

    @abstractmethod
    def _does_not_fit(self, task: Task) -> str | None:
        """Why this path cannot train `task`, beyond what `why_not` asks for every path; None if it can."""

    @abstractmethod
    def _shape(self, task: Task) -> Any:
        """What the kernels are compiled for `task`; two equal shapes have the same kernels."""

    def _failed_kernels(self, task: Task) -> list[str]:
        """Names of those of its kernels for `task` that have failed here, where it has more than one."""
        return []

    @abstractmethod
    def _start(self, task: Task, states: Sequence[State], samples: DeviceSamples, n: int) -> FusedRun:
        """A run of epochs of up to `n` samples."""

    def start(self, task: Task, states: Sequence[State], x: Array, y: Array) -> PathRun:
        check_fit(task, states, x, y)
        problem = self._verdict(task).problem
        if problem:
            raise PathError(problem)
        try:
            with self.gpu.training_stream():
                return self._start(task, states, DeviceSamples.prepare(self.gpu, x, y), len(x))
        except DeviceMemoryError:
            raise
        except Exception as error:  # a compiler, a driver or a launch that fails rules out this path, not the training
            raise PathError(f"it fails ({first_line(error)})") from error

    def _verdict(self, task: Task) -> Verdict:
        """Whether the kernels for this task, which are tried once, can be trusted."""
        shape, several = self._shape(task), task.networks > 1
        key = shape, several, task.data
        if key not in self._verdicts:
            kernels = hashlib.sha256(repr((shape.source(), shape.options())).encode()).hexdigest()
            subject = {"path": self.name, "task": str(task), "data": task.data, "several_networks": several, "kernels": kernels}
            subject |= {**self.gpu.versions(), "tf32": self.gpu.tf32}
            request = {
                "path": self.name,
                "dtype": task.dtype,
                "device": self.gpu.index,
                "tf32": self.gpu.tf32,
                "task": packed(task),
                "passed_over": self._failed_kernels(task),
            }
            self._verdicts[key] = verdicts.verdict(self.name, subject, request, lambda: self._tried_here(task))
        return self._verdicts[key]

    def _tried_here(self, task: Task) -> str | None:
        """The problem with this path, where no other process could try it; a context that the trial has broken is an error."""
        problem = problem_of(self, task)
        if problem:
            try:
                self.backend.to_numpy(self.backend.empty((1,)))
            except Exception as error:
                detail = f"the trial of the path {self.name} has broken the GPU context of this process: {first_line(error)}"
                again = "start the program again, with MLP_ACCEL_PATH=loop if it happens again"
                raise BackendUnavailableError("cupy", "a kernel failed", detail, again) from error
        return problem


def check_fit(task: Task, states: Sequence[State], x: Array, y: Array) -> None:
    """ValueError unless samples, labels and networks are those of the task: the kernels read them by their sizes alone."""
    if y.shape != x.shape[:1] or x.shape[1:] != task.layer_sizes[:1]:
        raise ValueError(f"{task} takes {task.layer_sizes[0]} values and a label for each sample; got {x.shape} and {y.shape}")
    layers = list(pairwise(task.layer_sizes))
    expected = [(layer, layer[1:]) for layer in layers]
    for state in states:
        planes = [state.params, *([layer[slot] for layer in state.slots] for slot in range(task.rule.n_slots))]
        for plane in planes:
            found = [(weights.shape, bias.shape) for weights, bias in plane]
            if found != expected:
                raise ValueError(f"a network of {task} has the shapes {expected}; got {found}")


def problem_of(path: FusedPath, task: Task) -> str | None:
    """Train two steps by a path and by the loop, in this process; the problem with the path, or None.

    Raises
    ------
    DeviceMemoryError
        If there is too little memory for it now.
    """
    try:
        with path.gpu.training_stream():
            difference = _difference(path, task)
    except DeviceMemoryError:
        raise
    except Exception as error:
        return f"it fails ({first_line(error)})"
    return f"its results are wrong: {difference}" if difference else None


def _difference(path: FusedPath, task: Task) -> str | None:
    """Says how the results of two steps differ from those of the loop, or None if they agree."""
    trial = Trial.of(task)
    x, y = (path.backend.asarray(array) for array in (trial.x, trial.y))
    runs = (
        path._start(task, trial.states, DeviceSamples.prepare(path.gpu, x, y), len(trial.x)),
        LoopPath(path.backend).start(task, trial.states, x, y),
    )
    (ours, our_losses), (theirs, their_losses) = (_results(run, path.backend, trial) for run in runs)
    starts = [array for state in trial.states for array in _arrays(state)]
    tolerance, eps = TOLERANCE[path.gpu.tf32], float(np.finfo(np.float32).eps)
    triples = zip([*ours, our_losses], [*theirs, their_losses], [*starts, np.zeros_like(their_losses)], strict=True)
    for a, b, start in triples:
        if not np.isfinite(b).all():
            continue  # nothing to compare with
        difference = float(np.abs(a - b).max())
        change, rounding = float(np.abs(b - start).max()), 8 * eps * float(np.abs(b).max())
        if not difference <= tolerance * change + rounding:
            size = f"{difference:.1e}, where the loop changes them by up to {change:.1e}"
            return f"after two steps they differ from the loop by {size}"
    return None


@dataclass(frozen=True)
class Trial:
    """What a path is tried on: two minibatches of random samples, the second a shorter one; one network, or two of several."""

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    states: list[State]
    orders: npt.NDArray[Any]
    scalars: npt.NDArray[np.float64]

    @classmethod
    def of(cls, task: Task) -> Trial:
        """The same for every task of this kind: what one process finds, others can rely on."""
        rng, n, networks = np.random.default_rng(0), task.batch_size + max(1, task.batch_size // 3), min(task.networks, 2)
        shape = n, task.layer_sizes[0]
        pixels = rng.integers(0, 256, shape, dtype=np.uint8) * (rng.random(shape) < 0.3)
        x = pixels if task.data == "uint8" else rng.normal(size=shape).astype(task.data)
        y = rng.integers(0, task.layer_sizes[-1], n)
        orders = np.stack([rng.permutation(n) for _ in range(networks)])
        states = []
        for seed in range(networks):
            params = init_params(task.layer_sizes, seed, random_bias=True)
            slots = [[(np.zeros_like(weights), np.zeros_like(bias)) for _ in range(task.rule.n_slots)] for weights, bias in params]
            states.append(State(list(params), slots))
        return cls(x, y, states, orders, np.repeat(trial_scalars(task, steps=2), networks, axis=0))


def trial_scalars(task: Task, steps: int) -> npt.NDArray[np.float64]:
    """Scalars for the comparison with the loop: all different, and so small that no rule diverges in two steps."""
    size = 0.1 if task.gradient == "exact" else 0.01  # the notebook's gradient is a sum
    count = task.rule.n_scalars
    return size * (1.0 + 0.1 * np.arange(steps * count, dtype=np.float64)).reshape(1, steps, count)


def _results(run: PathRun, backend: Backend, trial: Trial) -> tuple[list[npt.NDArray[Any]], npt.NDArray[Any]]:
    losses, _ = run.epoch(trial.orders, trial.scalars)
    return [array for state in run.states() for array in _arrays(state)], backend.to_numpy(losses)


def _arrays(state: State) -> Iterator[npt.NDArray[Any]]:
    """Parameters and slots, one after another."""
    for pair in (*state.params, *(pair for layer in state.slots for pair in layer)):
        yield from pair
