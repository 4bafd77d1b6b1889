"""The threading layers by which Numba starts threads, which need libraries of the system."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from importlib.util import find_spec

from mlp_accel.backends.install_hints import install_openmp
from mlp_accel.doctor.finding import Finding

VARIABLE = "NUMBA_THREADING_LAYER"
LAYERS = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
CHOICES = ("default", "safe", "forksafe", "threadsafe", *LAYERS)
REINSTALL = "python -m pip install --force-reinstall --no-deps numba"


def findings() -> Iterator[Finding]:
    """No threading layer can be loaded, or not the one that is asked for, or only the slow one."""
    if find_spec("numba") is None:
        return
    try:
        importlib.import_module("numba.np.ufunc.parallel")
    except Exception:  # the probe of the backend says what is wrong with Numba
        return
    obstacles = {layer: obstacle(layer) for layer in LAYERS}
    requested = os.environ.get(VARIABLE, "").lower()
    if all(obstacles.values()):
        yield Finding(f"Numba cannot load a threading layer ({obstacles['workqueue']})", REINSTALL, backend="numba")
    elif obstacles.get(requested):
        problem = f"{VARIABLE}={requested}, but that layer cannot be loaded ({obstacles[requested]})"
        yield Finding(problem, f"unset {VARIABLE}", wrong_value=True, backend="numba")
    elif obstacles["omp"] and obstacles["tbb"]:
        fix = install_openmp() if "libgomp" in obstacles["omp"] else REINSTALL
        yield Finding(f"Numba has only its slow threading layer, workqueue: {obstacles['omp']}", fix)
    elif requested == "workqueue":
        yield Finding(f"{VARIABLE}=workqueue starts threads far slower than omp does", f"unset {VARIABLE}")


def obstacle(layer: str) -> str | None:
    """Why Numba cannot load a threading layer, or None if it can."""
    try:
        importlib.import_module(f"numba.np.ufunc.{LAYERS[layer]}")
    except Exception as error:
        return str(error)
    return None
