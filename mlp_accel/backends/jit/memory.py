"""The memory of a fused epoch: flat arrays, grouped by what they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.jit.addresses import array_at
from mlp_accel.backends.jit.compiler import VECTOR_BYTES, jit
from mlp_accel.backends.jit.tiles import TILE_ROWS

CACHE_LINE = 64
"""Bytes."""

PANEL_VECTORS = 2 if VECTOR_BYTES == 64 else 4
"""Of the widest panel: with more, fewer of its rows are in the cache when they are needed."""

HALF_PANEL = PANEL_VECTORS // 2

UNROLL = 4 if TILE_ROWS == 8 else 2
"""Entries of a list that are added side by side, and zeros behind it, so that its length may be rounded up."""

MAX_PARTS = 4
"""Of the first layer, each of which makes a partial sum of the second; a block is one or more of them."""

N_IN, N_OUT, IN_STRIDE, OUT_STRIDE, WEIGHTS, TRANSPOSED, BIAS, INPUT, OUTPUT = range(9)
"""Columns of `Network.layers`."""

N_COLUMNS = 9


class Data(NamedTuple):
    """What is learnt from."""

    entries: Any
    """uint32: of each image the pixels that are not zero, ``value << 16 | pixel``, and zeros up to a multiple of `UNROLL`."""
    starts: Any
    stops: Any
    """int64 (n,): where in them the list of each image begins and ends, in the order of training: an epoch reads them in one go."""
    labels: Any
    """int64 (n,), in the same order."""
    values: Any
    """(256,): what a pixel stands for."""
    shares: Any
    """int64 (n_shares + 1,): where each share of the pixels begins, and their number."""


class Network(NamedTuple):
    """Parameters, rows padded with zeros to whole vectors."""

    first: Any
    """(n_panels * n_in * panel,): the first layer's weights, `panel` columns after the other: a panel fits the cache."""
    panel: Any
    """Columns of a panel: `PANEL_VECTORS`, `HALF_PANEL` or one."""
    block: Any
    """Units of the first layer, padding included, that one thread or several keep to: whole panels."""
    part: Any
    """Units of the first layer that make a partial sum of the second: the same for any number of threads."""
    weights: Any
    """Of the other layers, (n_in, stride) each, flat."""
    transposed: Any
    """The same, (n_out, stride of the layer below)."""
    bias: Any
    """Of all layers; in the padding of the last one the lowest number, so that its probability is 0."""
    layers: Any
    """int64 (n_layers, N_COLUMNS): sizes, and where a layer's part of each array begins."""


class Scratch(NamedTuple):
    """Memory of a step."""

    partial: Any
    """(n_parts * batch_size * stride,): what each part of the first layer adds to the second."""
    outputs: Any
    errors: Any
    """(batch_size * stride,) for each layer, flat; of the first one (batch_size * block,) for each block."""
    bias_gradient: Any
    zeros: Any
    columns: Any
    """(n_classes * batch_size,): logits with images side by side, which makes vectors of them."""
    largest: Any
    """(batch_size,): largest logit of each image,"""
    best: Any
    """float64 (batch_size,): the first class that has it,"""
    exp_sums: Any
    """(batch_size,): sum of the exponentials of the logits, less the largest,"""
    margins: Any
    """float64 (batch_size,): the largest logit minus that of the label."""
    hits: Any
    """float64 (batch_size,)"""
    batch_losses: Any
    batch_hits: Any
    """float64 (n_batches,): sums over each minibatch."""


def table_of(data: Data, network: Network, scratch: Scratch) -> npt.NDArray[np.int64]:
    """Address and size of every array, and every number, in the order of the fields: int64 (N_ROWS, 2).

    It is one argument in place of thirty, each of which would take Numba time to compile in and out of a parallel loop.
    """
    fields = [*data, *network, *scratch]
    return np.array([(f.ctypes.data, f.size) if isinstance(f, np.ndarray) else (f, 0) for f in fields], np.int64)


N_ROWS = sum(len(fields._fields) for fields in (Data, Network, Scratch))


@jit()
def unpack(table: Any, real: Any) -> tuple[Data, Network, Scratch]:
    """What is in `table`; `real` is a number of the type of the parameters."""
    integer, double = 0, 0.0
    data = Data(
        entries=array_at(table, 0, np.uint32(0)),
        starts=array_at(table, 1, integer),
        stops=array_at(table, 2, integer),
        labels=array_at(table, 3, integer),
        values=array_at(table, 4, real),
        shares=array_at(table, 5, integer),
    )
    network = Network(
        first=array_at(table, 6, real),
        panel=table[7, 0],
        block=table[8, 0],
        part=table[9, 0],
        weights=array_at(table, 10, real),
        transposed=array_at(table, 11, real),
        bias=array_at(table, 12, real),
        layers=array_at(table, 13, integer).reshape((-1, N_COLUMNS)),
    )
    scratch = Scratch(
        partial=array_at(table, 14, real),
        outputs=array_at(table, 15, real),
        errors=array_at(table, 16, real),
        bias_gradient=array_at(table, 17, real),
        zeros=array_at(table, 18, real),
        columns=array_at(table, 19, real),
        largest=array_at(table, 20, real),
        best=array_at(table, 21, double),
        exp_sums=array_at(table, 22, real),
        margins=array_at(table, 23, double),
        hits=array_at(table, 24, double),
        batch_losses=array_at(table, 25, double),
        batch_hits=array_at(table, 26, double),
    )
    return data, network, scratch
