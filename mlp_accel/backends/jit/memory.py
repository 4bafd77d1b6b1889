"""The memory of a fused epoch: flat arrays, grouped by what they are."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlp_accel.backends.jit.compiler import VECTOR_BYTES
from mlp_accel.backends.jit.simd import TILE_ROWS

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
    """int64 (n_layers, 9): sizes, and where a layer's part of each array begins."""


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
