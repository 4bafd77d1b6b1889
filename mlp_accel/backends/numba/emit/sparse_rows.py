"""Products with lists of numbers that are not zero, whose sums stay in vector registers.

`vectors` and `unroll`, which set their number, must be constants. An entry of a list is the number of an input and its value, one
behind the other, which have as many bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from mlp_accel.backends.numba.emit.simd import INDEX, Emitter, cgutils, emitted


def _entry(e: Emitter, entries: Any, position: Any) -> tuple[Any, Any]:
    """The number and the value of an entry of a list, which lie one behind the other."""
    number_at = e.builder.shl(position, e.at(1))
    place = e.builder.gep(entries, [number_at])
    number = e.builder.load(e.builder.bitcast(place, ir.IntType(e.alignment * 8).as_pointer()))
    value = e.element(entries, e.builder.add(number_at, e.at(1)))
    return number if number.type == INDEX else e.builder.zext(number, INDEX), value


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
    matrix: Any,
    matrix_at: Any,
) -> Any:
    """A row plus a weighted sum of some rows of a matrix, which a list of entries ``(number, value)`` names.

    ``out[out_at + j] = base[base_at + j] + scale * sum(value * matrix[matrix_at + number * columns + j])`` over the `count`
    entries, for ``j`` over all `columns`, which are `vectors` whole vectors. `count` must be a multiple of `unroll`, the number of
    sums that run side by side to hide the latency of the additions. All arrays are flat.
    """
    signature = types.void(vectors, unroll, out, out_at, base, base_at, scale, entries, first, count, matrix, matrix_at)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder, signature, arguments, out.dtype)
        _, _, _, out_at, _, base_at, scale, _, first, count, _, matrix_at = arguments
        target, source, list_, rows = (e.data(position) for position in (2, 4, 7, 10))
        columns = e.at(vectors.literal_value * e.lanes)
        sums = [[e.accumulator() for _ in range(vectors.literal_value)] for _ in range(unroll.literal_value)]
        with cgutils.for_range_slice(builder, first, builder.add(first, count), e.at(len(sums)), INDEX) as (position, _):
            for step, register in enumerate(sums):
                number, value = _entry(e, list_, builder.add(position, e.at(step)))
                coefficient = e.splat(value)
                start = builder.add(matrix_at, builder.mul(number, columns))
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
    matrix: Any,
    matrix_at: Any,
) -> Any:
    """Add multiples of a row to some rows of a matrix, which a list of entries ``(number, value)`` names.

    ``matrix[matrix_at + number * columns + j] += scale * value * row[row_at + j]`` for the entries from `first` to `stop`, for
    ``j`` over all `columns`, which are `vectors` whole vectors. All arrays are flat.
    """
    signature = types.void(vectors, row, row_at, scale, entries, first, stop, matrix, matrix_at)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder, signature, arguments, matrix.dtype)
        _, _, row_at, scale, _, first, stop, _, matrix_at = arguments
        source, list_, rows = (e.data(position) for position in (1, 4, 7))
        shifts = [e.at(c * e.lanes) for c in range(vectors.literal_value)]
        columns = e.at(vectors.literal_value * e.lanes)
        factor = e.splat(scale)
        scaled = [builder.fmul(factor, e.load(source, builder.add(row_at, shift))) for shift in shifts]
        with cgutils.for_range_slice(builder, first, stop, e.at(1), INDEX) as (position, _):
            number, value = _entry(e, list_, position)
            coefficient = e.splat(value)
            start = builder.add(matrix_at, builder.mul(number, columns))
            for shift, part in zip(shifts, scaled, strict=True):
                at = builder.add(start, shift)
                e.store(e.multiply_add(coefficient, part, e.load(rows, at)), rows, at)
        return context.get_dummy_value()

    return signature, emit
