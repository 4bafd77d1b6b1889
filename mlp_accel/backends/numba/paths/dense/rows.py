"""Samples as rows of numbers, read where they lie."""

from __future__ import annotations

from typing import NamedTuple

from mlp_accel.backends.numba.paths.shared.memory import Integer, Integers, Reals, unpacker


class Rows(NamedTuple):
    """The samples of an epoch as addresses of their rows."""

    pixels: Integers
    """(n,): addresses of the rows in the order of training; of uint8 rows, or the same as `rows`."""
    rows: Integers
    """Addresses of rows of floating numbers: of all samples in the order of training; or, of uint8 samples, of room for two
    minibatches, one of an even and one of an odd number, in which they are scaled."""
    scale: Reals
    """(1,): what a pixel is multiplied by."""
    in_place: Integer
    """Whether `rows` are the samples themselves."""


unpack_rows = unpacker(Rows)
