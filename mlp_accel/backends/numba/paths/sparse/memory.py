"""The memory of a fused epoch: flat arrays, grouped by what they are."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from mlp_accel.backends.numba.compiler import VECTOR_BYTES
from mlp_accel.backends.numba.emit.addresses import array, types
from mlp_accel.backends.numba.emit.simd import INDEX, emitted
from mlp_accel.backends.numba.emit.tiles import TILE_ROWS

CACHE_LINE = 64
"""Bytes."""

PANEL_VECTORS = 2 if VECTOR_BYTES == 64 else 4
"""Of the widest panel: with more, fewer of its rows are in the cache when they are needed."""

HALF_PANEL = PANEL_VECTORS // 2

UNROLL = 4 if TILE_ROWS == 8 else 2
"""Entries of a list that are added side by side, and zeros behind it, so that its length may be rounded up."""

MAX_PARTS = 4
"""Of the first layer, each of which makes a partial sum of the second; a block is one or more of them."""

N_IN, N_OUT, IN_STRIDE, OUT_STRIDE, WEIGHTS, TRANSPOSED, BIAS, INPUT, OUTPUT = range(N_COLUMNS := 9)
"""Columns of `Network.layers`."""

Integer = Annotated[Any, types.int64]
Integers = Annotated[Any, types.int64[::1]]
IntegerTable = Annotated[Any, types.int64[:, ::1]]
Entries = Annotated[Any, types.uint32[::1]]
Doubles = Annotated[Any, types.float64[::1]]
Reals = Annotated[Any, None]
"""What a field is, to Numba; `Reals` are of the type of the parameters."""


class Data(NamedTuple):
    """What is learnt from."""

    entries: Entries
    """Of each image the pixels that are not zero, ``value << 16 | pixel``, and zeros up to a multiple of `UNROLL`."""
    starts: Integers
    stops: Integers
    """(n,): where in them the list of each image begins and ends, in the order of training: an epoch reads them in one go."""
    labels: Integers
    """(n,), in the same order."""
    values: Reals
    """(256,): what a pixel stands for."""
    shares: Integers
    """(n_shares + 1,): where each share of the pixels begins, and their number."""
    scalars: Reals
    """(n_batches * n_scalars,): the uniform numbers of each step, as the rule orders them."""


class Rules(NamedTuple):
    """What is computed: the addresses of compiled functions (see `generated`), and settings."""

    activate: Integer
    times_slope: Integer
    update: Integer
    n_scalars: Integer
    rate_column: Integer
    """The column of the scalars that is `u` if the update is just ``p - u * g``; -1 if it is anything else."""
    notebook: Integer
    """Whether the error at the logits is the notebook's."""


class Network(NamedTuple):
    """Parameters, rows padded with zeros to whole vectors, all in one piece of memory.

    Behind that, at a distance of `stride` bytes, is another one for their gradients, then one for each slot of the optimiser.
    """

    first: Reals
    """(n_panels * n_in * panel,): the first layer's weights, `panel` columns after the other: a panel fits the cache."""
    panel: Integer
    """Columns of a panel: `PANEL_VECTORS`, `HALF_PANEL` or one."""
    block: Integer
    """Units of the first layer, padding included, that one thread or several keep to: whole panels."""
    part: Integer
    """Units of the first layer that make a partial sum of the second: the same for any number of threads."""
    weights: Reals
    """Of the other layers, (n_in, stride) each, flat."""
    transposed: Reals
    """The same, (n_out, stride of the layer below)."""
    bias: Reals
    """Of all layers."""
    layers: IntegerTable
    """A row for each layer: sizes, and where a layer's part of each array begins."""
    stride: Integer
    """Bytes from a parameter to its gradient."""
    slots: Integers
    """(n_slots,): addresses of the slots of the first parameter."""


class Scratch(NamedTuple):
    """Memory of a step."""

    partial: Reals
    """(n_parts * batch_size * stride,): what each part of the first layer adds to the second."""
    sums: Reals
    """What goes into each unit. The same memory as `outputs`, unless the slope of the activation needs it."""
    outputs: Reals
    errors: Reals
    """(batch_size * stride,) for each layer, flat; of the first one (batch_size * block,) for each block."""
    zeros: Reals
    columns: Reals
    """(n_classes * batch_size,): logits with images side by side, which makes vectors of them."""
    largest: Reals
    """(batch_size,): largest logit of each image,"""
    best: Doubles
    """(batch_size,): the first class that has it,"""
    exp_sums: Reals
    """(batch_size,): sum of the exponentials of the logits, less the largest,"""
    margins: Doubles
    """(batch_size,): the largest logit minus that of the label."""
    hits: Doubles
    """(batch_size,): whether that class is the label."""
    batch_losses: Doubles
    batch_hits: Doubles
    """(n_batches,): sums over each minibatch."""


GROUPS = (Data, Rules, Network, Scratch)


def table_of(data: Data, rules: Rules, network: Network, scratch: Scratch) -> npt.NDArray[np.int64]:
    """Address and shape of every array, and every number, in the order of the fields: three columns.

    It is one argument in place of thirty, each of which would take Numba time to compile in and out of a parallel loop.
    """
    fields = [*data, *rules, *network, *scratch]
    return np.array([(f.ctypes.data, len(f), f.shape[-1]) if isinstance(f, np.ndarray) else (f, 0, 0) for f in fields], np.int64)


@emitted
def unpack(typing_context: Any, table: Any, real: Any) -> Any:
    """`GROUPS` from the table at an address; `real` is a number of the type of the parameters."""
    groups = []
    for group in GROUPS:
        hints = get_type_hints(group, include_extras=True)
        groups.append(types.NamedTuple([hint.__metadata__[0] or types.unliteral(real)[::1] for hint in hints.values()], group))
    signature = types.Tuple(groups)(table, real)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, packed = builder.inttoptr(arguments[0], INDEX.as_pointer()), []
        for group in groups:
            values = []
            for kind in group.types:
                value, *shape = (builder.load(builder.gep(place, [ir.Constant(INDEX, column)])) for column in range(3))
                values.append(array(context, builder, kind, value, shape[: kind.ndim]) if isinstance(kind, types.Array) else value)
                place = builder.gep(place, [ir.Constant(INDEX, 3)])
            packed.append(context.make_tuple(builder, group, values))
        return context.make_tuple(builder, signature.return_type, packed)

    return signature, emit


@emitted
def row_of(typing_context: Any, layers: Any, layer: Any) -> Any:
    """A row of `Network.layers` as a tuple: unpacking an array, Numba would ask for each number whether there is another one."""
    signature = types.UniTuple(types.int64, N_COLUMNS)(layers, layer)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        start = builder.mul(arguments[1], ir.Constant(INDEX, N_COLUMNS))
        places = (builder.gep(numbers, [builder.add(start, ir.Constant(INDEX, column))]) for column in range(N_COLUMNS))
        return context.make_tuple(builder, signature.return_type, [builder.load(place) for place in places])

    return signature, emit
