"""Arrays and functions that kernels know only by their addresses: as typed arguments they would take Numba long to compile."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types as _types

from mlp_accel.backends.numba.emit.simd import INDEX, cgutils, emitted

types: Any = _types  # incomplete


def array(context: Any, builder: Any, kind: Any, address: Any, shape: list[Any]) -> Any:
    """An array in C order of the type `kind` at an address. It counts no references: the caller keeps its memory alive."""
    value = context.make_array(kind)(context, builder)
    size = ir.Constant(INDEX, kind.dtype.bitwidth // 8)
    strides = [size] if kind.ndim == 1 else [builder.mul(shape[1], size), size]
    data = builder.inttoptr(address, context.get_value_type(kind.dtype).as_pointer())
    context.populate_array(value, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return value._getvalue()


@emitted
def array_at(typing_context: Any, address: Any, length: Any, like: Any) -> Any:
    """The flat array at an address, of `length` elements of the type of the number `like`."""
    signature = types.unliteral(like)[::1](address, length, like)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return array(context, builder, signature.return_type, arguments[0], [arguments[1]])

    return signature, emit


@emitted
def call(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at `address` with a tuple of numbers; it returns an int64."""
    signature = types.int64(address, arguments)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        parts = cgutils.unpack_tuple(builder, values[1], len(arguments))
        kind = ir.FunctionType(INDEX, [part.type for part in parts])
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), parts)

    return signature, emit
