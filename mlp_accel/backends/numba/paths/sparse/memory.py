"""The memory of an epoch by the sparse path: flat arrays, grouped by what they are.

The columns of the first layer's weights, one for each of its units, are divided like this (here for two threads)::

    units    |  0 ... 31  | 32 ... 63  | 64 ... 95  | 96 ... 127 |
    panels   |     0      |     1      |     2      |     3      |    each a matrix (n_in, panel) of its own in memory
    parts    |     0      |     1      |     2      |     3      |    each makes one partial sum of the second layer
    blocks   |            0            |            1            |    each is computed and updated by one thread

- A *panel* is a few vectors wide. A sample's sums are made panel by panel, from the rows of its pixels that are not zero: those
  of one panel are small enough to stay in the cache.
- A *part* is the units whose outputs go into one partial sum of the second layer. Their number does not depend on the number of
  threads, and neither does, therefore, the order in which the second layer is summed.
- A *block* is whole panels and whole parts. The thread that has it keeps its weights in the cache of its core.
- A *share* is needed where there are more threads than blocks: several threads then divide the samples (forward) or the pixels
  (update) of a block among them.
- A *job* is one share of one block: what a thread does between two barriers.
- A *stride* is the length of a row with its padding, zeros up to whole vectors.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from mlp_accel.backends.numba.compiler import VECTOR_BYTES
from mlp_accel.backends.numba.emit.addresses import array, types
from mlp_accel.backends.numba.emit.simd import INDEX, emitted
from mlp_accel.backends.numba.emit.tiles import TILE_ROWS

CACHE_LINE = 64
"""Bytes of a cache line, which cores fetch and give up as a whole."""

PANEL_VECTORS = 2 if VECTOR_BYTES == 64 else 4
"""Vectors in a row of the widest panel; in a wider one fewer rows would stay in the cache."""

HALF_PANEL = PANEL_VECTORS // 2
"""Vectors in a row of the other kind of panel, for layers that whole panels do not fit."""

UNROLL = 4 if TILE_ROWS == 8 else 2
"""Entries of a list that are added side by side, in as many sums. Behind each list are as many zeros, so that its length may be
rounded up."""

MAX_PARTS = 4
"""The most parts that the first layer is divided into, and so the most blocks."""

N_IN, N_OUT, IN_STRIDE, OUT_STRIDE, WEIGHTS, TRANSPOSED, BIAS, INPUT, OUTPUT = range(N_COLUMNS := 9)
"""Columns of `Network.layers`."""

Integer = Annotated[Any, types.int64]
Integers = Annotated[Any, types.int64[::1]]
IntegerTable = Annotated[Any, types.int64[:, ::1]]
Entries = Annotated[Any, types.uint32[::1]]
Doubles = Annotated[Any, types.float64[::1]]
Reals = Annotated[Any, None]
"""The types of fields, as Numba knows them; `Reals` are of the type of the parameters."""


class EpochInput(NamedTuple):
    """Samples in the order of one epoch, and the numbers that the update rule takes at each step."""

    entries: Entries
    """For each sample its pixels that are not zero, ``value << NUMBER_BITS | pixel``, and zeros up to a multiple of `UNROLL`."""
    starts: Integers
    stops: Integers
    """(n,): where in the entries the list of each sample begins and ends, in the order of training."""
    labels: Integers
    """(n,), in the same order."""
    values: Reals
    """(256,): the number that each value of a pixel is scaled to."""
    shares: Integers
    """(n_shares + 1,): where each share of the pixels begins, and at the end the number of pixels."""
    scalars: Reals
    """(n_batches * n_scalars,): the scalars of each step, one step behind the other."""


class Rules(NamedTuple):
    """The functions of the network, by the addresses of their compiled code (see `generated`), and settings."""

    activate: Integer
    times_slope: Integer
    update: Integer
    n_scalars: Integer
    rate_index: Integer
    """`Rule.rate_index`, or -1 for None."""
    notebook: Integer
    """Whether the delta at the logits is the notebook's."""


class Network(NamedTuple):
    """Parameters, rows padded with zeros to whole vectors, all in one piece of memory.

    Behind it are pieces of the same layout, each `stride` bytes after the one before: for the gradients, then for each slot of the
    optimiser.
    """

    first: Reals
    """(n_panels * n_in * panel,): the first layer's weights, one panel behind the other."""
    panel: Integer
    """Columns of a panel: as many as `PANEL_VECTORS` vectors have, `HALF_PANEL` or one."""
    block: Integer
    """Units of a block, padding included."""
    part: Integer
    """Units of a part."""
    weights: Reals
    """The weights of the other layers, (n_in, stride) each, one behind the other."""
    transposed: Reals
    """The same weights transposed, (n_out, stride of the layer below) each, for the deltas of the layer below."""
    bias: Reals
    """The biases of all layers."""
    layers: IntegerTable
    """A row for each layer: its sizes, and where it begins in each of the flat arrays."""
    stride: Integer
    """Bytes from a parameter to its gradient."""
    slots: Integers
    """(n_slots,): for each slot the address of its value for the parameter ``first[0]``. Its value for any other parameter lies as
    many bytes behind that address as the parameter lies behind ``first[0]``."""


