"""Damaged model files and checkpoints by the thousand: each must be refused by an error of its kind, in little memory.

    python -m tests.training.mutations 10000 --json benchmarks/results/mutations.json

writes how many were refused, how many were read because the damage left a valid file, and by how much the memory grew.
"""

from __future__ import annotations

import argparse
import logging
import resource
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlp_accel import CheckpointError, Model, ModelFileError, Scaling, init_params, load_model, mini_batch_sgd
from mlp_accel.environment import environment
from mlp_accel.files import write_json
from mlp_accel.schedules import Schedule
from mlp_accel.training import tensor_file
from mlp_accel.training.checkpoint import Checkpoint
from tests.training.test_training import TOY, toy

ODD: list[Any] = [None, True, -1, 0, 2**63, 10**30, -0.5, 1e308, "", "relu", "x" * 1000, [], [[]], {}, {"a": 1}, [None] * 50]
"""Values to put where others are expected."""


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A file that is damaged as disks, transfers and people do it."""
    data, n = bytearray(content), len(content)
    start, stop = sorted(int(i) for i in rng.integers(0, n, 2))
    match int(rng.integers(0, 8)):
        case 0:
            for position in rng.integers(0, n, int(rng.integers(1, 20))):
                data[position] ^= 1 << int(rng.integers(0, 8))
        case 1:
            del data[start:]
        case 2:
            del data[start : min(stop, start + 40) + 1]
        case 3:
            data[start:start] = rng.bytes(int(rng.integers(1, 200)))
        case 4:
            data[start:stop] = bytes(stop - start)
        case 5:
            data[:8] = rng.bytes(8) if rng.random() < 0.5 else int(rng.integers(0, 2 * n)).to_bytes(8, "little")
        case 6:
            return bytes(data).replace(*_numbers(data, rng), 1)
        case _:
            data[start:stop] = rng.permutation(np.array(data[start:stop], np.uint8)).tobytes()
    return bytes(data)


def _numbers(data: bytearray, rng: np.random.Generator) -> tuple[bytes, bytes]:
    """A number that stands in the header, and another one."""
    header = bytes(data[8 : 8 + int.from_bytes(data[:8], "little")])
    numbers = [word for word in header.replace(b"[", b",").replace(b"]", b",").split(b",") if word.isdigit()]
    return numbers[int(rng.integers(0, len(numbers)))], str(rng.choice([0, 1, 7, 10**6, 2**40, 2**64, 10**30])).encode()


def redescribed(path: Path, rng: np.random.Generator) -> None:
    """Replace a part of the description, and write a hash that fits: such a file is not damaged but made."""
    arrays, description = tensor_file.read_tensors(path, ModelFileError)
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                collect(value[key])

    collect(description)
    container, key = places[int(rng.integers(0, len(places)))]
    if rng.random() < 0.2 and isinstance(container, dict):
        del container[key]
    else:
        container[key] = ODD[int(rng.integers(0, len(ODD)))]
    if rng.random() < 0.3:
        name = sorted(arrays)[int(rng.integers(0, len(arrays)))]
        other = [arrays[name][:0], arrays[name].T[:1], arrays[name].astype(np.int16), np.zeros((1, 2, 3))]
        arrays[name] = other[int(rng.integers(0, len(other)))]
    tensor_file.write_tensors(path, arrays, description)


def study(count: int, folder: Path) -> dict[str, Any]:
    """Damage so many files, of both kinds in turns; any error of another type than theirs comes through."""
    model, checkpoint = folder / "m.safetensors", folder / "run.ckpt"
    x, y = toy()
    Model(init_params(TOY), "relu", np.array(["a", "b", "c"]), Scaling.fit("standard", x), {"epochs": 3}).save(model)
    settings: dict[str, Any] = {"backend": "numpy", "epochs": 3, "optimizer": "adam", "validation": 0.2}
    mini_batch_sgd(x, y, init_params(TOY), checkpoint=checkpoint, **settings)
    described = tensor_file.read_tensors(checkpoint, CheckpointError)[1]["settings"]

    def read_checkpoint(path: Path) -> object:
        with Checkpoint(path, described, Schedule(), 3, 1, 1.0) as opened:
            return opened.read(n_slots=2)

    kinds: list[tuple[str, Path, Callable[[Path], object], type[Exception]]] = [
        ("model", model, load_model, ModelFileError),
        ("checkpoint", checkpoint, read_checkpoint, CheckpointError),
    ]
    assert [read(path) is not None for _, path, read, _ in kinds] == [True, True]
    contents = {path: path.read_bytes() for _, path, _, _ in kinds}
    rng, found, before = np.random.default_rng(0), Counter[str](), _peak_megabytes()
    for number in range(count):
        name, path, read, error_type = kinds[number % 2]
        made = number % 5 == 0
        path.write_bytes(contents[path] if made else mutated(contents[path], rng))
        if made:
            redescribed(path, rng)
        same = path.read_bytes() == contents[path]
        try:
            read(path)
        except error_type:
            found[f"{name}: refused"] += 1
        else:
            assert made or same, f"damaged file {number} was read"
            found[f"{name}: {'the same' if same else 'valid with another description'}"] += 1
    return {"files": count, **dict(sorted(found.items())), "megabytes more": round(_peak_megabytes() - before, 1)}


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the study and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--json", default="-", help="the file of the result; by default it is printed")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # what differs but may is said each time
    before = environment()
    with tempfile.TemporaryDirectory() as folder:
        found = study(options.count, Path(folder))
    write_json(options.json, {"schema": 1, "environment": before, **found})


if __name__ == "__main__":
    main()
