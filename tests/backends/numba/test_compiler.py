"""How kernels are compiled, cached and run: in other processes, on other CPUs, in threads, after a fork."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed")

from mlp_accel import get_backend
from mlp_accel.backends import cache_folders
from mlp_accel.backends.numba import compiler
from mlp_accel.backends.threads import available_cores

DENSE = """
import logging; logging.basicConfig(format="%(message)s")
import numpy as np
from mlp_accel import get_backend
backend = get_backend("numba")
x, weights = np.arange(600, dtype=np.float32).reshape(20, 30), np.ones((30, 7), np.float32)
def dense():
    return backend.dense(x, weights, np.zeros(7, np.float32))[0]
def check(result):
    assert np.array_equal(result, x @ weights)
"""

TRAIN = """
import sys, numpy as np
from mlp_accel import get_backend, init_params, mini_batch_sgd
from mlp_accel.backends.numba.compiler import VECTOR_BYTES
rng = np.random.default_rng(0)
x = rng.integers(1, 256, (300, 150), dtype=np.uint8) * (rng.random((300, 150)) < 0.2).astype(np.uint8)
y = rng.integers(0, 10, 300)
params = init_params([150, 70, 10])
for path in ("sparse", "loop"):
    history = mini_batch_sgd(x, y, params, epochs=2, batch_size=32, learning_rate=0.1, backend="numba", path=path)
    reference = mini_batch_sgd(x, y, params, epochs=2, batch_size=32, learning_rate=0.1, backend=get_backend("numpy", "float64"))
    for (w, b), (v, c) in zip(history.params, reference.params):
        assert np.abs(w - v).max() < 2e-6 and np.abs(b - c).max() < 2e-6
    np.testing.assert_allclose(history.loss, reference.loss, rtol=1e-5)
print(VECTOR_BYTES)
"""


def run(code: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "MLP_ACCEL_CACHE_DIR": str(cache), **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, timeout=300, check=False)


HITS = """
from mlp_accel.bench.engines.libraries import compiled_code
print(compiled_code())
"""


@pytest.mark.parametrize("code", [DENSE + "dense()", TRAIN], ids=["op", "training"])
def test_a_second_process_compiles_nothing(code: str, tmp_path: Path) -> None:
    first, second = (run(code + HITS, tmp_path) for _ in range(2))
    said = [result.stdout.splitlines()[-1] for result in (first, second)]
    assert said == ["compiled now", "from the cache"], first.stderr + second.stderr
    folders = list(tmp_path.iterdir())
    assert len(folders) == 1
    assert folders[0].name.startswith("numba-")


def test_another_cpu_or_source_has_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = compiler._fingerprint()
    monkeypatch.setattr(compiler, "CPU", "another")
    assert compiler._fingerprint() != before
    monkeypatch.undo()
    (tmp_path / "kernel.py").write_text("x = 1")
    monkeypatch.setattr(compiler, "__file__", str(tmp_path / "compiler.py"))
    other = compiler._fingerprint()
    (tmp_path / "kernel.py").write_text("x = 2")
    assert len({before, other, compiler._fingerprint()}) == 3


def test_without_a_folder_to_write_to_it_compiles_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(DENSE + "check(dense())", tmp_path / "file")
    assert result.returncode == 0, result.stderr
    assert "MLP_ACCEL_CACHE_DIR" in result.stderr
    assert "compiled at every start" in result.stderr


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no such permissions")
def test_a_cache_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """Numba unpickles what it finds there."""
    assert run(DENSE + "check(dense())", tmp_path).returncode == 0
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)
    result = run(DENSE + "check(dense())", tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"others may write to {folder}" in result.stderr


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no such permissions")
def test_a_folder_of_kernels_is_private_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    monkeypatch.setenv("MLP_ACCEL_CACHE_DIR", str(root))
    folder = cache_folders.private_folder("0")
    assert root.stat().st_mode & 0o077 == folder.stat().st_mode & 0o077 == 0
    root.chmod(0o777)
    with pytest.raises(OSError, match=f"others may write to {root} and replace"):
        cache_folders.private_folder("0")
    root.chmod(0o1777)  # as /tmp
    assert cache_folders.private_folder("0") == folder
    (root / "numba-1").symlink_to(folder)
    with pytest.raises(OSError, match="numba-1 is no folder of its own"):
        cache_folders.private_folder("1")
    assert cache_folders.versions() == [folder]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no such permissions")
def test_the_folder_of_older_versions_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLP_ACCEL_CACHE_DIR", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "mlp_accel").mkdir(mode=0o700)
    (tmp_path / "mlp_accel").chmod(0o775)
    assert cache_folders.private_folder("0").parent == tmp_path / "mlp_accel"
    assert (tmp_path / "mlp_accel").stat().st_mode & 0o777 == 0o755


def test_the_cache_setting_of_other_peoples_functions_is_left_alone(tmp_path: Path) -> None:
    code = DENSE + "import numba; before = numba.config.CACHE_DIR; dense(); assert numba.config.CACHE_DIR == before == ''"
    result = run(code, tmp_path, NUMBA_CACHE_DIR="")
    assert result.returncode == 0, result.stderr


FORK = """
import os, sys
check(dense())
pid = os.fork()
if pid == 0:
    try:
        check(dense())
        from mlp_accel.backends.numba.compiler import usable_threads
        os._exit(0 if usable_threads() == 1 else 3)
    except BaseException:
        os._exit(4)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.skipif(available_cores() < 2, reason="one core: nothing runs in parallel")
