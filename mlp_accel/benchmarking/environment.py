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
from mlp_accel.threads import available_cores, cgroup_cores

ENVIRONMENT_VARIABLES = (
    "MLP_ACCEL_BACKEND",
    "MLP_ACCEL_CUPY_PATH",
    "MLP_ACCEL_DATA_DIR",
    "MLP_ACCEL_NUM_THREADS",
    "MLP_ACCEL_TF32",
    "CUDA_VISIBLE_DEVICES",
    "NUMBA_NUM_THREADS",
    "NUMBA_THREADING_LAYER",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)
"""Those that change what is measured; only the ones that are set are reported."""


def environment() -> dict[str, Any]:
    """Machine, software and state of the sources, in types that JSON knows."""
    commit, dirty = _git_state(Path(mlp_accel.__file__).parent)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": available_cores(),
        "cgroup_cores": cgroup_cores(),
        "load_before": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "mlp_accel": mlp_accel.__version__,
        "numpy": np.__version__,
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
