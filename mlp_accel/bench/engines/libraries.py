"""What the libraries of a process say of themselves: threads, targets, and whether code was compiled or came from a cache."""

from __future__ import annotations

import sys
from typing import Any

from mlp_accel.backends.threads import thread_pools


def loaded_libraries() -> dict[str, Any]:
    """Thread pools and compilers that this process has loaded, in types that JSON knows.

    Returns
    -------
    dict
        ``thread_pools``: a line for each BLAS and OpenMP; ``llvm_target``: the CPU that LLVM compiles for, ``compiled_code``:
        ``"from the cache"``, ``"compiled now"`` or None for a process that compiled nothing.
    """
    return {"thread_pools": thread_pools(), "llvm_target": llvm_target(), "compiled_code": compiled_code()}


def llvm_target() -> str | None:
    """Name of the CPU that LLVM compiles for here, if it is loaded."""
    llvm = sys.modules.get("llvmlite.binding")
    return str(llvm.get_host_cpu_name()) if llvm else None


def compiled_code() -> str | None:
    """Whether Numba's kernels came from its cache on disk, which a cold start depends on."""
    hits = misses = 0
    for function in _c_functions():
        hits += function.cache_hits
        misses += not function.cache_hits
    for kernel in _numba_kernels():
        hits += sum(kernel.stats.cache_hits.values())
        misses += sum(kernel.stats.cache_misses.values()) or (len(kernel.signatures) if not kernel.stats.cache_path else 0)
    if not hits + misses:
        return None
    if not misses:
        return "from the cache"
    return "compiled now" if not hits else f"{misses} of {hits + misses} kernels compiled now, the others from the cache"


def _c_functions() -> list[Any]:
    """Those that kernels of this package call by their addresses."""
    compiler = sys.modules.get("mlp_accel.backends.numba.compiler")
    return list(compiler.c_functions) if compiler else []


def _numba_kernels() -> list[Any]:
    """The compiled functions of this package."""
    dispatcher = getattr(sys.modules.get("numba.core.registry"), "CPUDispatcher", None)
    if dispatcher is None:
        return []
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("mlp_accel.")]
    things = [thing for module in modules for thing in vars(module).values()]
    versions = [getattr(thing, name, None) for thing in things for name in ("parallel", "serial")]
    return [thing for thing in (*things, *versions) if isinstance(thing, dispatcher)]
