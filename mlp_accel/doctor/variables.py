"""Environment variables whose value, or whose name, must be a mistake."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from mlp_accel.backends import BACKENDS, backend_class
from mlp_accel.backends.cupy.paths import base as cupy_paths
from mlp_accel.backends.paths import AUTO, FORMER_PATH_VARIABLE, LOOP, PATH_VARIABLE, is_gone
from mlp_accel.doctor.finding import Finding
from mlp_accel.doctor.numba_threading import CHOICES
from mlp_accel.environment import ENVIRONMENT_VARIABLES

PREFIX = "MLP_ACCEL_"


def findings() -> Iterator[Finding]:
    """Names that start like ours but are none, and values that a library would refuse or, worse, ignore."""
    known = [name for name in ENVIRONMENT_VARIABLES if name.startswith(PREFIX)]
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in (*known, *RULES):
            yield Finding(f"{name} is no variable of mlp_accel; those are {', '.join(known)}", f"unset {name}", wrong_value=True)
    for name, (check, backend) in RULES.items():
        value = os.environ.get(name, "").strip()
        expected = check(value) if value else None
        if expected:
            yield Finding(f"{name}={value} {expected}", f"unset {name}", wrong_value=True, backend=backend)


def _count(value: str) -> str | None:
    return None if value.isdecimal() and int(value) > 0 else "is no number of threads"


def _counts(value: str) -> str | None:
    """OpenMP takes a list: one number for each level of nested parallel regions."""
    return next(filter(None, map(_count, value.split(","))), None)


def _threading_layer(value: str) -> str | None:
    return None if value.lower() in CHOICES else f"names no threading layer; choose one of {', '.join(CHOICES)}"


def _disable_jit(value: str) -> str | None:
    return None if value == "0" else "makes Numba interpret its kernels, thousands of times slower"


def _path(value: str) -> str | None:
    """Only the name is checked: what follows a colon, as in ``cluster:4``, the path checks itself."""
    known = dict.fromkeys([AUTO, LOOP, *(path for name in BACKENDS for path in backend_class(name).path_names)])
    return None if value.partition(":")[0] in known else f"is a path of no backend; choose one of {', '.join(known)}"


def _matplotlib_backend(value: str) -> str | None:
    if find_spec("matplotlib") is None:
        return None
    try:
        importlib.import_module("matplotlib")
    except ValueError as error:
        return f"names no Matplotlib backend ({error})"
    return None


RULES: dict[str, tuple[Callable[[str], str | None], str | None]] = {
    "NUMBA_NUM_THREADS": (_count, "numba"),
    "NUMBA_THREADING_LAYER": (_threading_layer, "numba"),
    "NUMBA_DISABLE_JIT": (_disable_jit, "numba"),
    "OMP_NUM_THREADS": (_counts, None),
    "OPENBLAS_NUM_THREADS": (_count, None),
    "MKL_NUM_THREADS": (_count, None),
    PATH_VARIABLE: (_path, None),
    FORMER_PATH_VARIABLE: (is_gone, None),
    cupy_paths.TF32_VARIABLE: (cupy_paths.no_switch, "cupy"),
    "MPLBACKEND": (_matplotlib_backend, None),
}
"""For each variable a function that says what is wrong with a value, or None; and the backend that a wrong value stops, if any."""
