"""How the kernels are compiled: for this CPU, by these floating-point rules, and kept on disk while their source stays the same."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

import numba as _numba
from numba.core import cpu_options as _cpu_options
from numba.core.registry import cpu_target

from mlp_accel.backends.cache_folders import CACHE_VARIABLE, private_folder, versions

numba: Any = _numba  # its types are incomplete
cpu_options: Any = _cpu_options

F = TypeVar("F", bound=Callable[..., Any])

MATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
"""What LLVM may do to floating-point numbers. It is not ``fastmath=True``, whose nnan and ninf make isnan() lie."""

EXACT_MATH = {"contract", "nsz"}
"""The rules for what is computed element by element. Every operation then gives the same bits in a vector and outside of one, so
the result does not depend on how work is divided among threads."""

_UNFUSED = cpu_options.ParallelOptions({"fusion": False})
"""Forbids Numba to fuse two parallel loops into one. It fuses loops if the second does not read what the first has written; but our
loops pass addresses to compiled functions, and what is read and written there Numba does not see. This is an object and not a dict,
because Numba removes the entries of a dict: the next kernel would be compiled without the option."""

logger = logging.getLogger("mlp_accel")

_setting_cache = threading.RLock()

c_functions: list[Any] = []
"""What `c_function` has compiled in this process, kept alive: kernels call their raw addresses."""

TRIPLE, CPU, _features = cpu_target.target_context.codegen().magic_tuple()
FEATURES = frozenset(feature[1:] for feature in _features.split(",") if feature.startswith("+"))
VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx2" in FEATURES else 16
"""Width of the vectors that the kernels use; 16 bytes is that of SSE2 and of ARM's NEON."""

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
"""How long OpenMP's threads spin at the end of a parallel region before they sleep, in turns of a loop: some microseconds. By
default they spin for milliseconds, and beside another process that computes an epoch of the loop then takes minutes."""

CACHE_LINE = 64
"""Bytes of a cache line, which cores fetch and give up as a whole."""

if numba.config.THREADING_LAYER == "default":
    numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # the one that starts a parallel region fastest comes first


def _fingerprint() -> str:
    """A hash of all that compiled code depends on: Numba itself would not compile again a function that calls a changed one."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    versions = (numba.__version__, metadata.version("llvmlite"), TRIPLE, CPU, _features, str(numba.config.OPT))
    digest.update("\0".join(versions).encode())
    return digest.hexdigest()[:16]


@functools.cache
def cache_folder() -> Path | None:
    """The folder that compiled kernels are kept in, or None (logged) if nothing can be written there."""
    try:
        before = versions()
        folder = private_folder(_fingerprint())
        new = folder not in before
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        logger.warning("kernels are compiled at every start, because no cache can be written: %s; set %s", error, CACHE_VARIABLE)
        return None
    if new:
        logger.warning("compiling kernels for this CPU, once, when each is first used; they are kept in %s", folder)
    return folder


@contextmanager
def _caching() -> Iterator[bool]:
    """Numba reads its global setting when a function is decorated; other people's functions must not see ours."""
    folder = cache_folder()
    with _setting_cache:  # of two threads, one would restore what the other has set
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder or numba.config.CACHE_DIR)
        try:
            yield folder is not None
        finally:
            numba.config.CACHE_DIR = before


def jit(*, math: set[str] = MATH) -> Callable[[F], F]:
    """`numba.njit` by the rules of this project.

    A kernel cannot allocate memory (Numba's option ``_nrt``), so no references to its arrays are counted, which would take time to
    compile and to run.
    """
    return functools.partial(_compile, math=math, parallel=False)


def _compile(function: F, math: set[str], parallel: bool) -> F:
    with _caching() as cache:
        options = {"fastmath": math, "error_model": "numpy", "nogil": True, "cache": cache, "_nrt": False}
        if parallel:
            options["parallel"] = _UNFUSED
        return cast(F, numba.njit(**options)(function))


def c_function(function: Callable[..., int], signature: Any, math: set[str] = MATH) -> Any:
    """Compile `function` for one signature as a C function. Kernels call its ``address``, and need not be compiled with it.

    If a kernel called a function of Numba's by its name, Numba would put the function's code into the kernel and have LLVM optimise
    it there once more, for a parallel loop several times. A function that is called by its address is optimised once.
    """
    with _caching() as cache:
        compiled = numba.cfunc(signature, fastmath=math, error_model="numpy", cache=cache, _nrt=False)(function)
    c_functions.append(compiled)
    return compiled


def inlined(function: F) -> F:
    """A function whose statements Numba copies into each kernel that calls it, and compiles by the rules of that kernel.

    As a function of its own it would be compiled and optimised twice: by itself, and again in each kernel.
    """
    return cast(F, numba.njit(inline="always")(function))


class ParallelKernel:
    """A function over ``prange`` in two versions, for many threads and for one.

    The one-thread version runs where one thread is asked for, and in a forked child: GNU OpenMP ends a child that uses threads of
    its parent.

    Attributes
    ----------
    parallel, serial : dispatcher
        As Numba compiles them.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.parallel = _compile(function, math=MATH, parallel=True)
        self.serial = _compile(_renamed(function), math=MATH, parallel=False)

    def __call__(self, *arguments: Any) -> Any:
        if usable_threads() == 1:
            return self.serial(*arguments)
        with _parallel_region():
            return self.parallel(*arguments)


def _renamed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy with a name of its own: Numba's files on disk go by the name."""
    copy = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_serial")
    copy.__qualname__ = f"{function.__qualname__}_serial"
    copy.__module__ = function.__module__
    return copy


def usable_threads() -> int:
    """Threads that a kernel called now may use."""
    return 1 if _process.forked else int(numba.get_num_threads())


class _Process:
    """Whether this process may start threads, and the lock that lets one Python thread at a time start them."""

    forked = False
    lock = threading.Lock()


_process = _Process()


def _after_fork() -> None:
    global _setting_cache
    _process.lock, _setting_cache = threading.Lock(), threading.RLock()  # another thread of the parent may have held them
    try:
        layer = numba.threading_layer()
    except ValueError:  # no kernel has run: the threads will be this process's own
        return
    if layer == "omp" and not _process.forked:
        _process.forked = True
        logger.warning("this process was forked after kernels had run in its parent: it computes on one thread; spawn it instead")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _parallel_region() -> Iterator[None]:
    """Numba's workqueue ends the process when two Python threads enter it; the other layers let them."""
    try:
        alone = numba.threading_layer() == "workqueue"
    except ValueError:  # this is the call that chooses it
        alone = True
    with _process.lock if alone else nullcontext():
        yield


def threading_layer() -> str:
    """The threading layer that Numba has chosen; it does so when the first parallel kernel runs, which this makes sure of."""
    if not _process.forked:
        _start_threads()
    return str(numba.threading_layer())


def _start_threads() -> None:
    numba.njit(parallel=True)(_empty_region)()


def _empty_region() -> None:
    for _ in numba.prange(1):
        pass
