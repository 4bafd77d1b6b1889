"""Files of named arrays with a description: safetensors, with JSON in its metadata. Nothing is ever unpickled.

The same arrays and the same description are the same bytes. Only one key of the metadata is used, because safetensors writes
several in random order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import MlpAccelError, OutputError
from mlp_accel.files import write_atomically

KEY = "mlp_accel"
"""The key of the metadata under which the description stands."""

DIGEST = "sha256"
"""Where the description has the hash of the arrays and of all else that it says: a changed weight would be a weight as well."""

Arrays = dict[str, npt.NDArray[Any]]


def write_tensors(path: Path, arrays: Mapping[str, npt.NDArray[Any]], description: Mapping[str, Any]) -> None:
    """Write arrays and a description that JSON can hold; the file is there whole, and as it should be, or not at all.

    It is read back and compared before it takes its name.

    Raises
    ------
    OutputError
        If it cannot be written, or what is read back differs.
    """
    from safetensors.numpy import save

    # Of an array in Fortran order safetensors 0.8.0 writes the memory as it lies, without a word.
    plain = {name: np.array(array, order="C", copy=True) for name, array in arrays.items()}
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    content = save(plain, {KEY: json.dumps({**description, DIGEST: _digest(plain, text)}, sort_keys=True)})

    def compare(written: Path) -> None:
        found, described = read_tensors(written, OutputError)
        same = found.keys() == plain.keys() and all(same_array(found[name], array) for name, array in plain.items())
        if not (same and described == json.loads(text)):
            raise OutputError(f"cannot write {path}: what was written is not what is read back")

    write_atomically(path, lambda file: file.write(content), compare)


def read_tensors(path: Path, error_type: type[MlpAccelError]) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the description of a file that `write_tensors` wrote.

    Memory for twice the length of the file suffices, whatever it says of itself.

    Raises
    ------
    MlpAccelError
        Of `error_type`: if the file is missing, damaged or of another origin.
    """
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        arrays = {name: np.array(array) for name, array in load(content).items()}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # it is whole, or load would have said so
        text = header.get("__metadata__", {}).get(KEY)
        if text is None:
            raise error_type(f"{path}: not written by mlp_accel: it lacks a description under the key {KEY}")
        description = dict(json.loads(text))
        digest = description.pop(DIGEST)
        if digest != _digest(arrays, json.dumps(description, sort_keys=True, allow_nan=False)):
            raise error_type(f"{path}: damaged: it is not what was written")
    except MlpAccelError:
        raise
    except OSError as error:
        raise error_type(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # safetensors, NumPy and what reads JSON fail in many ways on what is damaged
        raise error_type(f"{path}: not a safetensors file, or a damaged one: {error}") from error
    return arrays, description


def same_array(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bool:
    """Whether two arrays have the same shape, dtype and bits, NaN included."""
    return first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes()


def _digest(arrays: Mapping[str, npt.NDArray[Any]], text: str) -> str:
    """The SHA-256 of arrays and description."""
    hashed = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        hashed.update(f"{name} {array.shape} {array.dtype} ".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()
