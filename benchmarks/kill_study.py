"""A study of trainings that are killed at a random moment and gone on with, bit for bit as if they had not been.

    python benchmarks/kill_study.py --kills 100 --json benchmarks/results/kills.json

Each training runs in a process of its own, which gets SIGKILL after a random part of the time that the training alone takes, its
kernels loaded. A new checkpoint is written as soon as the one before is on the disk, so that many are hit while they write. The
same call then goes on. Its model file, which is equal for equal models, is compared with that of the training that was not killed,
and so are the losses of all epochs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlp_accel import Model, init_params, mini_batch_sgd
from mlp_accel.backends import BACKENDS, unavailable
from mlp_accel.backends.paths import AUTO, LOOP
from mlp_accel.environment import environment
from mlp_accel.files import TEMPORARY, write_json

SIZES = [196, 32, 10]
SAMPLES = 2000
EPOCHS = 300
"""So many that the first checkpoint is there after a small part of the time."""


def data(sparse: bool) -> tuple[Any, Any]:
    """Pixels of which four fifths are black, or floats."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, SIZES[-1], SAMPLES)
    x = rng.integers(1, 256, (SAMPLES, SIZES[0])) * (rng.random((SAMPLES, SIZES[0])) < (0.2 if sparse else 1.0))
    x[np.arange(SAMPLES), y] = 255
    return (x.astype(np.uint8) if sparse else x / 255.0), y


def train(folder: Path, backend: str, path: str, sparse: bool, threads: int) -> None:
    """What is killed: the training, and its model and losses when it is over."""
    settings: dict[str, Any] = {"optimizer": "adam", "schedule": "cosine", "validation": 0.1, "epochs": EPOCHS, "threads": threads}
    checkpoint: dict[str, Any] = {"checkpoint": folder / "run.ckpt", "checkpoint_every": 0}
    x, y = data(sparse)
    mini_batch_sgd(x, y, init_params(SIZES), backend=backend, path=path, **{**settings, "epochs": 1})  # loads the kernels
    (folder / "started").touch()
    begin = time.perf_counter()
    history = mini_batch_sgd(x, y, init_params(SIZES), backend=backend, path=path, **settings, **checkpoint)
    seconds = time.perf_counter() - begin
    columns = {"loss": history.loss, "validation_loss": history.validation_loss}
    write_json(str(folder / "losses.json"), {**columns, "resumed": history.resumed, "path": history.path, "seconds": seconds})
    Model(history.params).save(folder / "model.safetensors")


def start(folder: Path, case: dict[str, Any]) -> Any:
    """A process that trains; returns when it has everything that it needs."""
    (folder / "started").unlink(missing_ok=True)
    process = multiprocessing.get_context("forkserver").Process(target=train, args=(folder,), kwargs=case)
    process.start()
    while process.is_alive() and not (folder / "started").exists():
        time.sleep(0.001)
    return process


def finish(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Train to the end; what came out, and how long the training took."""
    process = start(folder, case)
    process.join()
    if process.exitcode:
        raise SystemExit(f"a training ended with the exit code {process.exitcode}")
    result: dict[str, Any] = json.loads((folder / "losses.json").read_text())
    return {**result, "model": (folder / "model.safetensors").read_bytes()}


def kill_one(case: dict[str, Any], whole: dict[str, Any], share: float) -> dict[str, Any]:
    """Kill a training after this share of its time, go on with it, and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = start(folder, case)
        time.sleep(share * whole["seconds"])
        with contextlib.suppress(ProcessLookupError):  # it may have finished just now
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        in_part = sum(file.name.startswith(TEMPORARY) for file in folder.iterdir())
        resumed = finish(folder, case)
        left = sum(file.name.startswith(TEMPORARY) for file in folder.iterdir())
    same = {key: resumed[key] == whole[key] for key in ("model", "loss", "validation_loss")}
    return {
        **case,
        "path": resumed["path"],
        "killed after": round(share, 4),
        "resumed epochs": resumed["resumed"],
        "while writing": in_part > 0,
        "files left": left,
        "equal": all(same.values()),
    }


def main() -> int:
    """Kill, go on, compare; the exit code is 1 if a bit differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--json", default="-")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backends", default=",".join(reversed(BACKENDS)), help="those of them that can run here")
    options = parser.parse_args()
    multiprocessing.set_forkserver_preload(["mlp_accel.training.train", "mlp_accel.backends.numba.backend"])
    usable = [name for name in options.backends.split(",") if unavailable(name) is None]
    kinds = [(backend, path, sparse) for backend in usable for path in (AUTO, LOOP) for sparse in (True, False)]
    cases = [{"backend": b, "path": p, "sparse": s, "threads": options.threads} for b, p, s in kinds if (b, p) != ("numpy", AUTO)]
    rng, kills, wholes, before = np.random.default_rng(), [], {}, environment()
    for number in range(options.kills):
        case = cases[number % len(cases)]
        key = json.dumps(case)
        if key not in wholes:
            with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
                finish(Path(first), case)  # compiles what is not compiled yet
                wholes[key] = finish(Path(second), case)
        kills.append(kill_one(case, wholes[key], float(rng.uniform(0, 1))))
        sys.stderr.write(f"{number + 1}/{options.kills} {kills[-1]}\n")
        if options.json != "-" or number + 1 == options.kills:
            write_json(options.json, {"environment": before, "epochs": EPOCHS, **summary(kills), "each": kills})
    return 0 if all(kill["equal"] for kill in kills) else 1


def summary(kills: list[dict[str, Any]]) -> dict[str, int]:
    """How many were killed, and what of them."""
    return {
        "kills": len(kills),
        "equal": sum(kill["equal"] for kill in kills),
        "in the middle": sum(0 < kill["resumed epochs"] < EPOCHS for kill in kills),
        "while writing": sum(kill["while writing"] for kill in kills),
    }


if __name__ == "__main__":
    sys.exit(main())
