"""What `mlp-accel bench` has found, as immutable objects.

Each class is an object of the result file, and its attributes have the names that they have there: `Record.to_dict` writes it and
`Record.from_dict` reads it. Files, checks and older schemas are in `result_files`.

The module is longer than others because what stands in one file is declared in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from mlp_accel.bench.config import Config
from mlp_accel.bench.record import Positive, Record, RecordError

SCHEMA = 2

REFERENCE = "numpy"
"""The backend whose loop all others are held to."""


def engine_label(name: str, path: str | None) -> str:
    """What people call an engine: ``numba sparse``, or the name of a peer."""
    return f"{name} {path}" if path else name


def label(row: Mapping[str, Any]) -> str:
    """`engine_label` of an object of the result file."""
    return engine_label(str(row["name"]), row.get("path"))


@dataclass(frozen=True, kw_only=True)
class Summary(Record):
    """Times of an engine: median, minimum, quartiles, and the samples themselves, in seconds."""

    median: Positive
    min: Positive
    q1: Positive
    q3: Positive
    samples: tuple[Positive, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """The summary of one or more times."""
        q1, median, q3 = np.percentile(samples, [25, 50, 75])
        return cls(median=float(median), min=min(samples), q1=float(q1), q3=float(q3), samples=tuple(samples))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = "") -> Self:
        """Read it; what is missing is computed from the samples, of which there must be one at least."""
        samples = cls.read_field("samples", content.get("samples"), where)
        if not samples:
            raise RecordError(f"{where} has no samples")
        complete = content if {"median", "min", "q1", "q3"} <= content.keys() else {**cls.of(samples).to_dict(), **content}
        return super().from_dict(complete, where)


@dataclass(frozen=True, kw_only=True)
class PassedOver(Record):
    """Which paths were not taken.

    Attributes
    ----------
    passed_over : tuple of (str, str)
        Path, and why not.
    """

    name: str
    passed_over: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineRecord(Record):
    """What is known by the name of a backend or a peer, and the path; a peer has none, nor has a backend that cannot run."""

    name: str
    path: str | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        return engine_label(self.name, self.path)


@dataclass(frozen=True, kw_only=True)
class Run(EngineRecord):
    """What was measured of one engine: a row of the results.

    Attributes
    ----------
    kind : {"backend", "peer"}
    status : {"ok", "unavailable", "failed", "mismatch"}
        ``mismatch``: what it computes is not right, so it has no times.
    reason : str or None
        Why it is not ok.
    refused : bool
        What failed is a setting or a size, which the user can change.
    cold_start_seconds, transfer_seconds : float or None
        From the start of the process to the end of the warm-up, and for putting the data where it is trained on; medians, where
        there were several starts.
    first_start_seconds : float or None
        A cold start with empty caches, when everything is compiled. The others find it in the caches.
    cold_starts, transfers : Summary or None
        Of several starts.
    epoch_seconds : Summary or None
        Of the steady epochs.
    cores_used : float or None
        CPU seconds per second, the median of the steady epochs.
    rests : int or None
        How often its threads rested because the machine was crowded, over all epochs.
    loss, accuracy : tuple
        On the training samples, for each epoch from the first one on. None where it is not finite or not known.
    train_accuracy : float or None
        The last accuracy.
    device, form, versions, thread_pools, llvm_target, compiled_code
        What its worker says of itself, as far as it got.
    samples_per_second : float or None
        Where it is a cell of a sweep.
    """

    WORKER: ClassVar[frozenset[str]] = frozenset({"device", "form", "versions", "thread_pools", "llvm_target", "compiled_code"})
    OPTIONAL: ClassVar[frozenset[str]] = WORKER | {"rests", "samples_per_second", "first_start_seconds", "cold_starts", "transfers"}

    passed_over: tuple[tuple[str, str], ...] = ()
    kind: str = "backend"
    status: str
    reason: str | None = None
    refused: bool = False
    cold_start_seconds: float | None = None
    transfer_seconds: float | None = None
    first_start_seconds: float | None = None
    cold_starts: Summary | None = None
    transfers: Summary | None = None
    epoch_seconds: Summary | None = None
    cores_used: float | None = None
    rests: int | None = None
    loss: tuple[float | None, ...] = ()
    accuracy: tuple[float | None, ...] = ()
    train_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    device: str | None = None
    form: str | None = None
    versions: Mapping[str, str] | None = None
    thread_pools: tuple[str, ...] | None = None
    llvm_target: str | None = None
    compiled_code: str | None = None
    samples_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cell(Record):
    """The benchmark at one value of a sweep."""

    value: int
    results: tuple[Run, ...]
    no_faster_path: tuple[PassedOver, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Crossover(Record):
    """Where one engine becomes faster than another.

    Attributes
    ----------
    value : float
        The value of the setting that is swept at which both engines take the same time.
    seconds, samples_per_second : float
        That time, for an epoch, and the speed.
    faster_below, faster_above : str
        Labels of the engines: the one that is faster at smaller values, and the one that is faster at larger ones.
    shown : bool
        Whether figures mark it: both engines are backends, or no other engine is faster than the two at that value.
    """

    value: Positive
    seconds: Positive
    faster_below: str
    faster_above: str
    shown: bool
    samples_per_second: Positive


@dataclass(frozen=True, kw_only=True)
class Sweep(Record):
    """Speed against one setting, in rising order of its values."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"interrupted"})

    parameter: str
    cells: tuple[Cell, ...]
    interrupted: bool = False
    crossovers: tuple[Crossover, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TimeToAccuracy(EngineRecord):
    """How long one engine trained until it reached the accuracy.

    Attributes
    ----------
    seconds : Summary or None
        Of training, over the seeds.
    seconds_with_preparation : Summary or None
        The same with what comes before: from the samples in memory to the first step. Older files do not have it.
    epochs : tuple of int
        For each seed.
    remark : str or None
        In what its training is not what was asked for.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"remark"})

    kind: str = "backend"
    status: str
    reason: str | None = None
    remark: str | None = None
    seconds: Summary | None = None
    seconds_with_preparation: Summary | None = None
    epochs: tuple[int, ...] = ()

    @property
    def time(self) -> Summary | None:
        """With the preparation, where that is known."""
        return self.seconds_with_preparation or self.seconds


@dataclass(frozen=True, kw_only=True)
class Until(Record):
    """Time of every engine to a test accuracy, a fraction of the test set.

    Attributes
    ----------
    config : Config or None
        What was trained. Older files trained what the epoch times are of.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"interrupted", "config"})

    accuracy: float
    seeds: tuple[int, ...]
    max_epochs: int
    interrupted: bool = False
    config: Config | None = None
    results: tuple[TimeToAccuracy, ...] = ()

    @property
    def with_preparation(self) -> bool:
        """Whether its times begin with the samples in memory; those of older files begin with the first epoch."""
        return all(found.seconds_with_preparation for found in self.results if found.seconds)

    @property
    def title(self) -> str:
        """What was measured."""
        what = "Seconds" if self.with_preparation else "Seconds of training"
        return f"{what} to {self.accuracy:.2%} on the test set, {self.seeds_of(*self.results)}"

    def seeds_of(self, *found: TimeToAccuracy) -> str:
        """From how many seeds these engines have times, in words: fewer than all where Ctrl-C came before the end."""
        counts = sorted({len(engine.seconds.samples) for engine in found if engine.seconds})
        if not counts or counts == [len(self.seeds)]:
            return f"{len(self.seeds)} seeds"
        return f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} of {len(self.seeds)} seeds"


