"""Reading NumPy ``.npz`` files of unknown origin: nothing is unpickled, and every header is checked before memory is allocated."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import MlpAccelError

DEFLATE_LIMIT = 1032
"""The most bytes that one compressed byte can stand for (zlib's technical details, "maximum compression factor")."""


def array_names(path: Path, error_type: type[MlpAccelError]) -> list[str]:
    """The names of the arrays of a ``.npz`` file; an error of `error_type` if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except zipfile.BadZipFile as error:
        raise error_type(f"{path}: not a .npz file, or a damaged one: {error}") from error
    except OSError as error:
        raise error_type(f"{path}: cannot be read: {error}") from error


def read_npz(path: Path, error_type: type[MlpAccelError], names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of a ``.npz`` file.

    Parameters
    ----------
    path : path
    error_type : type
        The error to raise; its message names file and array.
    names : sequence of str, optional
        The arrays to read; all by default.

    Raises
    ------
    MlpAccelError
        Of `error_type`: if the file is no ``.npz``, an array is missing, holds Python objects, or its header promises what the file
        does not hold.
    """
    present = array_names(path, error_type)
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = present if names is None else names
            for name in wanted:
                if name not in present:
                    raise error_type(f"{path}: no array {name}; there is {', '.join(present) or 'nothing'}")
            limit = path.stat().st_size * DEFLATE_LIMIT
            return {name: _read_array(archive, name, f"{path}: {name}", limit, error_type) for name in wanted}
    except zipfile.BadZipFile as error:
        raise error_type(f"{path}: not a .npz file, or a damaged one: {error}") from error
    except MlpAccelError:
        raise
    except Exception as error:  # NumPy evaluates a header as a Python literal, and a damaged one may fail in any way
        raise error_type(f"{path}: cannot be read: {error}") from error


def _read_array(archive: zipfile.ZipFile, name: str, label: str, limit: int, error_type: type[MlpAccelError]) -> npt.NDArray[Any]:
    """Read one array; NumPy allocates what the header says before it reads on, so the header is checked first."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        promised, held = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
    if dtype.hasobject:
        raise error_type(f"{label} holds Python objects; save plain numbers")
    if promised != held or promised > limit:
        raise error_type(f"{label}: the header says {shape} of {dtype}, {promised} bytes; the file does not hold them")
    with archive.open(info) as file:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array
