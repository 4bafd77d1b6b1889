"""The memory of an epoch in compiled code: flat arrays, grouped by what they are.

The columns of the first layer's weights, one for each of its units, are divided like this (here for two threads)::

    units    |  0 ... 31  | 32 ... 63  | 64 ... 95  | 96 ... 127 |
    panels   |     0      |     1      |     2      |     3      |    each a matrix (n_in, panel) of its own in memory
    parts    |     0      |     1      |     2      |     3      |    each makes one partial sum of the second layer
    blocks   |            0            |            1            |    each is computed and updated by one thread

- A *panel* is a few vectors wide. A sample's sums are made panel by panel: the rows of one panel that belong to the same few inputs
  are small enough to stay in the cache.
- A *part* is the units whose outputs go into one partial sum of the second layer. Their number does not depend on the number of
  threads, and neither does, therefore, the order in which the second layer is summed.
- A *block* is whole panels and whole parts. The thread that has it keeps its weights in the cache of its core.
- A *share* is needed where there are more threads than blocks: several threads then divide the samples (forward) or the inputs
  (update) of a block among them.
- A *segment* is a range of the inputs. If the threads divide inputs, a share is a segment.
- A *job* is one share of one block: what a thread does between two barriers.
- A *stride* is the length of a row with its padding, zeros up to whole vectors.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from mlp_accel.backends.numba.compiler import CACHE_LINE, VECTOR_BYTES, inlined
from mlp_accel.backends.numba.emit.addresses import array, types
from mlp_accel.backends.numba.emit.product import Matrix
from mlp_accel.backends.numba.emit.simd import INDEX, emitted

PANEL_VECTORS = 2 if VECTOR_BYTES == 64 else 4
"""Vectors in a row of the widest panel; in a wider one fewer rows would stay in the cache."""

HALF_PANEL = PANEL_VECTORS // 2
"""Vectors in a row of the other kind of panel, for layers that whole panels do not fit."""

UNITS, INPUTS, SAMPLES = range(3)
"""What the threads may divide among them: see `mlp_accel.backends.numba.paths.shared.epoch`."""

GROUP = 16
"""Samples that stay together when the samples are divided: as many as a vector holds, or a multiple of that."""

MAX_PARTS = 4
"""The most parts that the first layer is divided into, and so the most blocks."""

N_IN, N_OUT, IN_STRIDE, OUT_STRIDE, WEIGHTS, TRANSPOSED, BIAS, INPUT, OUTPUT = range(N_COLUMNS := 9)
"""Columns of `Network.layers`."""

Integer = Annotated[Any, types.int64]
Integers = Annotated[Any, types.int64[::1]]
IntegerTable = Annotated[Any, types.int64[:, ::1]]
Doubles = Annotated[Any, types.float64[::1]]
Reals = Annotated[Any, None]
"""The types of fields, as Numba knows them; `Reals` are of the type of the parameters."""


class EpochInput(NamedTuple):
    """What an epoch is trained on, and the numbers that the update rule takes at each step."""

    samples: Integer
    """Address of the table of the samples, in the form that the functions of the first layer know."""
    labels: Integers
    """(n,), in the order of training."""
    segments: Integers
    """(n_segments + 1,): where each segment of the inputs begins, and at the end the number of inputs."""
    scalars: Reals
    """(n_batches * n_scalars,): the scalars of each step, one step behind the other."""


class Rules(NamedTuple):
    """The functions of the network, by the addresses of their compiled code (see `generated`), and settings."""

    prepare: Integer
    """Of `first_layer`, called for a part of the samples of the next minibatch; 0 if there is nothing to prepare."""
    first_layer: Integer
    update_first_layer: Integer
    """The work on the samples themselves, which depends on their form: see `mlp_accel.backends.numba.paths.shared.first_layer`."""
    product: Integer
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
    shares: Integer
    """Shares of a block."""
    division: Integer
    """What the threads divide among them: `UNITS`, `INPUTS` or `SAMPLES`."""
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

    segment_sums: Reals
    """(n_segments * batch_size * stride,): what a segment of the inputs adds to the first layer, if it is divided by inputs."""
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
    ones: Reals
    """(1,): a one, to sum the rows of a matrix as a product."""
    columns: Reals
    """(stride of the last layer * batch_size,): the logits transposed, then what is made of them: the deltas."""
    largest: Reals
    """(batch_size,): the largest logit of each sample,"""
    best: Reals
    """(batch_size,): the first class that has it,"""
    exp_sums: Reals
    """(batch_size,): the sum of ``exp(logit - largest)``."""
    losses: Doubles
    """(batch_size,): the loss of each sample,"""
    hits: Doubles
    """(batch_size,): and 1 where the first class that has the largest logit is the label, else 0."""
    batch_losses: Doubles
    batch_hits: Doubles
    """(n_batches,): sums over each minibatch."""


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


def table_of(*groups: tuple[Any, ...]) -> npt.NDArray[np.int64]:
    """Address and shape of every array, and every number, in the order of the fields: three columns.

    A kernel takes its address: one argument in place of forty.
    """
    fields = [field for group in groups for field in group]
    return np.array([(f.ctypes.data, len(f), f.shape[-1]) if isinstance(f, np.ndarray) else (f, 0, 0) for f in fields], np.int64)


def unpacker(*groups: type) -> Any:
    """A function of kernels that returns the tuples of these kinds.

    Its arguments are the address of what `table_of` made of them, and a number of the type of the parameters.
    """

    def unpack(typing_context: Any, table: Any, real: Any) -> Any:
        kinds = []
        for group in groups:
            hints = get_type_hints(group, include_extras=True)
            fields = [hint.__metadata__[0] or types.unliteral(real)[::1] for hint in hints.values()]
            kinds.append(types.NamedTuple(fields, group))
        signature = types.Tuple(kinds)(table, real)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place, packed = builder.inttoptr(arguments[0], INDEX.as_pointer()), []
            for group in kinds:
                values = []
                for kind in group.types:
                    value, *shape = (builder.load(builder.gep(place, [ir.Constant(INDEX, column)])) for column in range(3))
                    is_array = isinstance(kind, types.Array)
                    values.append(array(context, builder, kind, value, shape[: kind.ndim]) if is_array else value)
                    place = builder.gep(place, [ir.Constant(INDEX, 3)])
                packed.append(context.make_tuple(builder, group, values))
            return context.make_tuple(builder, signature.return_type, packed)

        return signature, emit

    return emitted(unpack)


unpack = unpacker(EpochInput, Rules, Network, Scratch)


@inlined
def minibatch_of(inputs: EpochInput, scratch: Scratch, batch: int) -> Any:
    """The number of the first sample of a minibatch in the order of training, and how many samples it has; 0 if there is none."""
    start = batch * scratch.largest.shape[0]
    return start, min(scratch.largest.shape[0], inputs.labels.shape[0] - start)


@inlined
def samples_of(size: int, share: int, n_shares: int) -> Any:
    """Where one of `n_shares` parts of a minibatch begins and ends: whole groups of `GROUP` samples, but for the last one."""
    first, stop = part_of(-(-size // GROUP), share, n_shares)
    return first * GROUP, min(stop * GROUP, size)


@inlined
def part_of(size: int, share: int, n_shares: int) -> Any:
    """Where one of `n_shares` equal parts of `size` begins and ends."""
    return size * share // n_shares, size * (share + 1) // n_shares


@inlined
def segment_out(network: Network, scratch: Scratch, block: int, segment: int, unit: int) -> Any:
    """Where a segment of the inputs writes its sums for the units from `unit` on, and what it adds them to.

    That is the sums of the segments before, unless all are added up later.
    """
    length, width = scratch.largest.shape[0], network.block
    if network.division == INPUTS:
        out = Matrix(scratch.segment_sums, segment * length * width + unit, width)
        base = Matrix(scratch.zeros, 0, 0)
    else:
        out = Matrix(scratch.sums, block * width * length + unit - block * width, width)
        base = Matrix(network.bias, unit, 0) if segment == 0 else out
    return out, base


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
