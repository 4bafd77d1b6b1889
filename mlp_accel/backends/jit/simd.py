"""Vectors for Numba: the few loops that LLVM does not bring to full speed by itself, written on its vector types.

Each function here is an intrinsic: Python code that runs while a kernel is compiled and emits instructions into it. The sums stay
in registers; their number is fixed by the arguments `rows`, `vectors` and `unroll`, which must be constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

from mlp_accel.backends.jit.compiler import FEATURES, VECTOR_BYTES

TILE_ROWS = 8 if "avx512f" in FEATURES or "neon" in FEATURES else 4
"""Rows of a tile of two vectors: the sums take half of the registers or a little more."""

HAS_COMPRESS = "avx512vbmi2" in FEATURES
"""Whether the CPU can pick the marked bytes of a vector; LLVM's substitute is slower than a plain loop."""

CHUNK = 64
"""Bytes that `compress` reads."""

cgutils: Any = _cgutils  # without types
_INDEX = ir.IntType(64)
_INT32 = ir.IntType(32)


def _intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's, and constants among the arguments arrive as such; callers do not pass the typing context."""
    return cast(Callable[..., Any], intrinsic(prefer_literal=True)(function))


class _Emitter:
    """Instructions on vectors of the element type of one kernel."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, scalar: Any) -> None:
        self.context, self.builder = context, builder
        self.signature, self.arguments = signature, arguments
        self.scalar = context.get_value_type(scalar)
        self.alignment = scalar.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.alignment
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def data(self, position: int) -> Any:
        """Pointer to the elements of the array that is argument number `position`."""
        return self.context.make_array(self.signature.args[position])(self.context, self.builder, self.arguments[position]).data

    def at(self, index: int) -> Any:
        return ir.Constant(_INDEX, index)

    def element(self, pointer: Any, index: Any) -> Any:
        return self.builder.load(self.builder.gep(pointer, [index]))

    def splat(self, value: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes))

    def first_lanes(self, count: Any) -> Any:
        """Mask of the first `count` lanes."""
        numbers = ir.Constant(ir.VectorType(_INDEX, self.lanes), list(range(self.lanes)))
        undefined = ir.Constant(numbers.type, ir.Undefined)
        first = self.builder.insert_element(undefined, count, ir.Constant(_INT32, 0))
        zeros = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.icmp_signed("<", numbers, self.builder.shuffle_vector(first, undefined, zeros))

    def load(self, pointer: Any, index: Any, mask: Any = None) -> Any:
        address = self._address(pointer, index)
        if mask is None:
            return self.builder.load(address, align=self.alignment)
        return self._call("llvm.masked.load", self.vector, [address, *self._alignment(), mask, self.zero], f".{self._suffix}.p0")

    def store(self, value: Any, pointer: Any, index: Any, mask: Any = None) -> None:
        address = self._address(pointer, index)
        if mask is None:
            self.builder.store(value, address, align=self.alignment)
        else:
            self._call("llvm.masked.store", ir.VoidType(), [value, address, *self._alignment(), mask], f".{self._suffix}.p0")

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        """``x * y + z``: fmuladd takes what the CPU has, where fma would call a function on one without."""
        return self._call("llvm.fmuladd", self.vector, [x, y, z], f".{self._suffix}")

    def accumulator(self) -> Any:
        """A register of zeros: LLVM makes one of a variable that is only loaded and stored."""
        variable = cgutils.alloca_once(self.builder, self.vector)
        self.builder.store(self.zero, variable)
        return variable

    def accumulate(self, variable: Any, x: Any, y: Any) -> None:
        self.builder.store(self.multiply_add(x, y, self.builder.load(variable)), variable)

    def _address(self, pointer: Any, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(pointer, [index]), self.vector.as_pointer())

    def _alignment(self) -> list[Any]:
        return [ir.Constant(_INT32, self.alignment)]

    @property
    def _suffix(self) -> str:
        return f"v{self.lanes}f{self.alignment * 8}"

    def _call(self, name: str, result: Any, arguments: list[Any], suffix: str) -> Any:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name + suffix), arguments)


@_intrinsic
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
    """A row plus a combination of rows of a matrix, those with a coefficient that is not zero.

    ``out[out_at + j] = base[base_at + j] + scale * sum(table[e >> 16] * matrix[matrix_at + (e & 0xffff) * stride + j])`` over the
    `count` entries ``e``, for ``j`` over `vectors` whole vectors. `count` must be a multiple of `unroll`, the number of sums that
    run side by side to hide the latency of the additions. All arrays are flat; `entries` is uint32.
    """
    signature = types.void(
        vectors, unroll, out, out_at, base, base_at, scale, entries, first, count, table, matrix, matrix_at, stride
    )

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = _Emitter(context, builder, signature, arguments, out.dtype)
        _, _, _, out_at, _, base_at, scale, _, first, count, _, _, matrix_at, stride = arguments
        to, source, list_, numbers, rows = (e.data(position) for position in (2, 4, 7, 10, 11))
        sums = [[e.accumulator() for _ in range(vectors.literal_value)] for _ in range(unroll.literal_value)]
        with cgutils.for_range_slice(builder, first, builder.add(first, count), e.at(len(sums)), _INDEX) as (position, _):
            for step, register in enumerate(sums):
                entry = e.element(list_, builder.add(position, e.at(step)))
                row = builder.zext(builder.and_(entry, ir.Constant(_INT32, 0xFFFF)), _INDEX)
                value = e.element(numbers, builder.zext(builder.lshr(entry, ir.Constant(_INT32, 16)), _INDEX))
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
            e.store(e.multiply_add(factor, parts[0], before), to, builder.add(out_at, e.at(c * e.lanes)))
        return context.get_dummy_value()

    return signature, emit


@_intrinsic
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
    """Add multiples of a row to rows of a matrix, those with a coefficient that is not zero.

    ``matrix[matrix_at + (e & 0xffff) * stride + j] += scale * table[e >> 16] * row[row_at + j]`` for the entries ``e`` from `first`
    to `stop`, for ``j`` over `vectors` whole vectors. All arrays are flat; `entries` is uint32.
    """
    signature = types.void(vectors, row, row_at, scale, entries, first, stop, table, matrix, matrix_at, stride)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = _Emitter(context, builder, signature, arguments, matrix.dtype)
        _, _, row_at, scale, _, first, stop, _, _, matrix_at, stride = arguments
        source, list_, numbers, rows = (e.data(position) for position in (1, 4, 7, 8))
        shifts = [e.at(c * e.lanes) for c in range(vectors.literal_value)]
        factor = e.splat(scale)
        scaled = [builder.fmul(factor, e.load(source, builder.add(row_at, shift))) for shift in shifts]
        with cgutils.for_range_slice(builder, first, stop, e.at(1), _INDEX) as (position, _):
            entry = e.element(list_, position)
            number = builder.zext(builder.and_(entry, ir.Constant(_INT32, 0xFFFF)), _INDEX)
            value = e.splat(e.element(numbers, builder.zext(builder.lshr(entry, ir.Constant(_INT32, 16)), _INDEX)))
            start = builder.add(matrix_at, builder.mul(number, stride))
            for shift, part in zip(shifts, scaled, strict=True):
                at = builder.add(start, shift)
                e.store(e.multiply_add(value, part, e.load(rows, at)), rows, at)
        return context.get_dummy_value()

    return signature, emit


@_intrinsic
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
        e = _Emitter(context, builder, signature, arguments, out.dtype)
        _, _, valid, _, out_at, out_stride, _, base_at, base_stride, scale, *factors = arguments
        _, a_at, a_row, a_column, depth, _, b_at, b_stride = factors
        to, source, left, right = (e.data(position) for position in (3, 6, 10, 15))
        mask = None if isinstance(columns, types.NoneType) else e.first_lanes(valid)
        sums = [[e.accumulator() for _ in range(vectors.literal_value)] for _ in range(rows.literal_value)]
        with cgutils.for_range_slice(builder, e.at(0), depth, e.at(1), _INDEX) as (k, _):
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
                e.store(after, to, builder.add(builder.add(out_at, builder.mul(e.at(i), out_stride)), shift), mask)
        return context.get_dummy_value()

    return signature, emit


@_intrinsic
def compress(typing_context: Any, pixels: Any, at: Any, count: Any, entries: Any, entry_at: Any, number: Any) -> Any:
    """List the pixels that are not zero among the `count` from ``pixels[at]``, which has the number `number`; returns how many.

    Reads `CHUNK` pixels, of which `count` are listed. Writes ``value << 16 | number`` to `entries` from `entry_at` on, and
    undefined entries behind them, `CHUNK` in all.
    """
    signature = types.int64(pixels, at, count, entries, entry_at, number)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8)
        byte_vector, word_vector = ir.VectorType(byte, CHUNK), ir.VectorType(_INT32, CHUNK)
        mask_vector = ir.VectorType(ir.IntType(1), CHUNK)
        e = _Emitter(context, builder, signature, arguments, types.float32)
        _, at, count, _, entry_at, number = arguments
        values = builder.load(builder.bitcast(builder.gep(e.data(0), [at]), byte_vector.as_pointer()), align=1)
        used = builder.bitcast(builder.icmp_unsigned("!=", values, ir.Constant(byte_vector, [0] * CHUNK)), _INDEX)
        wanted = builder.lshr(ir.Constant(_INDEX, -1), builder.sub(ir.Constant(_INDEX, CHUNK), count))
        bits = builder.and_(used, wanted)
        mask = builder.bitcast(bits, mask_vector)
        kind = ir.FunctionType(byte_vector, [byte_vector, mask_vector, byte_vector])
        pick = cgutils.get_or_insert_function(builder.module, kind, f"llvm.experimental.vector.compress.v{CHUNK}i8")
        undefined = ir.Constant(byte_vector, ir.Undefined)
        numbers = ir.Constant(byte_vector, list(range(CHUNK)))
        picked = [builder.zext(builder.call(pick, [v, mask, undefined]), word_vector) for v in (values, numbers)]
        undefined = ir.Constant(word_vector, ir.Undefined)
        first = builder.insert_element(undefined, builder.trunc(number, _INT32), ir.Constant(_INT32, 0))
        base = builder.shuffle_vector(first, undefined, ir.Constant(word_vector, [0] * CHUNK))
        shifted = builder.shl(picked[0], ir.Constant(word_vector, [16] * CHUNK))
        words = builder.or_(shifted, builder.add(picked[1], base))
        builder.store(words, builder.bitcast(builder.gep(e.data(3), [entry_at]), word_vector.as_pointer()), align=4)
        population = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INDEX, [_INDEX]), "llvm.ctpop.i64")
        return builder.call(population, [bits])

    return signature, emit


@_intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Begin to bring the cache line of ``array[index]`` nearer."""
    signature = types.void(array, index)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = _Emitter(context, builder, signature, arguments, types.float32)
        pointer = builder.bitcast(builder.gep(e.data(0), [arguments[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _INT32, _INT32, _INT32])
        read, keep, data = (ir.Constant(_INT32, number) for number in (0, 3, 1))
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [pointer, read, keep, data])
        return context.get_dummy_value()

    return signature, emit
