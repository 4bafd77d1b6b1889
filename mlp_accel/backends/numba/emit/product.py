"""Matrix products, tile by tile: the sums of a tile stay in registers until they are complete."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlp_accel.backends.numba.compiler import VECTOR_BYTES, inlined, jit
from mlp_accel.backends.numba.emit.tiles import TILE_ROWS, dense_tile


class Matrix(NamedTuple):
    """A matrix somewhere in a flat array: element ``(i, k)`` is ``array[at + i * row + k * column]``."""

    array: Any
    at: int
    row: int
    column: int = 1


@jit()
def product(rows: int, columns: int, depth: int, out: Matrix, base: Matrix, scale: Any, a: Matrix, b: Matrix) -> None:
    """``out = base + scale * (a @ b)``, `a` of shape (rows, depth) and `b` of shape (depth, columns).

    Each element is one sum over the depth in ascending order, whichever tile it is in, so tiles may be divided among threads. The
    columns of `out`, `base` and `b` must be neighbours in memory; those of `a` need not be.
    """
    lanes = VECTOR_BYTES // out.array.itemsize
    for j in range(0, columns, 2 * lanes):
        if columns - j >= 2 * lanes:
            tiles_of_two(rows, depth, out, base, scale, a, b, j)
        else:
            whole = (columns - j) // lanes * lanes
            if whole > 0:
                tiles_of_one(rows, depth, out, base, scale, a, b, j)
            if whole < columns - j:
                tiles_of_part(rows, columns - j - whole, depth, out, base, scale, a, b, j + whole)


@inlined
def tiles_of_two(rows: int, depth: int, out: Matrix, base: Matrix, scale: Any, a: Matrix, b: Matrix, j: int) -> None:
    """Two vectors of columns from `j` on."""
    x, y, z, w = out.array, base.array, a.array, b.array
    whole = rows - rows % TILE_ROWS
    for i in range(0, whole, TILE_ROWS):
        o, s, c = out.at + i * out.row + j, base.at + i * base.row + j, a.at + i * a.row
        dense_tile(TILE_ROWS, 2, None, x, o, out.row, y, s, base.row, scale, z, c, a.row, a.column, depth, w, b.at + j, b.row)
    for i in range(whole, rows):
        o, s, c = out.at + i * out.row + j, base.at + i * base.row + j, a.at + i * a.row
        dense_tile(1, 2, None, x, o, out.row, y, s, base.row, scale, z, c, a.row, a.column, depth, w, b.at + j, b.row)


@inlined
def tiles_of_one(rows: int, depth: int, out: Matrix, base: Matrix, scale: Any, a: Matrix, b: Matrix, j: int) -> None:
    """One vector of columns from `j` on."""
    x, y, z, w = out.array, base.array, a.array, b.array
    whole = rows - rows % TILE_ROWS
    for i in range(0, whole, TILE_ROWS):
        o, s, c = out.at + i * out.row + j, base.at + i * base.row + j, a.at + i * a.row
        dense_tile(TILE_ROWS, 1, None, x, o, out.row, y, s, base.row, scale, z, c, a.row, a.column, depth, w, b.at + j, b.row)
    for i in range(whole, rows):
        o, s, c = out.at + i * out.row + j, base.at + i * base.row + j, a.at + i * a.row
        dense_tile(1, 1, None, x, o, out.row, y, s, base.row, scale, z, c, a.row, a.column, depth, w, b.at + j, b.row)


@inlined
def tiles_of_part(rows: int, n: int, depth: int, out: Matrix, base: Matrix, scale: Any, a: Matrix, b: Matrix, j: int) -> None:
    """The last `n` columns, less than a vector, from `j` on."""
    x, y, z, w = out.array, base.array, a.array, b.array
    whole = rows - rows % TILE_ROWS
    for i in range(0, whole, TILE_ROWS):
        o, s, c = out.at + i * out.row + j, base.at + i * base.row + j, a.at + i * a.row
        dense_tile(TILE_ROWS, 1, n, x, o, out.row, y, s, base.row, scale, z, c, a.row, a.column, depth, w, b.at + j, b.row)
    for i in range(whole, rows):
        o, s, c = out.at + i * out.row + j, base.at + i * base.row + j, a.at + i * a.row
        dense_tile(1, 1, n, x, o, out.row, y, s, base.row, scale, z, c, a.row, a.column, depth, w, b.at + j, b.row)
