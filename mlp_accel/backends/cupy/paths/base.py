"""What the paths of the CuPy backend have in common: none is taken before its results have been compared with the loop's."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.arrays import Array
from mlp_accel.backends.base import Backend
from mlp_accel.backends.cupy.device import Device
from mlp_accel.backends.cupy.paths.runs import DeviceSamples, FusedRun
from mlp_accel.backends.cupy.probe import first_line
from mlp_accel.backends.cupy.source import ceil_div
from mlp_accel.backends.loop import LoopPath
from mlp_accel.backends.paths import EpochPath, PathRun, State, Task
from mlp_accel.errors import DeviceMemoryError, PathError, SettingError

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

    def __init__(self, backend: Backend, gpu: Device) -> None:
        self.backend, self.gpu = backend, gpu
        self._tried: set[Any] = set()

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

    @abstractmethod
    def _start(self, task: Task, states: Sequence[State], samples: DeviceSamples, n: int) -> FusedRun:
        """A run of epochs of `n` samples."""

    def start(self, task: Task, states: Sequence[State], x: Array, y: Array) -> PathRun:
        try:
            with self.gpu.training_stream():
                samples = DeviceSamples.prepare(self.gpu, x, y)
                shape = self._shape(task)
                if shape not in self._tried:  # the same kernels are compared with the loop once
                    problem = self._differs(replace(task, networks=1), states[:1], x, y, samples)
                    if problem:
                        raise PathError(f"its results are wrong: {problem}")
                    self._tried.add(shape)
                return self._start(task, states, samples, len(x))
        except (DeviceMemoryError, PathError):
            raise
        except Exception as error:  # a compiler, a driver or a launch that fails rules out this path, not the training
            raise PathError(f"it fails ({first_line(error)})") from error

    def _differs(self, task: Task, states: Sequence[State], x: Array, y: Array, samples: DeviceSamples) -> str | None:
        """Train two steps by the path and by the loop; says how the results differ, or None if they agree."""
        n = min(len(x), 2 * task.batch_size)
        orders = np.linspace(0, len(x) - 1, n).astype(np.int32)[None]
        scalars = trial_scalars(task, ceil_div(n, task.batch_size))
        runs = self._start(task, states, samples, n), LoopPath(self.backend).start(task, states, x, y)
        (ours, theirs), (our_losses, their_losses) = zip(
            *(_results(run, self.backend, orders, scalars) for run in runs), strict=True
        )
        starts = [*_arrays(states[0]), np.zeros_like(their_losses)]
        tolerance, eps = TOLERANCE[self.gpu.tf32], float(np.finfo(np.float32).eps)
        for a, b, start in zip([*ours, our_losses], [*theirs, their_losses], starts, strict=True):
            if not np.isfinite(b).all():
                continue  # nothing to compare with: the training reports it
            difference = float(np.abs(a - b).max())
            change, rounding = float(np.abs(b - start).max()), 8 * eps * float(np.abs(b).max())
            if not difference <= tolerance * change + rounding:
                size = f"{difference:.1e}, where the loop changes them by up to {change:.1e}"
                return f"after two steps they differ from the loop by {size}"
        return None


def trial_scalars(task: Task, steps: int) -> npt.NDArray[np.float64]:
    """Scalars for the comparison with the loop: all different, and so small that no rule diverges in two steps."""
    size = 0.1 if task.gradient == "exact" else 0.01  # the notebook's gradient is a sum
    count = task.rule.n_scalars
    return size * (1.0 + 0.1 * np.arange(steps * count, dtype=np.float64)).reshape(1, steps, count)


def _results(
    run: PathRun, backend: Backend, orders: npt.NDArray[Any], scalars: npt.NDArray[np.float64]
) -> tuple[list[npt.NDArray[Any]], npt.NDArray[Any]]:
    losses, _ = run.epoch(orders, scalars)
    return list(_arrays(run.states()[0])), backend.to_numpy(losses)


def _arrays(state: State) -> Iterator[npt.NDArray[Any]]:
    """Parameters and slots, one after another."""
    for pair in (*state.params, *(pair for layer in state.slots for pair in layer)):
        yield from pair
