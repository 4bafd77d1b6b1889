"""What settings and data are, in types that JSON knows, so that two trainings can be told apart.

Functions of one's own have no name that tells; what they give for some numbers does.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlp_accel.activations import CHECKED, Activation
from mlp_accel.backends.arrays import is_sparse
from mlp_accel.inputs import on_host
from mlp_accel.optimizers import Optimizer
from mlp_accel.schedules import Schedule
from mlp_accel.training.checks import check_params
from mlp_accel.training.snapshot import Snapshot

HASH, VALUES = "sha256", "values"
"""Keys of what tells two things apart and is not for people to read."""

PIECE = 1 << 24
"""About how many bytes are hashed at a time."""


def describe_array(array: Any) -> dict[str, Any]:
    """Shape, dtype and a hash of the values, which no copy of the whole array is made for."""
    given = on_host(array)
    rows_first = given.tocsr() if is_sparse(given) else None
    parts = [np.asarray(given)] if rows_first is None else [rows_first.data, rows_first.indices, rows_first.indptr]
    hashed = hashlib.sha256()
    for part in parts:
        rows = max(1, PIECE // max(1, part[:1].nbytes))
        for start in range(0, len(part), rows):
            hashed.update(np.ascontiguousarray(part[start : start + rows]).data)
    return {"shape": list(given.shape), "dtype": str(given.dtype), HASH: hashed.hexdigest()}


def describe_start(start: Sequence[tuple[Any, Any]] | Snapshot) -> dict[str, Any]:
    """Where a network starts: layer sizes, and a hash of the values in float64, those of the slots included."""
    snapshot = start if isinstance(start, Snapshot) else Snapshot(start)
    pairs = [*snapshot.params, *(pair for slots in snapshot.slots or () for pair in slots)]
    flat = np.concatenate([np.asarray(array, np.float64).reshape(-1) for pair in pairs for array in pair])
    return {
        "layer_sizes": check_params(snapshot.params),
        HASH: hashlib.sha256(flat.tobytes()).hexdigest(),
        "epochs": snapshot.epochs,
        "steps": snapshot.steps,
        "order": None if snapshot.order is None else dict(snapshot.order),
    }


def describe_activation(activation: Activation) -> dict[str, Any]:
    """Its name and what it puts out for a few inputs."""
    with np.errstate(all="ignore"):
        return {"name": activation.name, VALUES: [float(activation(float(z))) for z in CHECKED[::8]]}


def describe_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Its name, its settings, and what its rule makes of a few numbers."""
    names = inspect.signature(optimizer.rule).parameters
    given = {name: value for name, value in (("rate", 0.1), ("step", 3.0), ("size", 8.0)) if name in names} | optimizer.values
    result = optimizer.rule(0.75, 0.5, *[0.25] * len(optimizer.slots), **given)
    values = result if isinstance(result, tuple) else (result,)
    return {"name": optimizer.name, "settings": optimizer.values, VALUES: [float(value) for value in values]}


def describe_schedule(schedule: Schedule, steps_per_epoch: int) -> dict[str, Any]:
    """Its name, its settings, and the factors of the learning rate at the start of each epoch of a training of eight."""
    epochs = 8
    return {
        "name": schedule.name,
        "warmup": schedule.warmup,
        "settings": dict(schedule.settings),
        VALUES: [float(schedule.rates(1.0, epoch, epochs, steps_per_epoch)[0]) for epoch in range(epochs)],
    }


def difference(name: str, theirs: Any, ours: Any) -> str:
    """A setting with the value that it has there and the one that it has here; of a mapping only what differs."""
    if not (isinstance(theirs, Mapping) and isinstance(ours, Mapping)):
        return f"{name}: {theirs} there, {ours} here"
    keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    told = [difference(f"{name} {key}", theirs.get(key), ours.get(key)) for key in keys if key not in (HASH, VALUES)]
    return "; ".join(told) or f"{name}: other values there"