def test_a_forked_child_computes_on_one_thread_and_says_so(tmp_path: Path) -> None:
    get_backend("numba").versions()
    if compiler.threading_layer() != "omp":
        pytest.skip(f"the threading layer is {compiler.threading_layer()}, not omp")
    result = run(DENSE + FORK, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "computes on one thread" in result.stderr


def _spawned(queue: Any) -> None:
    backend = get_backend("numba")
    queue.put(backend.dense(np.ones((20, 30), np.float32), np.ones((30, 7), np.float32), np.zeros(7, np.float32))[0].sum())


def test_a_spawned_child_works() -> None:
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    child = context.Process(target=_spawned, args=(queue,))
    child.start()
    assert queue.get(timeout=120) == 20 * 30 * 7
    child.join()


THREADS = """
import threading
wrong = []
def work():
    for _ in range(200):
        try:
            check(dense())
        except BaseException as error:
            wrong.append(error)
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
assert not wrong, wrong
print(backend.versions()["numba_threading_layer"])
"""


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_several_python_threads_may_compute(layer: str, tmp_path: Path) -> None:
    result = run(DENSE + THREADS, tmp_path, NUMBA_THREADING_LAYER=layer)
    if layer == "omp" and "No threading layer could be loaded" in result.stderr + result.stdout:
        pytest.skip("this system has no libgomp")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [layer]


AVX2 = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt,+f16c"


@pytest.mark.skipif("avx2" not in compiler.FEATURES, reason="this CPU has no AVX2")
@pytest.mark.parametrize(
    ("cpu", "features", "width"), [("haswell", AVX2, "32"), ("x86-64", "", "16")], ids=["AVX2", "plain x86-64"]
)
def test_lesser_cpus_compute_the_same(cpu: str, features: str, width: str, tmp_path: Path) -> None:
    result = run(TRAIN, tmp_path, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [width]


def test_a_product_takes_arrays_of_any_type_and_order() -> None:
    """Its kernel knows addresses alone."""
    backend, rng = get_backend("numba"), np.random.default_rng(0)
    x, weights, bias = rng.normal(size=(9, 7)), np.asfortranarray(rng.normal(size=(7, 5)).astype(np.float32)), np.ones(5)
    expected = x @ weights + bias
    np.testing.assert_allclose(backend.dense(x, weights, bias)[0], expected, atol=1e-5)


def test_a_kernel_cannot_allocate_memory() -> None:
    @compiler.jit()
    def allocates(n: int) -> float:
        return float(np.empty(n)[0])

    with pytest.raises(compiler.numba.core.errors.NumbaError, match="empty"):
        allocates(3)
