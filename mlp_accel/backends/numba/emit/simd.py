"""Vectors for Numba: the few loops that LLVM does not bring to full speed by itself, written on its vector types.

A function that is `emitted` is an intrinsic of Numba: Python code that is called while a kernel is compiled, and adds instructions
to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

from mlp_accel.backends.numba.compiler import FEATURES, VECTOR_BYTES

HAS_COMPRESS = "avx512vbmi2" in FEATURES and binding.llvm_version_info >= (20,)
"""Whether CPU and LLVM can pick the marked bytes of a vector in one instruction; without it a plain loop is faster."""

CHUNK = 64
"""Bytes that `compress` reads at a time."""

NUMBER_BITS = 16
"""An entry of a list of pixels is ``value << NUMBER_BITS | number``."""

NUMBER_MASK = (1 << NUMBER_BITS) - 1

cgutils: Any = _cgutils  # without types
INDEX = ir.IntType(64)
INT32 = ir.IntType(32)


def emitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's `intrinsic`, with constant arguments passed as literal types. Numba adds the first argument, the typing context."""
    return cast(Callable[..., Any], intrinsic(prefer_literal=True)(function))


class Emitter:
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
        """A constant as an index."""
        return ir.Constant(INDEX, index)

    def element(self, pointer: Any, index: Any) -> Any:
        """One number from memory."""
        return self.builder.load(self.builder.gep(pointer, [index]))

    def splat(self, value: Any) -> Any:
        """A vector of the same number everywhere."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(INT32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes))

    def first_lanes(self, count: Any) -> Any:
        """Mask of the first `count` lanes."""
        numbers = ir.Constant(ir.VectorType(INDEX, self.lanes), list(range(self.lanes)))
        undefined = ir.Constant(numbers.type, ir.Undefined)
        first = self.builder.insert_element(undefined, count, ir.Constant(INT32, 0))
        zeros = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.builder.icmp_signed("<", numbers, self.builder.shuffle_vector(first, undefined, zeros))

    def load(self, pointer: Any, index: Any, mask: Any = None) -> Any:
        """A vector from memory; lanes outside of the mask are 0, and not read."""
        address = self._address(pointer, index)
        if mask is None:
            return self.builder.load(address, align=self.alignment)
        return self._call("llvm.masked.load", self.vector, [address, *self._alignment(), mask, self.zero], f".{self._suffix}.p0")

    def store(self, value: Any, pointer: Any, index: Any, mask: Any = None) -> None:
        """A vector into memory, as far as the mask goes."""
        address = self._address(pointer, index)
        if mask is None:
            self.builder.store(value, address, align=self.alignment)
        else:
            self._call("llvm.masked.store", ir.VoidType(), [value, address, *self._alignment(), mask], f".{self._suffix}.p0")

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        """``x * y + z``, fused where the CPU can; LLVM's `fma` would call a slow function on a CPU that cannot."""
        return self._call("llvm.fmuladd", self.vector, [x, y, z], f".{self._suffix}")

    def accumulator(self, start: Any = None) -> Any:
        """A variable that starts with zeros or a vector. LLVM keeps it in a register, because it is only loaded and stored."""
        variable = cgutils.alloca_once(self.builder, self.vector)
        self.builder.store(self.zero if start is None else start, variable)
        return variable

    def accumulate(self, variable: Any, x: Any, y: Any) -> None:
        """``variable += x * y``."""
        self.builder.store(self.multiply_add(x, y, self.builder.load(variable)), variable)

    def pick(self, x: Any, y: Any, numbers: list[int]) -> Any:
        """The lanes with these numbers of two vectors, those of `y` counted on from those of `x`."""
        return self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(INT32, len(numbers)), numbers))

    def prefetch(self, pointer: Any, locality: int = 3) -> None:
        """Begin to load the cache line that `pointer` points into, without waiting for it.

        With a `locality` of 3 it comes into the nearest cache, with 2 into the one behind that.
        """
        place = self.builder.bitcast(pointer, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, INT32, INT32, INT32])
        read, keep, data = (ir.Constant(INT32, number) for number in (0, locality, 1))
        self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0"), [place, read, keep, data])

    def _address(self, pointer: Any, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(pointer, [index]), self.vector.as_pointer())

    def _alignment(self) -> list[Any]:
        return [ir.Constant(INT32, self.alignment)]

    @property
    def _suffix(self) -> str:
        return f"v{self.lanes}f{self.alignment * 8}"

    def _call(self, name: str, result: Any, arguments: list[Any], suffix: str) -> Any:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name + suffix), arguments)


@emitted
def compress(typing_context: Any, pixels: Any, at: Any, count: Any, entries: Any, entry_at: Any, number: Any) -> Any:
    """List the pixels that are not zero among the `count` from ``pixels[at]``, which has the number `number`; returns how many.

    Reads `CHUNK` pixels, of which `count` are listed. Writes ``value << NUMBER_BITS | number`` to `entries` from `entry_at` on, and
    undefined entries behind them, `CHUNK` in all.
    """
    signature = types.int64(pixels, at, count, entries, entry_at, number)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8)
        byte_vector, word_vector = ir.VectorType(byte, CHUNK), ir.VectorType(INT32, CHUNK)
        mask_vector = ir.VectorType(ir.IntType(1), CHUNK)
        e = Emitter(context, builder, signature, arguments, types.float32)
        _, at, count, _, entry_at, number = arguments
        values = builder.load(builder.bitcast(builder.gep(e.data(0), [at]), byte_vector.as_pointer()), align=1)
        used = builder.bitcast(builder.icmp_unsigned("!=", values, ir.Constant(byte_vector, [0] * CHUNK)), INDEX)
        wanted = builder.lshr(ir.Constant(INDEX, -1), builder.sub(ir.Constant(INDEX, CHUNK), count))
        bits = builder.and_(used, wanted)
        mask = builder.bitcast(bits, mask_vector)
        kind = ir.FunctionType(byte_vector, [byte_vector, mask_vector, byte_vector])
        pick = cgutils.get_or_insert_function(builder.module, kind, f"llvm.experimental.vector.compress.v{CHUNK}i8")
        undefined = ir.Constant(byte_vector, ir.Undefined)
        numbers = ir.Constant(byte_vector, list(range(CHUNK)))
        picked = [builder.zext(builder.call(pick, [v, mask, undefined]), word_vector) for v in (values, numbers)]
        undefined = ir.Constant(word_vector, ir.Undefined)
        first = builder.insert_element(undefined, builder.trunc(number, INT32), ir.Constant(INT32, 0))
        base = builder.shuffle_vector(first, undefined, ir.Constant(word_vector, [0] * CHUNK))
        shifted = builder.shl(picked[0], ir.Constant(word_vector, [NUMBER_BITS] * CHUNK))
        words = builder.or_(shifted, builder.add(picked[1], base))
        builder.store(words, builder.bitcast(builder.gep(e.data(3), [entry_at]), word_vector.as_pointer()), align=4)
        population = cgutils.get_or_insert_function(builder.module, ir.FunctionType(INDEX, [INDEX]), "llvm.ctpop.i64")
        return builder.call(population, [bits])

    return signature, emit


@emitted
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Begin to load the cache line of ``array[index]``, without waiting for it."""
    signature = types.void(array, index)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder, signature, arguments, types.float32)
        e.prefetch(builder.gep(e.data(0), [arguments[1]]))
        return context.get_dummy_value()

    return signature, emit
