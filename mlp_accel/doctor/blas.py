"""Threads of BLAS, the library that computes matrix products."""

from __future__ import annotations

from collections.abc import Iterator

import threadpoolctl

from mlp_accel.doctor.finding import Finding

VARIABLES = {"openblas": "OPENBLAS_NUM_THREADS", "mkl": "MKL_NUM_THREADS", "blis": "BLIS_NUM_THREADS"}


def findings(cores: int) -> Iterator[Finding]:
    """A BLAS that starts more threads than `cores`, which then wait for each other. Only while it trains mlp_accel limits them."""
    for library in threadpoolctl.threadpool_info():
        threads, name = library["num_threads"], library["internal_api"]
        if library["user_api"] == "blas" and threads > cores:
            variable = VARIABLES.get(name, "OMP_NUM_THREADS")
            yield Finding(
                f"{name} starts {threads} threads where {cores} cores are granted: slow wherever mlp_accel does not limit them",
                f"export {variable}={cores}",
            )
