"""What a measured time depends on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import mlp_accel
from mlp_accel.backends.threads import available_cores, cgroup_cores, thread_pools

HOST_VARIABLE = "MLP_ACCEL_HOST"
"""A name for this machine. Two that are alike to the eye can be told apart by it; without it nothing is written, for names of hosts
are nobody else's business."""

ENVIRONMENT_VARIABLES = (
    "MLP_ACCEL_BACKEND",
    "MLP_ACCEL_CACHE_DIR",
    "MLP_ACCEL_DATA_DIR",
    "MLP_ACCEL_NUM_THREADS",
    "MLP_ACCEL_PATH",
    "MLP_ACCEL_TF32",
    "CUDA_VISIBLE_DEVICES",
    "NUMBA_NUM_THREADS",
    "NUMBA_THREADING_LAYER",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_CACHE_DIR",
    "NUMBA_CPU_NAME",
    "CUPY_TF32",
    "NVIDIA_TF32_OVERRIDE",
    "XLA_FLAGS",
)
"""Those that change what is measured; only the ones that are set are reported."""


def environment() -> dict[str, Any]:
    """Machine, software and state of the sources, in types that JSON knows.

    To be called before the work: the load is that of now. Libraries that are not loaded here, and how many threads they take,
    are in the rows of their engines.
    """
    commit, dirty = _git_state(Path(mlp_accel.__file__).parent)
    host = os.environ.get(HOST_VARIABLE, "").strip()
    return {
        **({"host": host} if host else {}),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": available_cores(),
        "cgroup_cores": cgroup_cores(),
        "frequency_governor": frequency_governor(),
        "simd": simd_extensions(),
        "simd_bits": simd_bits(),
        "gpu": gpus(),
        "load_before": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "mlp_accel": mlp_accel.__version__,
        "numpy": np.__version__,
        "blas": blas(),
        "commit": commit,
        "dirty": dirty,
        "variables": {name: os.environ[name] for name in ENVIRONMENT_VARIABLES if name in os.environ},
    }


def cpu_model() -> str:
    """Name of the processor as the system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def frequency_governor(root: Path = Path("/sys/devices/system/cpu")) -> str | None:
    """How the system chooses the clock rate of the cores, if it says: ``"performance"``, ``"powersave"`` or another."""
    try:
        found = {path.read_text().strip() for path in root.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    except OSError:
        return None
    return ", ".join(sorted(found)) or None


def simd_extensions() -> list[str]:
    """Vector instructions of this CPU that NumPy has kernels for."""
    found = _numpy_config("SIMD Extensions")
    return [*found.get("baseline", []), *found.get("found", [])]


def simd_bits() -> int | None:
    """Width of the widest vector registers, in bits."""
    found = " ".join(simd_extensions())
    names = {
        "AVX512": 512,
        "X86_V4": 512,
        "AVX2": 256,
        "X86_V3": 256,
        "SSE": 128,
        "X86_V2": 128,
        "ASIMD": 128,
        "NEON": 128,
        "VSX": 128,
    }
    return next((bits for name, bits in names.items() if name in found), None)


def blas() -> list[str]:
    """The BLAS that NumPy multiplies with: its version, the CPU it has chosen kernels for, and its threads by default."""
    return [pool for pool in thread_pools() if "blas" in pool or "mkl" in pool or "blis" in pool]


def gpus() -> list[str]:
    """Each NVIDIA GPU that the driver knows, with its memory and the version of the driver."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return [", driver ".join(line.rsplit(", ", 1)) for line in lines if line.strip()]


def _numpy_config(section: str) -> dict[str, Any]:
    config: Any = np.show_config(mode="dicts")
    found: dict[str, Any] = config.get(section, {})
    return found


def _git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the sources and whether the package differs from it; (None, None) for an installed package."""
    if not (folder.parent / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return None, None
