"""Recorded functions (activations, slopes and update rules, a user's own included) as functions that kernels call by address.

The source is written to files in the private cache folder, because Numba keeps on disk only what it compiled from a file. Each
function is compiled once for each dtype, and apart from the kernels. A kernel is given its address, so that the same kernel serves
every activation and every rule.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlp_accel.activations import Activation
from mlp_accel.backends.numba.compiler import EXACT_MATH, c_function, cache_folder, numba
from mlp_accel.optimizers import Rule
from mlp_accel.recording import Operand, Record

HEADER = '''"""Made by mlp_accel.backends.numba.generated."""

import numpy as np

from mlp_accel.backends.numba.emit.addresses import array_at
from mlp_accel.backends.numba.emit.vector_math import exp, expm1, log, log1p, tanh

real = np.{dtype}
'''

ACTIVATE = """

def activate(sums_at, outputs_at, n, one):
    a0s, r0s = array_at(sums_at, n, one), array_at(outputs_at, n, one)
    for j in range(n):
"""

ACTIVATE_IN_PLACE = """

def activate(sums_at, outputs_at, n, one):
    a0s = array_at(outputs_at, n, one)
    r0s = a0s
    for j in range(n):
"""

TIMES_SLOPE = """

def times_slope(deltas_at, slope_inputs_at, n, one):
    a0s, a1s = array_at(deltas_at, n, one), array_at(slope_inputs_at, n, one)
    r0s = a0s
    for j in range(n):
"""

UPDATE = """

def update(parameters_at, gradients_at, slots_at, shift, scalars_at, n, one):
    a0s, a1s = array_at(parameters_at, n, one), array_at(gradients_at, n, one)
    slot_addresses, scalars = array_at(slots_at, {n_slots}, 0), array_at(scalars_at, {n_scalars}, one)
    r0s = a0s
"""

_SPELLED = {
    "negative": "(-{0})",
    "abs": "abs({0})",
    "sqrt": "np.sqrt({0})",
    "where": "({1} if {0} else {2})",
    "maximum": "({0} if ({0} >= {1}) | ({0} != {0}) else {1})",
    "minimum": "({0} if ({0} <= {1}) | ({0} != {0}) else {1})",
    **{name: f"{name}({{0}})" for name in ("exp", "expm1", "log", "log1p", "tanh")},
    **{op: f"({{0}} {op} {{1}})" for op in ("+", "-", "*", "/", "<", "<=", ">", ">=", "&", "|")},
}


class ActivationAddresses(NamedTuple):
    """Addresses of an activation's two compiled functions; 0 stands for none."""

    activate: int = 0
    """Takes the addresses of the sums and of the outputs, their number, and a 1 of their type. The two addresses are the same, and
    the outputs replace the sums, unless `Activation.of_input`."""
    times_slope: int = 0
    """Takes the addresses of the deltas, which it multiplies in place, and of the slope inputs, their number, and a 1 of their
    type."""


@functools.cache
def activation_addresses(activation: Activation, dtype: str) -> ActivationAddresses:
    """The addresses of the two functions of an activation, compiled for arrays of this type."""
    i, real = numba.int64, getattr(numba, dtype)
    head = ACTIVATE if activation.of_input else ACTIVATE_IN_PLACE
    module = _module(activation.name, dtype, head + _loop(activation.value) + TIMES_SLOPE + _loop(activation.times_slope))
    functions = (c_function(f, i(i, i, i, real), EXACT_MATH) for f in (module.activate, module.times_slope))
    return ActivationAddresses(*(int(function.address) for function in functions))


@functools.cache
def rule_address(rule: Rule, dtype: str) -> int:
    """The address of the function of an update rule, compiled for arrays of this type.

    The function updates several parameters that lie one behind the other in memory. Its arguments are, in this order:

    - the address of the first of these parameters;
    - the address of its gradient; the gradients are set to 0;
    - the address of a list of addresses: for each slot, where its memory begins;
    - the number of bytes from there to the slot of the first of these parameters, the same for every slot;
    - the address of the scalars of the step;
    - the number of parameters;
    - a 1 of their type.
    """
    i, real = numba.int64, getattr(numba, dtype)
    lines = [f"    a{2 + k}s = array_at(slot_addresses[{k}] + shift, n, one)" for k in range(rule.n_slots)]
    lines += [f"    r{1 + k}s = a{2 + k}s" for k in range(rule.n_slots)]
    lines += [f"    u{k} = scalars[{k}]" for k in range(rule.n_scalars)]
    head = UPDATE.format(n_slots=rule.n_slots, n_scalars=rule.n_scalars) + "\n".join([*lines, "    for j in range(n):\n"])
    module = _module("rule", dtype, head + _loop(rule.record, ["        a1s[j] = 0"]))
    return int(c_function(module.update, i(i, i, i, i, i, i, real), EXACT_MATH).address)


def _loop(record: Record, last: Sequence[str] = ()) -> str:
    """Lines for the body of a loop over ``j``, followed by the end of the function."""

    def operand(value: Operand) -> str:
        return value if isinstance(value, str) else f"real({value!r})"

    lines = [f"        {name} = {name}s[j]" for name in record.elements]
    for line in record.assignments:
        lines.append(f"        {line.name} = {_SPELLED[line.op].format(*map(operand, line.operands))}")
    lines += [f"        r{k}s[j] = {operand(result)}" for k, result in enumerate(record.results)]
    return "\n".join([*lines, *last, "    return 0\n"])


def _module(name: str, dtype: str, body: str) -> Any:
    """Import a module with this source. A file that is there already is left alone: Numba's cache goes by its time of change."""
    text = HEADER.format(dtype=dtype) + body
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:40]
    module_name = f"mlp_accel_generated_{plain}_{digest}"
    path = _folder() / f"{module_name}.py"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
            file.write(text)
        Path(file.name).replace(path)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def _folder() -> Path:
    """The private folder for generated modules: in the cache, or a temporary one if there is no cache."""
    root = cache_folder()
    if root is None:
        folder = Path(tempfile.mkdtemp(prefix="mlp-accel-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    folder = root / "generated"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
