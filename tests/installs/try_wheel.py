"""Install the wheel into empty environments and use it there: ``python -m tests.installs.try_wheel WHEEL [PYTHON]...``.

For each interpreter: nothing but the wheel and what it asks for is installed, ``pip check`` is clean, and a benchmark outside the
checkout runs on the data inside the wheel. Takes about a minute for each.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.installs.environments import Environment


def try_wheel(wheel: Path, python: str) -> str:
    """A line that says what ran, or the end."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder) / "venv", python)
        environment.must(f"python -m pip install --quiet {wheel.resolve()}")
        environment.must("python -m pip check")
        where = environment.must("python -c 'import mlp_accel; print(mlp_accel.__file__)'").strip()
        if not Path(where).is_relative_to(environment.site_packages):
            raise SystemExit(f"{where} is not the installed package")
        report = json.loads(environment.must("mlp-accel doctor --json -"))
        for finding in report["findings"]:  # of this machine, such as a missing OpenMP
            sys.stdout.write(f"{finding['problem']}; to fix it: {finding['fix']}\n")
        result = json.loads(environment.must("mlp-accel bench --epochs 2 --json -"))
    rows = {row["name"]: row for row in result["results"]}
    wrong = [name for name in ("numpy", "numba") if rows[name]["status"] != "ok" or rows[name]["test_accuracy"] < 0.9]
    if wrong or result["config"]["data"] != "mnist":
        raise SystemExit(f"the benchmark went wrong: {rows}")
    times = ", ".join(f"{name} {rows[name]['epoch_seconds']['median']:.2f} s an epoch" for name in ("numpy", "numba"))
    versions = ", ".join(f"{name} {version}" for name, version in report["packages"].items() if version)
    return f"Python {report['python']}: {times}; {versions}"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for interpreter in sys.argv[2:] or [sys.executable]:
        sys.stdout.write(try_wheel(Path(sys.argv[1]), interpreter) + "\n")
