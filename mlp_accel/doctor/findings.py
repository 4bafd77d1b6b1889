"""What can be wrong with an installation and its settings, and the one command that fixes each."""

from __future__ import annotations

from mlp_accel.doctor.finding import Finding

__all__ = ["Finding", "diagnose"]


def diagnose(cores: int) -> list[Finding]:
    """Everything that is found wrong here; the worst first.

    Parameters
    ----------
    cores : int
        Cores granted to this process.
    """
    from mlp_accel.doctor import blas, caches, cupy_installation, numba_threading, variables

    found = [
        *variables.findings(),
        *cupy_installation.findings(),
        *numba_threading.findings(),
        *caches.findings(),
        *blas.findings(cores),
    ]
    return sorted(found, key=lambda finding: not finding.wrong_value)
