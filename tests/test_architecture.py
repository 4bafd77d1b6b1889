"""Imports go down only. The floors, and the modules of each, are named here; a typed or a lazy import counts as one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mlp_accel

PACKAGE = Path(mlp_accel.__file__).parent

FLOORS = {
    "what needs nothing": ("errors", "exit_codes", "files"),
    "functions of numbers": ("elementwise", "recording", "activations", "optimizers", "schedules"),
    "what a backend is": ("backends.arrays", "backends.memory", "backends.pace", "backends.paths", "backends.base"),
    "the algorithm": ("network",),
    "backends": ("backends",),
    "data and the machine": ("datasets", "environment", "inputs"),
    "training": ("plots", "training", "harness", "onnx", "sklearn"),
    "what can be wrong": ("doctor",),
    "benchmarks": ("bench",),
    "many networks": ("tune",),
    "commands": ("cli", "__main__"),
}
"""From the ground up. A module belongs to the longest name that fits it; the package's own ``__init__`` may name any of them."""


@cache
def modules() -> dict[str, Path]:
    """Every module by its name without ``mlp_accel.``."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def imports(name: str) -> Iterator[str]:
    """The modules that one imports: at once, for types or lazily, also by a string such as ``"mlp_accel.network:train_step"``."""
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mlp_accel":
            base = node.module.removeprefix("mlp_accel").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                if full in modules():
                    yield full
                elif base:
                    yield base
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("mlp_accel.") for alias in node.names if alias.name.startswith("mlp_accel."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.fullmatch(r"mlp_accel\.([\w.]+)(:\w+)?", node.value)
            if named and named.group(1) in modules():
                yield named.group(1)


def floor(name: str) -> int:
    """The number of the floor that a module is on."""
    fits = {
        prefix: number
        for number, prefixes in enumerate(FLOORS.values())
        for prefix in prefixes
        if name == prefix or name.startswith(f"{prefix}.")
    }
    assert fits, f"{name} is on no floor: name its floor here"
    return fits[max(fits, key=len)]


def test_every_import_goes_down_or_stays_on_its_floor() -> None:
    up = [f"{name} imports {other}" for name in modules() for other in set(imports(name)) if floor(other) > floor(name)]
    assert not up


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: {other for other in imports(name) if other != name} for name in modules()}
    while True:  # those that import nothing that is left go, until only circles remain
        ground = {name for name, others in graph.items() if not others & graph.keys()}
        if not ground:
            break
        graph = {name: others for name, others in graph.items() if name not in ground}
    while True:  # and those that nobody imports
        roofs = graph.keys() - set().union(*graph.values()) if graph else set()
        if not roofs:
            break
        graph = {name: others for name, others in graph.items() if name not in roofs}
    assert not {name: sorted(others & graph.keys()) for name, others in graph.items()}


def test_the_floors_name_only_what_is_there() -> None:
    for prefixes in FLOORS.values():
        for prefix in prefixes:
            assert any(name == prefix or name.startswith(f"{prefix}.") for name in modules()), prefix
