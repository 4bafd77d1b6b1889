"""IDX files, the format of MNIST.

A big-endian header (two zero bytes, a type code, the number of dimensions, then each dimension as uint32), followed by the values
in C order; described on Yann LeCun's MNIST page. Only unsigned bytes (type code 8) occur in images and labels.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from mlp_accel.datasets.npz import DEFLATE_LIMIT
from mlp_accel.errors import DatasetError

_UNSIGNED_BYTE = 8
_CHUNK = 1 << 20

_FILES = {
    "x_train": ("train-images", 3),
    "y_train": ("train-labels", 1),
    "x_test": ("test-images", 3),
    "y_test": ("test-labels", 1),
}


def read_folder(folder: Path, checksums: Path | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read the four files of a folder, whose names hold ``train-images-idx3-ubyte`` and so on (``t10k`` or ``test`` for testing).

    Parameters
    ----------
    folder : path
        Files may be plain or ``.gz``.
    checksums : path, optional
        A file as `sha256sum` writes it; every file must match.

    Raises
    ------
    DatasetError
        If a file is missing, there are several of one kind, or one is malformed.
    """
    paths = {field: _find(folder, stem, n_dims) for field, (stem, n_dims) in _FILES.items()}
    if checksums is not None:
        _verify(list(paths.values()), checksums)
    return {field: read(path, _FILES[field][1]) for field, path in paths.items()}


def read(path: Path, n_dims: int) -> npt.NDArray[np.uint8]:
    """Read one file of unsigned bytes with `n_dims` dimensions, plain or ``.gz``.

    Raises
    ------
    DatasetError
        Before anything large is allocated, if the header promises what the file cannot hold.
    """
    compressed = path.suffix == ".gz"
    try:
        with cast(BinaryIO, gzip.open(path) if compressed else path.open("rb")) as file:
            shape = _read_header(path, file, n_dims)
            expected = math.prod(shape)
            if expected > path.stat().st_size * (DEFLATE_LIMIT if compressed else 1):
                raise DatasetError(f"{path}: the dimensions {shape} in the header need {expected} bytes, the file cannot hold them")
            data = _read_at_most(file, expected + 1)
    except (OSError, EOFError, zlib.error) as error:  # gzip: not a gzip file, cut off, wrong checksum
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    if len(data) != expected:
        found = "more" if len(data) > expected else f"only {len(data)}: truncated"
        raise DatasetError(f"{path}: the header says {expected} bytes of data (dimensions {shape}), the file has {found}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _find(folder: Path, stem: str, n_dims: int) -> Path:
    ending = f"{stem}-idx{n_dims}-ubyte"
    endings = [ending, ending.replace("test-", "t10k-")]
    found = [p for p in sorted(folder.iterdir()) if any(p.name.removesuffix(".gz").endswith(e) for e in endings)]
    if not found:
        raise DatasetError(f"{folder}: no file {endings[-1]} or {endings[-1]}.gz")
    if len({p.name.removesuffix(".gz") for p in found}) > 1:
        names = ", ".join(p.name for p in found)
        raise DatasetError(f"{folder}: several files fit {endings[-1]}: {names}; keep one data set in a folder")
    return found[0]


def _verify(paths: list[Path], checksums: Path) -> None:
    expected = {name: digest for digest, name in (line.split() for line in checksums.read_text().splitlines())}
    for path in paths:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != expected[path.name]:
            raise DatasetError(f"{path}: the SHA-256 is {digest}, not {expected[path.name]}: damaged, install the package again")


def _read_header(path: Path, file: BinaryIO, n_dims: int) -> tuple[int, ...]:
    header = file.read(4 + 4 * n_dims)
    magic = bytes((0, 0, _UNSIGNED_BYTE, n_dims))
    if header[:4] != magic:
        raise DatasetError(f"{path}: the magic number is 0x{header[:4].hex() or '(empty file)'}, it must be 0x{magic.hex()}")
    if len(header) < 4 + 4 * n_dims:
        raise DatasetError(f"{path}: truncated in the header, after {len(header)} of {4 + 4 * n_dims} bytes")
    return struct.unpack(f">{n_dims}I", header[4:])


def _read_at_most(file: BinaryIO, n_bytes: int) -> bytearray:
    """Read in chunks: a single `read` would allocate all that a wrong header asks for.

    It is a bytearray because an array on bytes would be read-only, for which Numba compiles its kernels once more.
    """
    data = bytearray()
    while len(data) < n_bytes and (chunk := file.read(min(n_bytes - len(data), _CHUNK))):
        data += chunk
    return data
