"""Products whose sums stay in vector registers. `rows` and `vectors`, which set their number, must be constants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numba import types

from mlp_accel.backends.numba.compiler import FEATURES
from mlp_accel.backends.numba.emit.simd import INDEX, Emitter, cgutils, emitted

TILE_VECTORS = 2
"""Vectors in a row of the widest tile."""

TILE_ROWS = 8 if "avx512f" in FEATURES or "neon" in FEATURES else 4
"""Rows of a tile that is two vectors wide: its sums take 16 of the 32 vector registers, or 8 of the 16 that AVX2 has."""


def _add_products(e: Emitter, sums: list[list[Any]], coefficients: Iterable[Any], row: list[Any]) -> None:
    """``sums[i][c] += coefficients[i] * row[c]``, for numbers and vectors."""
    for register, coefficient in zip(sums, coefficients, strict=True):
        for variable, values in zip(register, row, strict=True):
            e.accumulate(variable, coefficient, values)


Place = tuple[Any, Any, Any]
"""A matrix in memory: a pointer, the place of its first element, and its stride."""


def _finish(e: Emitter, sums: list[list[Any]], scale: Any, base: Place, out: Place, mask: Any) -> None:
    """``out[i, j] = base[i, j] + scale * sums[i, j]``."""
    factor = e.splat(scale)
    for i, register in enumerate(sums):
        before, after = (e.builder.add(at, e.builder.mul(e.at(i), stride)) for _, at, stride in (base, out))
        for c, variable in enumerate(register):
            shift = e.at(c * e.lanes)
            value = e.load(base[0], e.builder.add(before, shift), mask)
            e.store(e.multiply_add(factor, e.builder.load(variable), value), out[0], e.builder.add(after, shift), mask)


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
            elements = (builder.add(column, builder.mul(e.at(i), a_row)) for i in range(len(sums)))
            _add_products(e, sums, (e.splat(e.element(left, element)) for element in elements), row)
        _finish(e, sums, scale, (source, base_at, base_stride), (target, out_at, out_stride), mask)
        return context.get_dummy_value()

    return signature, emit


@emitted
def rows_tile(
    typing_context: Any,
    rows: Any,
    vectors: Any,
    out: Any,
    out_at: Any,
    out_stride: Any,
    base: Any,
    base_at: Any,
    base_stride: Any,
    samples: Any,
    first: Any,
    begin: Any,
    depth: Any,
    b: Any,
    b_at: Any,
    b_stride: Any,
) -> Any:
    """A tile of a product whose left rows lie anywhere in memory, `rows` by `vectors` whole vectors.

    ``out[i, j] = base[i, j] + sum(row[begin + k] * b[k, j] for k in range(depth))``, where ``row`` lies at the address
    ``samples[first + i]``. The sum begins with the base, so a product may be made of several, each of a part of the depth.
    """
    signature = types.void(
        *(rows, vectors),
        *(out, out_at, out_stride),
        *(base, base_at, base_stride),
        *(samples, first, begin, depth),
        *(b, b_at, b_stride),
    )

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder, signature, arguments, out.dtype)
        _, _, _, out_at, out_stride, _, base_at, base_stride, _, first, begin, depth, _, b_at, b_stride = arguments
        to, source, addresses, right = (e.data(position) for position in (2, 5, 8, 12))
        shifts = [e.at(c * e.lanes) for c in range(vectors.literal_value)]
        pointers, sums = [], []
        for i in range(rows.literal_value):
            address = e.element(addresses, builder.add(first, e.at(i)))
            pointers.append(builder.gep(builder.inttoptr(address, e.scalar.as_pointer()), [begin]))
            place = builder.add(base_at, builder.mul(e.at(i), base_stride))
            sums.append([e.accumulator(e.load(source, builder.add(place, shift))) for shift in shifts])
        with cgutils.for_range_slice(builder, e.at(0), depth, e.at(1), INDEX) as (k, _):
            start = builder.add(b_at, builder.mul(k, b_stride))
            row = [e.load(right, builder.add(start, shift)) for shift in shifts]
            _add_products(e, sums, (e.splat(e.element(pointer, k)) for pointer in pointers), row)
        for i, register in enumerate(sums):
            place = builder.add(out_at, builder.mul(e.at(i), out_stride))
            for variable, shift in zip(register, shifts, strict=True):
                e.store(builder.load(variable), to, builder.add(place, shift))
        return context.get_dummy_value()

    return signature, emit


@emitted
def gradient_tile(
    typing_context: Any,
    rows: Any,
    vectors: Any,
    out: Any,
    out_at: Any,
    out_stride: Any,
    base: Any,
    base_at: Any,
    base_stride: Any,
    scale: Any,
    samples: Any,
    first: Any,
    ahead: Any,
    count: Any,
    begin: Any,
    b: Any,
    b_at: Any,
    b_stride: Any,
) -> Any:
    """A tile of the gradient of a layer whose inputs lie anywhere in memory, `rows` inputs by `vectors` whole vectors of units.

    ``out[k, j] = base[k, j] + scale * sum(row_i[begin + k] * b[i, j] for i in range(count))``, where ``row_i`` lies at the address
    ``samples[first + i]``. The same inputs of the row at ``samples[ahead + i]`` are brought into the cache.
    """
    signature = types.void(
        *(rows, vectors),
        *(out, out_at, out_stride),
        *(base, base_at, base_stride, scale),
        *(samples, first, ahead, count, begin),
        *(b, b_at, b_stride),
    )

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder, signature, arguments, out.dtype)
        _, _, _, out_at, out_stride, _, base_at, base_stride, scale, *factors = arguments
        _, first, ahead, count, begin, _, b_at, b_stride = factors
        to, source, addresses, right = (e.data(position) for position in (2, 5, 9, 14))
        shifts = [e.at(c * e.lanes) for c in range(vectors.literal_value)]
        sums = [[e.accumulator() for _ in shifts] for _ in range(rows.literal_value)]

        def inputs_of(sample: Any) -> Any:
            address = e.element(addresses, sample)
            return builder.gep(builder.inttoptr(address, e.scalar.as_pointer()), [begin])

        with cgutils.for_range_slice(builder, e.at(0), count, e.at(1), INDEX) as (i, _):
            pointer = inputs_of(builder.add(first, i))
            e.prefetch(inputs_of(builder.add(ahead, i)), locality=2)
            start = builder.add(b_at, builder.mul(i, b_stride))
            row = [e.load(right, builder.add(start, shift)) for shift in shifts]
            _add_products(e, sums, (e.splat(e.element(pointer, e.at(k))) for k in range(len(sums))), row)
        _finish(e, sums, scale, (source, base_at, base_stride), (to, out_at, out_stride), None)
        return context.get_dummy_value()

    return signature, emit


@emitted
def transpose_tile(typing_context: Any, out: Any, out_at: Any, out_stride: Any, a: Any, a_at: Any, a_stride: Any) -> Any:
    """Transpose a tile of as many rows as a vector has lanes, one vector wide.

    ``out[out_at + j * out_stride + i] = a[a_at + i * a_stride + j]``. Both arrays are flat.
    """
    signature = types.void(out, out_at, out_stride, a, a_at, a_stride)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder, signature, arguments, out.dtype)
        _, out_at, out_stride, _, a_at, a_stride = arguments
        to, source, lanes = e.data(0), e.data(3), range(e.lanes)
        rows = [e.load(source, builder.add(a_at, builder.mul(e.at(i), a_stride))) for i in lanes]
        step = 1
        while step < e.lanes:  # exchange blocks of `step` by `step` elements that lie across the diagonal
            upper = [k + e.lanes - step if k & step else k for k in lanes]
            lower = [k + e.lanes if k & step else k + step for k in lanes]
            for i in (i for i in lanes if not i & step):
                pair = rows[i], rows[i + step]
                rows[i], rows[i + step] = (e.pick(*pair, numbers) for numbers in (upper, lower))
            step *= 2
        for j, row in enumerate(rows):
            e.store(row, to, builder.add(out_at, builder.mul(e.at(j), out_stride)))
        return context.get_dummy_value()

    return signature, emit
