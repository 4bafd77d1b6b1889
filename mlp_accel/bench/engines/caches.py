"""Where libraries keep what they have compiled: an engine with folders of its own starts as if for the first time."""

from __future__ import annotations

from pathlib import Path

VARIABLES = (
    "MLP_ACCEL_CACHE_DIR",
    "CUPY_CACHE_DIR",
    "CUDA_CACHE_PATH",
    "JAX_COMPILATION_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
)
"""What names the folder of each library."""

KEEP_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
"""Otherwise JAX keeps only what took long to compile."""


def own_caches(folder: Path) -> dict[str, str]:
    """Environment variables by which a process keeps compiled code in `folder`, which is made if it is not there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return {**{name: str(folder / name.lower()) for name in VARIABLES}, **KEEP_ALL}
