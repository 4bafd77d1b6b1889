"""CuPy installed twice. All that keeps CuPy from running is found by the probe of its backend."""

from __future__ import annotations

from collections.abc import Iterator

from mlp_accel.backends.cupy.libraries import install_command, installed_wheels
from mlp_accel.doctor.finding import Finding


def findings() -> Iterator[Finding]:
    """More than one distribution of CuPy: they overwrite each other's files, and removing one breaks the other."""
    wheels = installed_wheels()
    if len(wheels) > 1:
        yield Finding(
            f"{' and '.join(wheels)} are both installed and overwrite each other",
            f"python -m pip uninstall --yes {' '.join(wheels)} && {install_command()}",
            backend="cupy",
        )