@dataclass(frozen=True, kw_only=True)
class Op(Record):
    """An op of a step: its floating-point operations, the bytes that it must read and write at least once, and seconds a call."""

    op: str
    flops: Positive
    bytes: Positive
    seconds: Positive


@dataclass(frozen=True, kw_only=True)
class Roofline(EngineRecord):
    """The ops of a step on a backend, beside the limits of its device: operations a second and bytes a second."""

    peak_flops: Positive
    bandwidth: Positive
    ops: tuple[Op, ...]


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """A result file of `mlp-accel bench`.

    Attributes
    ----------
    environment : dict
        As `environment` gives it.
    no_faster_path : tuple of PassedOver
        Backends that have no faster path than the loop for this.
    results : tuple of Run
    interrupted : bool
        Ctrl-C ended it early.
    reference : Run or None
        The reference, if it is not one of `results`.
    until : tuple of Until
        One for each accuracy.
    sweeps, roofline
        What else was asked for.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"interrupted", "reference", "sweeps", "until", "roofline"})

    schema: int = SCHEMA
    environment: Mapping[str, Any]
    config: Config
    no_faster_path: tuple[PassedOver, ...] = ()
    interrupted: bool = False
    results: tuple[Run, ...]
    reference: Run | None = None
    sweeps: tuple[Sweep, ...] = ()
    until: tuple[Until, ...] = ()
    roofline: tuple[Roofline, ...] | None = None
