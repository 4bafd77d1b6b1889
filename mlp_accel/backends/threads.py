"""How many CPU threads to compute with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from operator import index
from pathlib import Path, PurePosixPath

from mlp_accel.errors import SettingError

ENVIRONMENT_VARIABLE = "MLP_ACCEL_NUM_THREADS"

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_cores(root: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> float | None:
    """Cores' worth of time that the control groups grant (a container's CPU limit), or None without a limit.

    A group can have no more than the groups around it, so the smallest limit on the way up from the process's own group counts.
    """
    limits = [limit for folder in _group_folders(root, membership) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _group_folders(root: Path, membership: Path) -> Iterator[Path]:
    """The folders of the process's groups and of those around them, in version 2 and in version 1 of control groups."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in ["0::/", *lines]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        inside = PurePosixPath(path.lstrip("/"))
        for folder in (inside, *inside.parents):
            if ".." not in folder.parts:  # a path with .. leads out of the container, where nothing can be read
                yield top / folder
    yield root / "cpu"


def _limit(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)


def granted_cores() -> int:
    """The cores of the process, or of its control group where that grants less."""
    granted = cgroup_cores()
    cores = available_cores()
    return cores if granted is None else max(1, min(cores, math.ceil(granted)))


def default_threads() -> int:
    """The default number of threads on every backend: `granted_cores`, but no more than ``NUMBA_NUM_THREADS`` allows Numba."""
    limit = os.environ.get("NUMBA_NUM_THREADS", "").strip()
    return min(granted_cores(), int(limit)) if limit.isdecimal() and int(limit) > 0 else granted_cores()


def thread_count(threads: int | None = None, source: str = "the argument threads") -> int:
    """Number of threads: the argument, else ``MLP_ACCEL_NUM_THREADS``, else `default_threads`.

    Raises
    ------
    SettingError
        If it is not a whole number from 1 to `available_cores`; names the source.
    """
    value: int | str | None = threads
    if value is None:
        value, source = os.environ.get(ENVIRONMENT_VARIABLE, "").strip(), f"the environment variable {ENVIRONMENT_VARIABLE}"
        if not value:
            return default_threads()
    limit = available_cores()
    try:
        count = int(value) if isinstance(value, str) else index(value)
    except (ValueError, TypeError):
        count = 0
    if not 1 <= count <= limit:
        raise SettingError(f"{value!r} from {source} is no number of threads; this process can use 1 to {limit}")
    return count


def thread_pools() -> list[str]:
    """Each BLAS and OpenMP with its version, the CPU it has chosen kernels for, and its number of threads."""
    import threadpoolctl

    pools = []
    for pool in threadpoolctl.threadpool_info():
        details = [pool.get("version"), pool.get("architecture"), f"{pool['num_threads']} threads"]
        pools.append(" ".join([pool["internal_api"], *(str(detail) for detail in details if detail)]))
    return sorted(set(pools))
