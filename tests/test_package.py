"""What importing costs, and that everything public says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib import metadata
from types import ModuleType

import numpy as np
import pytest

import mlp_accel
from mlp_accel.backends import BACKENDS

HEAVY = ("numba", "llvmlite", "cupy", "matplotlib", "typer", "rich", "scipy", "torch", "jax")


def test_importing_the_package_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import mlp_accel"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in report.splitlines()}
    assert "mlp_accel" in imported
    assert not imported & set(HEAVY)


def test_using_the_package_on_numpy_imports_neither_numba_nor_cupy_nor_matplotlib() -> None:
    code = """
import sys
import numpy
import mlp_accel
for name in mlp_accel.__all__:
    getattr(mlp_accel, name)
x, y = numpy.zeros((9, 4), numpy.uint8), numpy.arange(9) % 3
mlp_accel.mini_batch_sgd(x, y, mlp_accel.init_params([4, 3]), backend="numpy", optimizer="adam", schedule="cosine")
print(*sys.modules)
"""
    report = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {name.partition(".")[0] for name in report.split()} & {"numba", "llvmlite", "cupy", "matplotlib"}


def test_the_names_that_are_gone_are_no_longer_taken() -> None:
    assert not hasattr(mlp_accel, "SGDStep")
    with pytest.raises(TypeError, match="fused"):
        mlp_accel.mini_batch_sgd(np.zeros((4, 2)), np.zeros(4, int), mlp_accel.init_params([2, 2]), fused=False)  # type: ignore[call-arg]


def modules() -> list[ModuleType]:
    names = [module.name for module in pkgutil.walk_packages(mlp_accel.__path__, "mlp_accel.")]
    return [importlib.import_module(name) for name in names if name != "mlp_accel.__main__"]


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_everything_public_has_a_docstring(module: ModuleType) -> None:
    assert module.__doc__
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__ or not callable(thing):
            continue
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{module.__name__}.{name}"
        if inspect.isclass(thing):
            for method, function in inspect.getmembers(thing, inspect.isfunction):
                if not method.startswith("_") and function.__module__.startswith("mlp_accel"):
                    assert inspect.getdoc(getattr(thing, method)), f"{module.__name__}.{name}.{method}"


def test_all_names_exist() -> None:
    for name in mlp_accel.__all__:
        assert hasattr(mlp_accel, name)


def test_the_version_is_that_of_the_distribution() -> None:
    assert metadata.version("mlp-accel") == mlp_accel.__version__


def test_no_backend_is_named_outside_the_backends() -> None:
    """`if backend == "numba"` above the ops would be the end of the one algorithm."""
    for module in modules():
        if module.__name__.startswith("mlp_accel.backends"):
            continue
        source = inspect.getsource(module)
        for name in BACKENDS:
            for comparison in (f'== "{name}"', f'!= "{name}"', f"isinstance({name}"):
                assert comparison not in source, module.__name__
