"""The backends, and how one of them is chosen."""

from __future__ import annotations

import functools
import importlib
import logging
import os

from mlp_accel.backends.arrays import Array, Params, Slots
from mlp_accel.backends.base import DTYPES, GRADIENTS, Backend
from mlp_accel.errors import BackendUnavailableError, SettingError

__all__ = [
    "AUTO",
    "BACKENDS",
    "DTYPES",
    "ENVIRONMENT_VARIABLE",
    "FASTEST",
    "GRADIENTS",
    "Array",
    "Backend",
    "Params",
    "Slots",
    "backend_class",
    "get_backend",
    "refuse_fastest",
    "requested_backend",
    "unavailable",
]

ENVIRONMENT_VARIABLE = "MLP_ACCEL_BACKEND"
AUTO, FASTEST = "auto", "fastest"
"""What may be asked for in place of a backend: the first that can run here, or the one that trains this very network fastest, which
`mlp_accel.training.fastest` finds out."""

# A new backend is a folder beside this file and a line here. `auto` takes the first one that can run, in this order.
_REGISTRY = {
    "cupy": "mlp_accel.backends.cupy.backend:CupyBackend",
    "numba": "mlp_accel.backends.numba.backend:NumbaBackend",
    "numpy": "mlp_accel.backends.numpy.backend:NumpyBackend",
}
BACKENDS = tuple(_REGISTRY)

logger = logging.getLogger("mlp_accel")


def backend_class(name: str) -> type[Backend]:
    """The class registered as `name` (without the number of a device), whether or not it can run here."""
    module, _, attribute = _REGISTRY[_split(name)[0]].partition(":")
    found: type[Backend] = getattr(importlib.import_module(module), attribute)
    return found


@functools.cache
def unavailable(name: str) -> BackendUnavailableError | None:
    """Why the backend `name` cannot run here, or None if it can; found out once in a process."""
    device = _split(name)[1]
    try:
        backend_class(name).probe(**({} if device is None else {"device": device}))
    except BackendUnavailableError as error:
        return error
    return None


def requested_backend(name: str | None = None, source: str = "the argument name") -> tuple[str, str]:
    """The name of the backend that was asked for, and what messages call the place that it came from.

    It is the argument, else ``MLP_ACCEL_BACKEND``, else ``"auto"``.

    Raises
    ------
    SettingError
        For a name that is not in the registry.
    """
    if name is None:
        name, source = os.environ.get(ENVIRONMENT_VARIABLE, "").strip(), f"the environment variable {ENVIRONMENT_VARIABLE}"
        if not name:  # empty means unset
            name, source = AUTO, "default"
    if name not in (AUTO, FASTEST) and not _is_registered(name):
        second = " or ".join(f"{backend}:1" for backend in BACKENDS if backend_class(backend).takes_device)
        choices = f"{AUTO}, {FASTEST}, {', '.join(BACKENDS)}, or {second} for the second device"
        raise SettingError(f"unknown backend {name!r} from {source}; choose one of {choices}")
    return name, source


def refuse_fastest(name: str, source: str) -> None:
    """Refuse ``"fastest"`` where there is no network, or where backends are compared; SettingError."""
    if name == FASTEST:
        where = "train, mini_batch_sgd, train_many and MLPClassifier"
        choices = ", ".join(BACKENDS)
        raise SettingError(f"{name!r} from {source} is measured for a network and its data, by {where}; here choose from {choices}")


def _is_registered(name: str) -> bool:
    """Whether `name` is that of a backend, with the number of a device only where the backend takes one."""
    base, device = _split(name)
    return base in _REGISTRY and (":" not in name or (device is not None and backend_class(base).takes_device))


def _split(name: str) -> tuple[str, int | None]:
    """The registered name and the number of the device: ``"cupy:1"`` is ``("cupy", 1)``."""
    base, _, device = name.partition(":")
    return base, int(device) if device.isascii() and device.isdigit() else None


def get_backend(name: str | None = None, dtype: str = "float32", *, source: str = "the argument name") -> Backend:
    """A backend that runs here.

    Parameters
    ----------
    name : {"auto", "cupy", "cupy:1", "numba", "numpy"}, optional
        A number after ``cupy`` picks one of several GPUs.
        By default the environment variable ``MLP_ACCEL_BACKEND``, read now; unset or empty it means ``"auto"``, which is the first
        of cupy, numba and numpy that can run here and is not known to be slower than a later one. Which one that is, and why, is
        logged and stands in ``.selection``. ``"fastest"`` is for training alone: see `mini_batch_sgd`.
    dtype : {"float32", "float64"}
        Of parameters, activations and gradients.
    source : str
        What messages call the place that `name` came from.

    Raises
    ------
    SettingError
        For an unknown name or dtype, and for ``"fastest"``; names the value, where it came from and the choices.
    BackendUnavailableError
        If the backend that was named cannot run here: nothing falls back to another one.
    """
    choice, source = requested_backend(name, source)
    refuse_fastest(choice, source)
    automatic = choice == AUTO
    if automatic:
        choice, selection = _first_usable()
    else:
        error = unavailable(choice)
        if error is not None:
            raise BackendUnavailableError(error.name, error.cause, error.detail, error.fix)
        selection = f"asked for by {source}"
    device = _split(choice)[1]
    backend = backend_class(choice)(dtype, **({} if device is None else {"device": device}))
    backend.selection, backend.automatic = selection, automatic
    logger.info("backend %s on %s (%s)", backend.name, backend.device, selection)
    return backend


def _first_usable() -> tuple[str, str]:
    """The first backend that can run here and is not known to be slower than another, and in words why not those before it."""
    selection = f"{AUTO}: the first that can run here"
    for candidate in BACKENDS:
        error = unavailable(candidate)
        if error is None:
            faster = [why for other, why in backend_class(candidate).slower_than().items() if unavailable(other) is None]
            if not faster:
                return candidate, selection
            selection += f"; {candidate}: {faster[0]}; ask for it by name to use it all the same"
        else:
            selection += f"; {candidate}: {error.reason}"
    raise error or RuntimeError("no backend is registered")  # the NumPy backend runs wherever this package does
