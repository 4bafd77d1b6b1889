"""Scratch environments to install the wheel into."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Environment:
    """An empty virtual environment, and commands run in it, outside the checkout.

    Parameters
    ----------
    folder : path
        Where to make it.
    python : str
        The interpreter to make it from.
    """

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()

    @property
    def site_packages(self) -> Path:
        """Where packages are installed."""
        return next(self.folder.glob("lib/python*/site-packages"))

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a line of shell as if the environment were activated; the settings of the caller are left out."""
        foreign = ("MLP_ACCEL_", "NUMBA_", "CUPY_", "OMP_", "OPENBLAS_", "MPL", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        everything = {**kept, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}
        return subprocess.run(
            ["bash", "-c", command], cwd=self.elsewhere, env=everything, capture_output=True, text=True, check=False
        )

    def must(self, command: str) -> str:
        """As `run`; an error ends everything."""
        result = self.run(command)
        if result.returncode != 0:
            raise SystemExit(f"{command}\n{result.stdout}{result.stderr}\nexit status {result.returncode}")
        return result.stdout
