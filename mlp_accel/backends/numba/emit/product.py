"""Matrix products, tile by tile: the sums of a tile stay in registers until they are complete."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from mlp_accel.backends.numba.compiler import VECTOR_BYTES, c_function, inlined, jit, numba
from mlp_accel.backends.numba.emit.addresses import array_at, call
from mlp_accel.backends.numba.emit.tiles import TILE_ROWS, dense_tile


class Matrix(NamedTuple):
    """A matrix somewhere in a flat array: element ``(i, k)`` is ``array[at + i * row + k * column]``."""

    array: Any
    at: int
    row: int
    column: int = 1


@inlined
def multiply(
    address: int, rows: int, columns: int, depth: int, out: Matrix, base: Matrix, scale: Any, a: Matrix, b: Matrix
) -> None:
    """`product`, by the address of `product_of_addresses`: it is long, and would be compiled anew in each kernel that calls it."""
    size = out.array.itemsize
    left, right = a.array.ctypes.data + a.at * size, b.array.ctypes.data + b.at * size
    to, before = out.array.ctypes.data + out.at * size, base.array.ctypes.data + base.at * size
    call(address, (rows, columns, depth, to, out.row, before, base.row, left, a.row, a.column, right, b.row, scale))


def product_of_addresses(
    rows: int,
    columns: int,
    depth: int,
    out: int,
    out_row: int,
    base: int,
    base_row: int,
    a: int,
    a_row: int,
    a_column: int,
    b: int,
    b_row: int,
    scale: Any,
) -> int:
    """`product` of matrices that are given by the addresses of their first elements."""
    to, before = Matrix(array_at(out, rows, scale), 0, out_row, 1), Matrix(array_at(base, rows, scale), 0, base_row, 1)
    left, right = Matrix(array_at(a, rows, scale), 0, a_row, a_column), Matrix(array_at(b, rows, scale), 0, b_row, 1)
    product(rows, columns, depth, to, before, scale, left, right)
    return 0


@functools.cache
def address_of_product(dtype: str) -> int:
    """The address of `product_of_addresses`, compiled for matrices of this type."""
    return int(c_function(product_of_addresses, numba.int64(*[numba.int64] * 12, getattr(numba, dtype))).address)


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
