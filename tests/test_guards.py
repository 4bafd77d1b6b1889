"""Causes of slowness that need no clock: compilations, allocations, calls, imports, transfers, waiting.

Each has a stated bound; a change that exceeds one has to say why it needs more.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import pytest

from mlp_accel import get_backend, init_params
from mlp_accel.backends import Backend
from mlp_accel.optimizers import find_optimizer
from mlp_accel.training.trainer import Trainer
from tests.conftest import require

N_IN, HIDDEN, N_CLASSES, BATCH = 784, 32, 10, 128

PACKAGE_CALLS = {
    "numpy loop": {"sgd": 40, "adamw": 90},
    "numba loop": {"sgd": 115, "adamw": 130},
    "numba sparse": {"sgd": 0, "adamw": 0},
    "cupy loop": {"sgd": 110, "adamw": 110},
}
"""Calls of the package's own Python functions in one step, at most; by the fused paths of CuPy as few as by the sparse one."""

ALL_CALLS = {
    "numpy loop": {"sgd": 50, "adamw": 100},
    "numba loop": {"sgd": 165, "adamw": 200},
    "numba sparse": {"sgd": 0, "adamw": 0},
}
"""With those of the libraries that are written in Python."""

EPOCH_BYTES = {"numpy": 35_000, "numba": 24_000}
"""New memory that ten steps take at once, at most: large arrays are those of the step before."""

KEPT_BYTES = 1000
"""Memory that a step may leave behind until the end of the epoch: its loss and its hits."""

NUMBA_FUNCTIONS = 19
"""Functions that Numba compiles by themselves before the first epoch is over, at most. The long parts of a step are among them: to
put those into the kernel would take Numba three times as long as to compile them."""


def trainer(backend: Backend, steps: int, path: str = "auto", optimizer: str = "sgd") -> Trainer:
    """One that has trained an epoch of `steps` steps, the last of them short."""
    rng = np.random.default_rng(0)
    n = steps * BATCH - 28
    x, y = rng.integers(0, 256, (n, N_IN), dtype=np.uint8), rng.integers(0, N_CLASSES, n)
    x *= rng.random(x.shape) < 0.2  # as black as MNIST
    params = init_params([N_IN, HIDDEN, N_CLASSES], seed=0)
    result = Trainer(x, y, [params], backend, batch_size=BATCH, optimizers=[find_optimizer(optimizer)], path=path)
    with backend.limit_threads(1):
        result.epoch()
    return result


def train(trained: Trainer) -> Callable[[], object]:
    """An epoch without what comes before and after its steps."""
    (group,) = trained._groups
    order, scalars = np.random.default_rng(1).permutation(trained.x.shape[0])[None], trained._scalars(group, trained._factors())

    def epoch() -> None:
        group.run.epoch(order, scalars)

    return epoch


def per_step(measure: Callable[[int], float], few: int = 10, many: int = 30) -> float:
    """What one more step costs: what an epoch costs once is left out."""
    return (measure(many) - measure(few)) / (many - few)


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Calls of Python functions, in the package and outside."""
    counts: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            counts["package" if f"{os.sep}mlp_accel{os.sep}" in frame.f_code.co_filename else "elsewhere"] += 1

    before = sys.getprofile()
    gc.disable()  # others may have asked to be called when it runs
    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(before)
        gc.enable()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("path", ["auto", "loop"])
def test_a_step_makes_no_more_python_calls_than_stated(backend32: Backend, path: str, optimizer: str) -> None:
    def calls(steps: int, *where: str) -> int:
        epoch = train(trainer(backend32, steps, path, optimizer))
        with backend32.limit_threads(1), counted_calls() as counts:  # one thread disturbs nobody
            epoch()
        return sum(counts[place] for place in where)

    taken = f"{backend32.name} {trainer(backend32, 10, path, optimizer).taken.name}"
    assert per_step(lambda steps: calls(steps, "package")) <= PACKAGE_CALLS.get(taken, PACKAGE_CALLS["numba sparse"])[optimizer]
    if taken in ALL_CALLS:
        assert per_step(lambda steps: calls(steps, "package", "elsewhere")) <= ALL_CALLS[taken][optimizer]


@contextmanager
def traced_memory() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()  # NumPy reports its arrays to it
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("path", ["auto", "loop"])
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_step_takes_no_more_new_memory_than_stated(request: pytest.FixtureRequest, name: str, path: str, optimizer: str) -> None:
    require(request, name)

    def peak(steps: int) -> int:
        backend = get_backend(name)
        epoch = train(trainer(backend, steps, path, optimizer))
        with backend.limit_threads(1), traced_memory():  # it looks through the libraries that are loaded, which takes memory too
            before, _ = tracemalloc.get_traced_memory()
            epoch()
            return tracemalloc.get_traced_memory()[1] - before

    assert peak(10) <= EPOCH_BYTES[name]
    assert per_step(peak) <= KEPT_BYTES


COUNT_COMPILATIONS = """
import gc, json
from numba.core.dispatcher import Dispatcher
from numba.core.runtime import rtsys
from mlp_accel import get_backend
from tests.test_guards import train, trainer

