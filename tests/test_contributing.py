"""CONTRIBUTING says which files it takes to add something: those files exist, and two of the recipes are followed here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlp_accel

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

MISH = """
def _mish_slope(z: Any) -> Any:
    t = _tanh(maximum(z, 0.0) + log1p(exp(-abs(z))))
    return t + z * (1.0 - t * t) * _logistic(z)


@activation(slope=_mish_slope, of_input=True)
def mish(z: Any) -> Any:
    return z * _tanh(maximum(z, 0.0) + log1p(exp(-abs(z))))


BUILT_IN: dict"""

LION = """
def lion(p: Any, g: Any, m: Any, rate: Any = 1e-4, beta1: Any = 0.9, beta2: Any = 0.99, weight_decay: Any = 0.0) -> Any:
    change = beta1 * m + (1.0 - beta1) * g
    change = (change + 1e-30) / (abs(change) + 1e-30)
    return p - rate * (change + weight_decay * p), beta2 * m + (1.0 - beta2) * g


OPTIMIZERS: dict"""

TRAIN = """
import numpy as np
from mlp_accel import init_params, mini_batch_sgd
from mlp_accel.backends import BACKENDS, backend_class, unavailable
rng = np.random.default_rng(0)
x = rng.integers(1, 256, (200, 30), dtype=np.uint8) * (rng.random((200, 30)) < 0.2).astype(np.uint8)
y = rng.integers(0, 3, 200)
losses = []
for name in BACKENDS:
    if unavailable(name):
        continue
    for path in (*backend_class(name).path_names, "loop"):
        history = mini_batch_sgd(x, y, init_params([30, 7, 3]), epochs=2, backend=name, path=path, SETTING)
        losses.append(history.loss)
assert len(losses) >= 1
np.testing.assert_allclose(losses, [losses[0]] * len(losses), rtol=1e-4)
"""


def files_for(what: str) -> list[str]:
    """The files that the recipe for `what` names."""
    found = re.search(rf"^- \*\*{what}\*\*[^:]*:(.*?)(?=^- \*\*|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, what
    return re.findall(r"`((?:mlp_accel|tests)/[\w./]+)`", found.group(1))


@pytest.mark.parametrize("what", re.findall(r"^- \*\*(an? [\w ]+)\*\*", TEXT, re.MULTILINE))
def test_every_file_that_a_recipe_names_is_there(what: str) -> None:
    assert files_for(what)
    for name in files_for(what):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    ("what", "text", "before", "setting"),
    [
        ("an activation", MISH, "\nBUILT_IN: dict", 'activation="mish"'),
        ("an optimiser", LION, "\nOPTIMIZERS: dict", 'optimizer="lion"'),
    ],
)
def test_a_recipe_that_is_followed_is_all_that_it_takes(what: str, text: str, before: str, setting: str, tmp_path: Path) -> None:
    (name,) = files_for(what)
    package = Path(mlp_accel.__file__).parent
    shutil.copytree(package, tmp_path / "mlp_accel", ignore=shutil.ignore_patterns("mnist", "__pycache__"))
    file = tmp_path / name
    source = file.read_text(encoding="utf-8")
    assert source.count(before) == 1
    source = source.replace(before, text).replace("momentum, nesterov, adam, adamw)}", "momentum, nesterov, adam, adamw, lion)}")
    file.write_text(source, encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), "MLP_ACCEL_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-P", "-c", TRAIN.replace("SETTING", setting)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
