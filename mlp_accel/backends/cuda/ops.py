"""The kernels of the ops that are not products (``ops.cu``)."""

from __future__ import annotations

import numpy as np

from mlp_accel.backends.cuda import DEVICE, defines, source

FILES = ("ops.cu",)
THREADS = 256
"""Of a block, as in the source."""

SHARED_BYTES = 8 * THREADS // 32
"""Of the kernels that sum over the rows: a float64 for each warp."""

ROWS = ("cross_entropy", "cross_entropy_from_logits", "correct")
"""Kernels that sum over the rows, in one block."""

REAL = {"float32": "float", "float64": "double"}
LABEL = {
    **{f"int{bits}": c for bits, c in ((8, "signed char"), (16, "short"), (32, "int"), (64, "long long"))},
    **{f"uint{bits}": f"unsigned {c}" for bits, c in ((8, "char"), (16, "short"), (32, "int"), (64, "long long"))},
}


def options(dtype: str, label_dtype: str = "int64") -> tuple[str, ...]:
    """For the compiler."""
    smallest = f"{float(np.finfo(dtype).smallest_normal)!r}{'f' if dtype == 'float32' else ''}"
    return defines({"REAL": REAL[dtype], "SMALLEST_NORMAL": smallest, "LABEL": LABEL[label_dtype]})


def ops_source() -> str:
    """CUDA C++ for NVRTC."""
    return source(DEVICE, *FILES)
