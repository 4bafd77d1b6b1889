"""Products whose sums stay in vector registers. `rows`, `vectors` and `unroll`, which set their number, must be constants."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from mlp_accel.backends.numba.compiler import FEATURES
from mlp_accel.backends.numba.emit.simd import INDEX, INT32, NUMBER_BITS, NUMBER_MASK, Emitter, cgutils, emitted

TILE_ROWS = 8 if "avx512f" in FEATURES or "neon" in FEATURES else 4
"""Rows of a tile that is two vectors wide: its sums take 16 of the 32 vector registers, or 8 of the 16 that AVX2 has."""


@emitted
def sparse_row(
    typing_context: Any,
    vectors: Any,
    unroll: Any,
    out: Any,
    out_at: Any,
    base: Any,
    base_at: Any,
    scale: Any,
    entries: Any,
    first: Any,
    count: Any,
    table: Any,
    matrix: Any,
    matrix_at: Any,
    stride: Any,
) -> Any:
    """A row plus a weighted sum of some rows of a matrix, which a list of entries ``value << NUMBER_BITS | number`` names.

    ``out[out_at + j] = base[base_at + j] + scale * sum(table[value] * matrix[matrix_at + number * stride + j])`` over the `count`
    entries, for ``j`` over `vectors` whole vectors. `count` must be a multiple of `unroll`, the number of sums that
    run side by side to hide the latency of the additions. All arrays are flat; `entries` is uint32.
    """
    signature = types.void(
        vectors, unroll, out, out_at, base, base_at, scale, entries, first, count, table, matrix, matrix_at, stride
    )

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder, signature, arguments, out.dtype)
        _, _, _, out_at, _, base_at, scale, _, first, count, _, _, matrix_at, stride = arguments
        target, source, list_, numbers, rows = (e.data(position) for position in (2, 4, 7, 10, 11))
        sums = [[e.accumulator() for _ in range(vectors.literal_value)] for _ in range(unroll.literal_value)]
        with cgutils.for_range_slice(builder, first, builder.add(first, count), e.at(len(sums)), INDEX) as (position, _):
            for step, register in enumerate(sums):
                entry = e.element(list_, builder.add(position, e.at(step)))
                row = builder.zext(builder.and_(entry, ir.Constant(INT32, NUMBER_MASK)), INDEX)
                value = e.element(numbers, builder.zext(builder.lshr(entry, ir.Constant(INT32, NUMBER_BITS)), INDEX))
                coefficient = e.splat(value)
                start = builder.add(matrix_at, builder.mul(row, stride))
                for c, variable in enumerate(register):
                    e.accumulate(variable, coefficient, e.load(rows, builder.add(start, e.at(c * e.lanes))))
        factor = e.splat(scale)
        for c in range(vectors.literal_value):
            parts = [builder.load(register[c]) for register in sums]
            while len(parts) > 1:
                parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
            before = e.load(source, builder.add(base_at, e.at(c * e.lanes)))
            e.store(e.multiply_add(factor, parts[0], before), target, builder.add(out_at, e.at(c * e.lanes)))
        return context.get_dummy_value()

    return signature, emit


@emitted
def scatter_row(
    typing_context: Any,
    vectors: Any,
    row: Any,
    row_at: Any,
    scale: Any,
    entries: Any,
    first: Any,
    stop: Any,
    table: Any,
    matrix: Any,
    matrix_at: Any,
    stride: Any,
) -> Any:
    """Add multiples of a row to some rows of a matrix, which a list of entries ``value << NUMBER_BITS | number`` names.

    ``matrix[matrix_at + number * stride + j] += scale * table[value] * row[row_at + j]`` for the entries from `first` to `stop`,
    for ``j`` over `vectors` whole vectors. All arrays are flat; `entries` is uint32.
    """
    signature = types.void(vectors, row, row_at, scale, entries, first, stop, table, matrix, matrix_at, stride)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder, signature, arguments, matrix.dtype)
        _, _, row_at, scale, _, first, stop, _, _, matrix_at, stride = arguments
        source, list_, numbers, rows = (e.data(position) for position in (1, 4, 7, 8))
        shifts = [e.at(c * e.lanes) for c in range(vectors.literal_value)]
        factor = e.splat(scale)
        scaled = [builder.fmul(factor, e.load(source, builder.add(row_at, shift))) for shift in shifts]
        with cgutils.for_range_slice(builder, first, stop, e.at(1), INDEX) as (position, _):
            entry = e.element(list_, position)
            number = builder.zext(builder.and_(entry, ir.Constant(INT32, NUMBER_MASK)), INDEX)
            value = e.splat(e.element(numbers, builder.zext(builder.lshr(entry, ir.Constant(INT32, NUMBER_BITS)), INDEX)))
            start = builder.add(matrix_at, builder.mul(number, stride))
            for shift, part in zip(shifts, scaled, strict=True):
                index = builder.add(start, shift)
                e.store(e.multiply_add(value, part, e.load(rows, index)), rows, index)
        return context.get_dummy_value()

    return signature, emit


@emitted
def dense_tile(
    typing_context: Any,
    rows: Any,
    vectors: Any,
    columns: Any,
    out: Any,
    out_at: Any,
    out_stride: Any,
    base: Any,
    base_at: Any,
    base_stride: Any,
    scale: Any,
    a: Any,
    a_at: Any,
    a_row: Any,
    a_column: Any,
    depth: Any,
    b: Any,
    b_at: Any,
    b_stride: Any,
) -> Any:
    """A tile of a matrix product, `rows` by `vectors` whole vectors.

    ``out[i, j] = base[i, j] + scale * sum(a[i, k] * b[k, j] for k in range(depth))``. All arrays are flat: element ``(i, j)`` of
    `out` is at ``out_at + i * out_stride + j``, `base` and `b` likewise, and ``(i, k)`` of `a` at
    ``a_at + i * a_row + k * a_column``. With `columns` other than None only that many columns of one vector are touched.
    """
    signature = types.void(
        rows,
        vectors,
        columns,
        *(out, out_at, out_stride),
        *(base, base_at, base_stride, scale),
        *(a, a_at, a_row, a_column, depth),
        *(b, b_at, b_stride),
    )

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder, signature, arguments, out.dtype)
        _, _, valid, _, out_at, out_stride, _, base_at, base_stride, scale, *factors = arguments
        _, a_at, a_row, a_column, depth, _, b_at, b_stride = factors
        target, source, left, right = (e.data(position) for position in (3, 6, 10, 15))
        mask = None if isinstance(columns, types.NoneType) else e.first_lanes(valid)
        sums = [[e.accumulator() for _ in range(vectors.literal_value)] for _ in range(rows.literal_value)]
        with cgutils.for_range_slice(builder, e.at(0), depth, e.at(1), INDEX) as (k, _):
            start = builder.add(b_at, builder.mul(k, b_stride))
            row = [e.load(right, builder.add(start, e.at(c * e.lanes)), mask) for c in range(vectors.literal_value)]
            column = builder.add(a_at, builder.mul(k, a_column))
            for i, register in enumerate(sums):
                coefficient = e.splat(e.element(left, builder.add(column, builder.mul(e.at(i), a_row))))
                for variable, values in zip(register, row, strict=True):
                    e.accumulate(variable, coefficient, values)
        factor = e.splat(scale)
        for i, register in enumerate(sums):
            for c, variable in enumerate(register):
                shift = e.at(c * e.lanes)
                before = e.load(source, builder.add(builder.add(base_at, builder.mul(e.at(i), base_stride)), shift), mask)
                after = e.multiply_add(factor, builder.load(variable), before)
                e.store(after, target, builder.add(builder.add(out_at, builder.mul(e.at(i), out_stride)), shift), mask)
        return context.get_dummy_value()

    return signature, emit
