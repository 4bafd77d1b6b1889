"""How the CuPy backend trains an epoch: which path is taken, and why. A path that fails says so and the next one is taken."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_accel.backends.base import Array, Backend, Params, Step
from mlp_accel.backends.cuda import cluster, steps
from mlp_accel.backends.cuda.cluster import ClusterShape, fit, largest_hidden
from mlp_accel.backends.cuda.steps import StepShape
from mlp_accel.backends.cupy_fused import ClusterPath, Data, FusedPath, StepPath
from mlp_accel.backends.cupy_probe import first_line
from mlp_accel.errors import DeviceMemoryError, MlpAccelError, SettingError, check_choice
from mlp_accel.workspace import Workspace

if TYPE_CHECKING:
    from mlp_accel.backends.cupy_backend import CupyBackend

PATHS = ("auto", "cluster", "graph", "steps", "ops")
PATH_VARIABLE = "MLP_ACCEL_CUPY_PATH"
TF32_VARIABLE = "MLP_ACCEL_TF32"

LARGE_STEP = 1e9
"""Multiplications and additions in a step above which cuBLAS is taken to beat the step kernels: an estimate, not measured."""

TOLERANCE = {False: 1e-3, True: 5e-2}
"""Largest difference to the ops after two steps, in units of the largest change of an array by them; by TF32 or not."""

logger = logging.getLogger("mlp_accel")


class PathError(MlpAccelError, RuntimeError):
    """A path that was asked for by name cannot be taken."""


@dataclass(frozen=True)
class PathSettings:
    """What is asked of the CuPy backend.

    Attributes
    ----------
    path : {"auto", "cluster", "graph", "steps", "ops"}
        How to train an epoch; ``"auto"`` takes the first that can be taken.
    cluster : int, optional
        Thread blocks in a cluster; by default the first of `SIZES` that has room for the network.
    tf32 : bool
        Products may round float32 operands to TF32 (10 bits after the point).
    source : str
        Who asked for the path.
    """

    path: str = "auto"
    cluster: int | None = None
    tf32: bool = False
    source: str = "the argument settings"

    def __post_init__(self) -> None:
        check_choice("path", self.path, PATHS)
        if self.cluster not in (None, 1, 2, 4, 8, 16):
            raise SettingError(f"a cluster has 1, 2, 4, 8 or 16 thread blocks; got {self.cluster} from {self.source}")
        if self.cluster is not None and self.path not in ("auto", "cluster"):
            raise SettingError(f"the path {self.path!r} has no cluster; {self.source} gives it one of {self.cluster}")

    @classmethod
    def from_environment(cls) -> PathSettings:
        """As ``MLP_ACCEL_CUPY_PATH`` (``cluster``, ``cluster:4``, ...) and ``MLP_ACCEL_TF32`` (``1`` or ``0``) say.

        Raises
        ------
        SettingError
            For a value that means nothing.
        """
        value, tf32 = os.environ.get(PATH_VARIABLE, "").strip() or "auto", os.environ.get(TF32_VARIABLE, "").strip() or "0"
        for variable, setting, obstacle in ((PATH_VARIABLE, value, no_path(value)), (TF32_VARIABLE, tf32, no_switch(tf32))):
            if obstacle:
                raise SettingError(f"{setting!r} from the environment variable {variable} {obstacle}")
        path, _, size = value.partition(":")
        return cls(path, int(size) if size else None, tf32 == "1", f"the environment variable {PATH_VARIABLE}")


def no_path(value: str) -> str | None:
    """What is wrong with a value of ``MLP_ACCEL_CUPY_PATH``, or None."""
    path, _, size = value.partition(":")
    if path in PATHS and (not size or (path == "cluster" and size in ("1", "2", "4", "8", "16"))):
        return None
    return f"is no path; choose one of {', '.join(PATHS)}, or cluster:SIZE with SIZE 1, 2, 4, 8 or 16"


def no_switch(value: str) -> str | None:
    """What is wrong with a value of ``MLP_ACCEL_TF32``, or None."""
    return None if value in ("0", "1") else "is neither 1 nor 0"


@dataclass(frozen=True)
class Task:
    """All that the choice of a path depends on."""

    layer_sizes: tuple[int, ...]
    batch: int
    dtype: str
    pixels: str
    activation: str
    gradient: str

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.layer_sizes))} at batch size {self.batch}"


Candidate = tuple[str, str | None, Callable[[], FusedPath] | None]
"""Name of a path, and either why it cannot be taken or what makes it."""


class PathChooser:
    """Takes for each task the first path that can be taken, makes sure of its results, and keeps it."""

    def __init__(self, backend: CupyBackend) -> None:
        self.backend, self.gpu, self.settings = backend, backend.gpu, backend.settings
        self.report = "not chosen yet"
        self._chosen: dict[Task, tuple[FusedPath | None, str]] = {}
        self._data: Data | None = None

    def train(
        self, step: Step, params: Params, x: Array, y: Array, order: Array, batch_size: int, workspace: Workspace
    ) -> tuple[Params, Array, Array]:
        """As `Backend.train_epoch`."""
        path = self._path(step, params, x, y, order, batch_size, workspace)
        if path is None:
            return Backend.train_epoch(self.backend, step, params, x, y, order, batch_size, workspace)
        return path.train(step, params, self._prepare(x, y), order)

    def train_each(
        self, steps: Sequence[Step], params: Params, x: Array, y: Array, orders: Array, batch_size: int, workspace: Workspace
    ) -> tuple[Params, Array, Array]:
        """As `Backend.train_epoch_of_each`."""
        first = [(weights[0], bias[0]) for weights, bias in params]
        path = self._path(steps[0], first, x, y, orders[0], batch_size, workspace)
        if isinstance(path, ClusterPath):
            return path.train_each(steps, params, self._prepare(x, y), orders)
        return Backend.train_epoch_of_each(self.backend, steps, params, x, y, orders, batch_size, workspace)

    def _prepare(self, x: Array, y: Array) -> Data:
        """Memory is taken once for the same arrays: a training run passes them in every epoch."""
        if self._data is None or self._data.x is not x or self._data.y is not y:
            self._data = Data.prepare(self.gpu, x, y)
        else:
            self._data.refresh()
        return self._data

    def _path(
        self, step: Step, params: Params, x: Array, y: Array, order: Array, batch_size: int, workspace: Workspace
    ) -> FusedPath | None:
        for array, what in ((x, "x"), (y, "y"), (order, "order")):
            self.gpu.need(array, what)
        sizes = (params[0][0].shape[0], *(weights.shape[1] for weights, _ in params))
        self.backend.check_input(x, sizes[0])
        task = Task(sizes, batch_size, self.backend.dtype, x.dtype.name, step.activation, step.gradient)
        if task not in self._chosen:
            trial = order[: 2 * batch_size]
            self._chosen[task] = self._choose(
                task, lambda path: self._differs(path, step, params, x, y, trial, batch_size, workspace)
            )
            logger.info("%s trains by %s", task, self._chosen[task][1])
        path, self.report = self._chosen[task]
        return path

    def _choose(self, task: Task, differs: Callable[[FusedPath], str | None]) -> tuple[FusedPath | None, str]:
        """The path, or None for the ops; and its name with the reasons against those before it."""
        passed_over: list[str] = []
        for name, reason, make in candidates(task, self.gpu.capability, self.gpu.shared_limit, self.settings, self.gpu):
            if make is not None:
                path = None
                try:
                    path = make()
                    reason = differs(path)
                except DeviceMemoryError:
                    raise
                except Exception as error:  # a compiler, a driver or a launch that fails costs this path alone
                    reason = f"it fails ({first_line(error)})"
                if reason is None:
                    return path, "; ".join([path.name, *passed_over]) if path else name
                logger.warning("the path %s is not taken: %s", name, reason)
            passed_over.append(f"not {name}: {reason}")
        if self.settings.path not in ("auto", "ops"):
            asked = f"the path {self.settings.path!r}, asked for by {self.settings.source}, cannot be taken for {task}"
            raise PathError(f"{asked}: {'; '.join(passed_over)}")
        return None, "; ".join(["ops", *passed_over])

    def _differs(
        self, path: FusedPath, step: Step, params: Params, x: Array, y: Array, order: Array, batch_size: int, workspace: Workspace
    ) -> str | None:
        """Train a little by the path and by the ops; what is wrong with the result, or None."""
        arguments = (x, y, order, batch_size, workspace)
        ours, our_losses, _ = path.train(step, params, self._prepare(x, y), order)
        theirs, their_losses, _ = Backend.train_epoch(self.backend, step, params, *arguments)
        tolerance, eps = TOLERANCE[self.settings.tf32], float(np.finfo(np.float32).eps)
        columns = [[a for pair in layers for a in pair] for layers in (ours, theirs, params)]
        for a, b, start in [*zip(*columns, strict=True), (our_losses, their_losses, 0 * their_losses)]:
            host_a, host_b, host_start = (self.backend.to_numpy(array) for array in (a, b, start))
            if not np.isfinite(host_b).all():
                continue  # nothing to compare with: the training reports it
            difference = float(np.abs(host_a - host_b).max())
            change, rounding = float(np.abs(host_b - host_start).max()), 8 * eps * float(np.abs(host_b).max())
            if not difference <= tolerance * change + rounding:
                size = f"{difference:.1e}, where the ops change them by up to {change:.1e}"
                return f"its results are wrong: after two steps they differ from the ops by {size}"
        return None


def candidates(task: Task, capability: tuple[int, int], shared_limit: int, settings: PathSettings, gpu: Any) -> Iterator[Candidate]:
    """The fused paths in the order in which they are tried; none if the settings ask for the ops."""
    if settings.path in ("auto", "cluster"):
        yield _cluster_candidate(task, capability, shared_limit, settings, gpu)
    for name in ("graph", "steps"):
        if settings.path in ("auto", name):
            yield _step_candidate(name, task, capability, shared_limit, settings, gpu)


def _cluster_candidate(task: Task, capability: tuple[int, int], shared_limit: int, settings: PathSettings, gpu: Any) -> Candidate:
    reason = _precision(task) or _too_old(capability, cluster.COMPUTE_CAPABILITY)
    if reason is None and len(task.layer_sizes) != 3:
        reason = f"it holds one hidden layer, the network has {len(task.layer_sizes) - 2}"
    if reason is None and task.pixels != "uint8":
        reason = f"it streams uint8 images, these are {task.pixels}"
    if reason is not None:
        return "cluster", reason, None
    inputs, hidden, classes = task.layer_sizes
    shape = ClusterShape(inputs, hidden, classes, task.batch, task.activation, task.gradient, settings.tf32)
    sizes = cluster.SIZES if settings.cluster is None else (settings.cluster,)
    fitting = fit(shape, shared_limit, sizes)
    if fitting is not None:
        return "cluster", None, lambda: ClusterPath(gpu, fitting)
    largest = replace(shape, cluster=max(sizes))
    widest = largest_hidden(shape, shared_limit, sizes)
    advice = f"the widest hidden layer that fits has {widest} units" if widest else "no hidden layer fits at this batch size"
    needs = f"{largest.shared_bytes:,} bytes of shared memory in each block of a cluster of {largest.cluster}"
    return "cluster", f"{task} needs {needs}, there are {shared_limit:,}; {advice}", None


def _step_candidate(
    name: str, task: Task, capability: tuple[int, int], shared_limit: int, settings: PathSettings, gpu: Any
) -> Candidate:
    reason = _precision(task) or _too_old(capability, steps.COMPUTE_CAPABILITY)
    shape = StepShape(task.layer_sizes, task.batch, task.pixels == "uint8", task.activation, task.gradient, settings.tf32)
    if reason is None and not shape.fits(shared_limit):
        reason = f"{task.layer_sizes[-1]} classes need {shape.shared_bytes:,} bytes of shared memory, there are {shared_limit:,}"
    work = 6.0 * task.batch * sum(m * n for m, n in pairwise(task.layer_sizes))
    if reason is None and settings.path == "auto" and work > LARGE_STEP:
        reason = f"a step of {work / 1e9:.1f} GFLOP is left to cuBLAS"
    if reason is not None:
        return name, reason, None
    return name, None, lambda: StepPath(gpu, shape, graph=name == "graph")


def _precision(task: Task) -> str | None:
    return None if task.dtype == "float32" else f"its kernels compute in float32, this is {task.dtype}"


def _too_old(capability: tuple[int, int], needed: tuple[int, int]) -> str | None:
    if capability >= needed:
        return None
    return f"it needs compute capability {'.'.join(map(str, needed))}, this GPU has {'.'.join(map(str, capability))}"
