"""Arrays and functions by their addresses, where Numba would take long to compile what it knows by name."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types as _types

from mlp_accel.backends.jit.simd import INDEX, cgutils, emitted

types: Any = _types  # incomplete


@emitted
def array_at(typing_context: Any, table: Any, row: Any, like: Any) -> Any:
    """The flat array at the address ``table[row, 0]`` with ``table[row, 1]`` elements of the type of the scalar `like`.

    Nobody counts references to it: what owns the memory must outlive it. `table` is int64 (n, 2).
    """
    element = types.unliteral(like)  # a number may be known as a constant
    signature = types.Array(element, 1, "C")(table, row, like)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = context.make_array(table)(context, builder, arguments[0]).data
        at = builder.mul(arguments[1], ir.Constant(INDEX, 2))
        address, length = (builder.load(builder.gep(numbers, [builder.add(at, ir.Constant(INDEX, k))])) for k in (0, 1))
        array = context.make_array(signature.return_type)(context, builder)
        data = builder.inttoptr(address, context.get_value_type(element).as_pointer())
        size = context.get_constant(types.intp, element.bitwidth // 8)
        context.populate_array(array, data=data, shape=[length], strides=[size], itemsize=size, meminfo=None)
        return array._getvalue()

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
