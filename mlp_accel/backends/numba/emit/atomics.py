"""Numbers in memory that several threads read and write at the same time."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from mlp_accel.backends.numba.compiler import TRIPLE
from mlp_accel.backends.numba.emit.simd import INDEX, INT32, cgutils, emitted

_WORD = 8  # bytes


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, INDEX.as_pointer())


@emitted
def atomic_load(typing_context: Any, address: Any) -> Any:
    """The int64 at `address`; what other threads wrote before they stored it is seen."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_word(builder, arguments[0]), "acquire", _WORD)

    return types.int64(address), emit


@emitted
def atomic_store(typing_context: Any, address: Any, value: Any) -> Any:
    """Store an int64 at `address`, after everything that this thread has written so far."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _word(builder, arguments[0]), "release", _WORD)
        return context.get_dummy_value()

    return types.void(address, types.int64), emit


@emitted
def atomic_add(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at `address`; returns what it was before."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, arguments[0]), arguments[1], "acq_rel")

    return types.int64(address, types.int64), emit


@emitted
def compare_exchange(typing_context: Any, address: Any, expected: Any, value: Any) -> Any:
    """Store `value` at `address` if the int64 there is `expected`; returns whether it was."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = builder.cmpxchg(_word(builder, arguments[0]), arguments[1], arguments[2], "acq_rel", "acquire")
        return builder.extract_value(found, 1)

    return types.boolean(address, types.int64, types.int64), emit


@emitted
def pause(typing_context: Any) -> Any:
    """Tell the CPU that this loop waits, so that it leaves more of the core to the thread beside it."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if TRIPLE.startswith(("x86_64", "i686")):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        elif TRIPLE.startswith(("aarch64", "arm64")):
            kind = ir.FunctionType(ir.VoidType(), [INT32])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.hint"), [ir.Constant(INT32, 1)])
        return context.get_dummy_value()

    return types.void(), emit
