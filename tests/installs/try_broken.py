"""Break an installation in every way that doctor knows, for real: ``python -m tests.installs.try_broken WHEEL``.

Each case breaks something in a scratch environment, prints what ``mlp-accel doctor`` finds, runs the command that it gives and asks
it again; what cannot be fixed on this machine says so. Takes about ten minutes and 4 GB, most of it CuPy's libraries. Groups of
cases can be chosen after the wheel: settings, numba, cupy, root.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.installs.environments import Environment

# A driver that finds no GPU, as far as the CUDA runtime asks it.
DRIVER_WITHOUT_GPU = """
#include <string.h>
#define NO_DEVICE 100
int cuInit(unsigned flags) { return NO_DEVICE; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
static int refuse(void) { return NO_DEVICE; }
int cuGetProcAddress_v2(const char *name, void **address, int version, unsigned long flags, int *status) {
    *address = !strcmp(name, "cuInit") ? (void *)cuInit
             : !strcmp(name, "cuDriverGetVersion") ? (void *)cuDriverGetVersion
             : !strcmp(name, "cuGetProcAddress") ? (void *)cuGetProcAddress_v2 : (void *)refuse;
    if (status) *status = 0;
    return 0;
}
"""


CPU_GROUPS = Path("/sys/fs/cgroup/cpu")


@dataclass
class Case:
    """Something broken: how, what doctor must say, and whether its command can be tried here."""

    name: str
    words: str
    fix: str
    variables: dict[str, str] = field(default_factory=dict)
    broken: AbstractContextManager[object] = field(default_factory=nullcontext)
    can_mend: bool = True
    exit_code: int = 0
    wrapper: str = ""


def report(environment: Environment, case: Case, before: str = ":") -> tuple[dict[str, str], int]:
    """What doctor finds wrong, as problem: fix; its exit code."""
    result = environment.run(f"{before} && {case.wrapper} mlp-accel doctor --json -", **case.variables)
    try:
        content: dict[str, Any] = json.loads(result.stdout)
    except json.JSONDecodeError:
        raise SystemExit(f"{case.name}: doctor itself failed:\n{result.stdout}{result.stderr}") from None
    found = {row["reason"]: row["fix"] for row in content["backends"].values() if not row["usable"]}
    return found | {finding["problem"]: finding["fix"] for finding in content["findings"]}, result.returncode


def try_case(environment: Environment, case: Case) -> None:
    """Break, ask, fix, ask again."""
    with case.broken:
        found, code = report(environment, case)
        hits = {problem: fix for problem, fix in found.items() if case.words in problem}
        if not any(case.fix in fix for fix in hits.values()) or code != case.exit_code:
            raise SystemExit(f"{case.name}: doctor found {found} with exit code {code}")
        problem, fix = next((problem, fix) for problem, fix in hits.items() if case.fix in fix)
        if case.can_mend:
            left, _ = report(environment, case, before=f"{{ {fix}; }} >&2")
            if any(case.words in problem for problem in left):
                raise SystemExit(f"{case.name}: still there after {fix}: {left}")
        outcome = "fixed by that" if case.can_mend else "cannot be fixed here"
        sys.stdout.write(f"{case.name} (exit {code})\n    {problem}\n    to fix it: {fix}\n    {outcome}\n")
        sys.stdout.flush()


@contextmanager
def away(*paths: Path) -> Iterator[None]:
    """Files that are missing for a while."""
    for path in paths:
        path.rename(path.with_name(path.name + ".away"))
    try:
        yield
    finally:
        for path in paths:
            hidden = path.with_name(path.name + ".away")
            if path.exists():  # the fix has put it back
                hidden.unlink()
            else:
                hidden.rename(path)


@contextmanager
def removed(folder: Path) -> Iterator[None]:
    """A folder that is deleted; the fix must put it back."""
    shutil.rmtree(folder)
    yield


@contextmanager
def installed(environment: Environment, *arguments: str) -> Iterator[None]:
    """Something that is installed beforehand."""
    environment.must(f"python -m pip install --quiet {' '.join(arguments)}")
    yield


@contextmanager
def one_core() -> Iterator[str]:
    """A control group with the time of one core; yields what a command must be prefixed with to run in it as in a container."""
    group = CPU_GROUPS / "mlp-accel-try"
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("100000")
        yield (
            f"echo $$ > {group}/cgroup.procs && exec unshare --cgroup --mount sh -c "
            "'umount --lazy /sys/fs/cgroup/cpu && mount -t cgroup -o cpu none /sys/fs/cgroup/cpu && exec \"$@\"' sh"
        )
    finally:
        group.rmdir()


def settings(_: Environment, __: Path) -> Iterator[Case]:
    """Environment variables with a wrong value."""
    for name, value in {
        "MLP_ACCEL_BACKEND": "gpu",
        "MLP_ACCEL_NUM_THREADS": "many",
        "MLP_ACCEL_DATA_DIR": "/nowhere",
        "MLP_ACCEL_CACHE_DIR": "/dev/null/cache",
        "MLP_ACCEL_BACKENDS": "numpy",
        "NUMBA_NUM_THREADS": "0",
        "NUMBA_THREADING_LAYER": "bogus",
        "NUMBA_DISABLE_JIT": "1",
        "OMP_NUM_THREADS": "all",
        "MPLBACKEND": "bogus",
    }.items():
        yield Case(f"{name}={value}", name if value != "gpu" else "'gpu'", f"unset {name}", {name: value}, exit_code=2)


def numba(environment: Environment, libraries: Path) -> Iterator[Case]:
    """Threading layers that do not load."""
    layers = environment.site_packages / "numba" / "np" / "ufunc"
    modules = [path for name in ("omppool", "workqueue", "tbbpool") for path in layers.glob(f"{name}*.so")]
    yield Case("Numba without any threading layer", "cannot load a threading layer", "reinstall", broken=away(*modules))
    (libraries / "libgomp.so.1.0.0").touch()
    without_openmp = {"LD_LIBRARY_PATH": str(libraries)}
    yield Case("Numba without libgomp1", "slow threading layer", "libgomp", without_openmp, can_mend=False)
    wanted = {"NUMBA_THREADING_LAYER": "tbb"}
    yield Case("Numba asked for a layer it lacks", "cannot be loaded", "unset NUMBA_THREADING_LAYER", wanted, exit_code=2)


def cupy(environment: Environment, libraries: Path) -> Iterator[Case]:
    """CuPy in all its broken states, the next one made from what the last one left."""
    yield Case("CuPy without CUDA's libraries", "NVRTC", "[ctk]", broken=installed(environment, "cupy-cuda13x"))
    nvrtc = list(environment.site_packages.glob("nvidia/cu13/lib/libnvrtc.so*"))
    yield Case("CuPy without NVRTC alone", "(NVRTC", "nvidia-cuda-nvrtc", broken=away(*nvrtc))
    yield Case("no driver", "no driver", "", can_mend=False)
    named = {"MLP_ACCEL_BACKEND": "cupy"}
    yield Case("no driver, CuPy asked for", "'cupy', from the environment", "", named, can_mend=False, exit_code=3)
    if shutil.which("cc"):
        source = libraries / "driver.c"
        source.write_text(DRIVER_WITHOUT_GPU)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", libraries / "gpu" / "libcuda.so.1", source], check=True)
        hidden = {"LD_LIBRARY_PATH": str(libraries / "gpu"), "CUDA_VISIBLE_DEVICES": "-1"}
        yield Case("a driver, no visible device", "no device", "unset CUDA_VISIBLE_DEVICES", hidden, can_mend=False)
    both = installed(environment, "--no-deps", "cupy-cuda12x")
    yield Case("both wheels of CuPy", "cupy-cuda12x and cupy-cuda13x", "uninstall", broken=both)
    gone = removed(environment.site_packages / "cupy")
    yield Case("CuPy half uninstalled", "its files are gone", "force-reinstall", broken=gone)


def main(wheel: Path, *chosen: str) -> None:
    """The chosen groups of cases, or all, in one scratch environment."""
    with tempfile.TemporaryDirectory() as folder:
        libraries = Path(folder) / "libraries"
        (libraries / "gpu").mkdir(parents=True)
        environment = Environment(Path(folder) / "venv", sys.executable)
        environment.must(f"python -m pip install --quiet {wheel.resolve()}")
        for group in (settings, numba, cupy, root):
            if group.__name__ in (chosen or group.__name__):
                for case in group(environment, libraries):
                    try_case(environment, case)


def root(environment: Environment, _: Path) -> Iterator[Case]:
    """What only root can break: a control group, and a read-only file system."""
    if os.getuid() != 0:
        sys.stdout.write("not tried, for lack of root: a cache that cannot be written, BLAS with more threads than cores\n")
        return
    packages = environment.site_packages
    read_only = f"mount --bind {packages} {packages} && mount -o remount,bind,ro {packages}"
    wrapper = f"unshare --mount sh -c '{read_only} && exec env HOME=/dev/null \"$@\"' sh"
    words = "compiled at every start"
    yield Case("a cache that cannot be written", words, "export MLP_ACCEL_CACHE_DIR", wrapper=wrapper)
    if not CPU_GROUPS.exists() or (os.cpu_count() or 1) < 2:
        sys.stdout.write("not tried, for lack of two cores and control groups of version 1: BLAS with more threads than cores\n")
        return
    with one_core() as prefix:
        words = "where 1 cores are granted"
        yield Case("BLAS with more threads than cores", words, "export OPENBLAS_NUM_THREADS=1", wrapper=prefix)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), *sys.argv[2:])