class Scratch(NamedTuple):
    """Memory for what is computed in a step."""

    partial: Reals
    """(n_parts * batch_size * stride,): what each part of the first layer adds to the second."""
    sums: Reals
    """For each unit the sum that goes into its activation. If the slope is a function of these sums (`Activation.of_input`), they
    are needed until the way back; otherwise this is the same memory as `outputs`, and each output replaces its sum."""
    outputs: Reals
    """The outputs of the units."""
    deltas: Reals
    """The delta of each unit. Like `sums` and `outputs` it has (batch_size * stride,) numbers for each layer, one layer behind the
    other; those of the first layer are divided by blocks, (batch_size * block,) for each."""
    zeros: Reals
    """(largest stride,): the base of a product to which nothing is added."""
    columns: Reals
    """(n_classes * batch_size,): the logits transposed, so that a vector holds those of neighbouring samples."""
    largest: Reals
    """(batch_size,): the largest logit of each sample."""
    best: Doubles
    """(batch_size,): the first class that has the largest logit."""
    exp_sums: Reals
    """(batch_size,): the sum of ``exp(logit - largest)``."""
    margins: Doubles
    """(batch_size,): the largest logit minus that of the label."""
    hits: Doubles
    """(batch_size,): 1 where the first class that has the largest logit is the label, else 0."""
    batch_losses: Doubles
    batch_hits: Doubles
    """(n_batches,): sums over each minibatch."""


GROUPS = (EpochInput, Rules, Network, Scratch)


def aligned_empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Memory that begins at a cache line: a vector across two lines takes twice as long to load."""
    dtype = np.dtype(dtype)
    size = math.prod(np.atleast_1d(shape).tolist()) * dtype.itemsize
    memory = np.empty(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned_zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`aligned_empty`, filled with zeros."""
    result = aligned_empty(shape, dtype)
    result[...] = 0
    return result


def table_of(inputs: EpochInput, rules: Rules, network: Network, scratch: Scratch) -> npt.NDArray[np.int64]:
    """A table with a row for each field of the tuples: the address and the shape of an array, or a number.

    Kernels get the address of this table: one argument in place of thirty, for which Numba would compile a parallel loop for long.
    """
    fields = [*inputs, *rules, *network, *scratch]
    return np.array([(f.ctypes.data, len(f), f.shape[-1]) if isinstance(f, np.ndarray) else (f, 0, 0) for f in fields], np.int64)


@emitted
def unpack(typing_context: Any, table: Any, real: Any) -> Any:
    """The tuples of `GROUPS`, from the address of what `table_of` made; `real` is a number of the type of the parameters."""
    groups = []
    for group in GROUPS:
        hints = get_type_hints(group, include_extras=True)
        groups.append(types.NamedTuple([hint.__metadata__[0] or types.unliteral(real)[::1] for hint in hints.values()], group))
    signature = types.Tuple(groups)(table, real)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, packed = builder.inttoptr(arguments[0], INDEX.as_pointer()), []
        for group in groups:
            values = []
            for kind in group.types:
                value, *shape = (builder.load(builder.gep(row, [ir.Constant(INDEX, column)])) for column in range(3))
                values.append(array(context, builder, kind, value, shape[: kind.ndim]) if isinstance(kind, types.Array) else value)
                row = builder.gep(row, [ir.Constant(INDEX, 3)])
            packed.append(context.make_tuple(builder, group, values))
        return context.make_tuple(builder, signature.return_type, packed)

    return signature, emit


@emitted
def row_of(typing_context: Any, layers: Any, layer: Any) -> Any:
    """A row of `Network.layers` as a tuple, which Numba unpacks without checks of its length."""
    signature = types.UniTuple(types.int64, N_COLUMNS)(layers, layer)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        start = builder.mul(arguments[1], ir.Constant(INDEX, N_COLUMNS))
        pointers = (builder.gep(numbers, [builder.add(start, ir.Constant(INDEX, column))]) for column in range(N_COLUMNS))
        return context.make_tuple(builder, signature.return_type, [builder.load(pointer) for pointer in pointers])

    return signature, emit