def kernels():
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), Dispatcher)]  # isinstance asks a dead proxy too
    return {f"{k.py_func.__module__}.{k.py_func.__qualname__}": k for k in found if k.py_func.__module__.startswith("mlp_accel")}

def compiled():
    return {name: [str(signature) for signature in kernel.signatures] for name, kernel in kernels().items()}

def allocations(epoch):
    before = rtsys.get_allocation_stats().alloc
    with backend.limit_threads(1):
        epoch()
    return rtsys.get_allocation_stats().alloc - before

backend = get_backend("numba")
many = trainer(backend, 30)
first = compiled()
with backend.limit_threads(1):
    many.epoch()
trainer(backend, 10)
second = compiled()
allocated = [allocations(train(trainer(backend, 10, path))) for path in ("auto", "loop")]
print(json.dumps({"first": first, "second": second, "allocations": allocated}))
"""


@pytest.fixture(scope="module")
def compilations(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Numba compiled and allocated in a fresh process without a cache: other tests call the kernels in other ways."""
    require(request, "numba")
    command = [sys.executable, "-c", COUNT_COMPILATIONS]
    env = {**os.environ, "NUMBA_NRT_STATS": "1", "MLP_ACCEL_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_an_epoch_compiles_few_numba_functions_each_for_one_signature(compilations: dict[str, Any]) -> None:
    used = {name: signatures for name, signatures in compilations["first"].items() if signatures}
    assert 1 <= len(used) <= NUMBA_FUNCTIONS, used
    assert {name: signatures for name, signatures in used.items() if len(signatures) > 1} == {}


def test_a_second_epoch_and_another_number_of_samples_compile_nothing(compilations: dict[str, Any]) -> None:
    assert compilations["second"] == compilations["first"]


def test_numba_allocates_nothing_in_an_epoch_by_its_path_or_the_loop(compilations: dict[str, Any]) -> None:
    assert compilations["allocations"] == [0, 0]


def test_importing_the_package_imports_numpy_and_the_standard_library_alone() -> None:
    code = "import sys, numpy; before = set(sys.modules); import mlp_accel; print(*(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in result.stdout.split()}
    assert {name for name in imported if name not in sys.stdlib_module_names} <= {"mlp_accel", "numpy"}


# On a GPU ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cupy_backend(request: pytest.FixtureRequest) -> Backend:
    require(request, "cupy")
    return get_backend("cupy")


SPIN = r"""
extern "C" __global__ void spin(const unsigned long long nanoseconds) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do { asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); } while (now - start < nanoseconds);
}"""


@pytest.mark.cupy
def test_a_gpu_step_waits_for_nothing(cupy_backend: Backend) -> None:
    """Steps are queued behind a kernel that runs for 5 s: a step that waits, or fetches something, comes back after it."""
    cupy = cupy_backend.xp
    epoch = train(trainer(cupy_backend, 10))
    epoch()  # its memory is in the pool from now on
    cupy_backend.synchronize()
    spin, ended = cupy.RawKernel(SPIN, "spin"), cupy.cuda.Event()
    spin((1,), (1,), (np.uint64(1),))  # compiled
    cupy_backend.synchronize()
    spin((1,), (1,), (np.uint64(5_000_000_000),))
    ended.record()
    epoch()
    still_spinning = not ended.done
    cupy_backend.synchronize()
    assert still_spinning


@pytest.mark.cupy
def test_a_gpu_step_transfers_nothing_and_takes_no_new_memory_from_the_device(
    cupy_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = train(trainer(cupy_backend, 10))
    epoch()
    pool = cupy_backend.xp.get_default_memory_pool()
    before = pool.total_bytes()
    transfers: list[str] = []
    for name in ("asarray", "to_numpy", "synchronize"):
        monkeypatch.setattr(cupy_backend, name, lambda *_, name=name: transfers.append(name))
    for name in ("asarray", "array", "asnumpy"):
        original = getattr(cupy_backend.xp, name)

        def noted(a: Any, *rest: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
            if isinstance(a, np.ndarray) or _name == "asnumpy":
                transfers.append(f"cupy.{_name}")
            return _original(a, *rest, **options)

        monkeypatch.setattr(cupy_backend.xp, name, noted)
    epoch()
    assert transfers == []
    assert pool.total_bytes() == before
