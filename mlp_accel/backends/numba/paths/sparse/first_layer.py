"""The first layer of the sparse path: it visits the inputs that are not zero and no others."""

from __future__ import annotations

from typing import Any

from mlp_accel.backends.numba.compiler import CACHE_LINE, VECTOR_BYTES, inlined
from mlp_accel.backends.numba.emit.simd import prefetch
from mlp_accel.backends.numba.emit.sparse_rows import scatter_row, sparse_row
from mlp_accel.backends.numba.paths.shared.backward import gradient_target, update
from mlp_accel.backends.numba.paths.shared.memory import HALF_PANEL, N_IN, PANEL_VECTORS, minibatch_of, segment_out, unpack
from mlp_accel.backends.numba.paths.sparse.lists import UNROLL, unpack_lists

PREFETCH_AHEAD = 8
"""How many samples before it is needed a list is brought into the cache."""

LARGE = 256
"""Samples of a minibatch whose lists may have left the cache by the time of the update."""


@inlined
def prefetch_list(entries: Any, bounds: Any, sample: int, segment: int) -> None:
    """Begin to load a part of a list that will soon be needed: the order is random, so the CPU cannot foresee it."""
    if sample < bounds.shape[0]:
        for k in range(2 * bounds[sample, segment], 2 * bounds[sample, segment + 1], CACHE_LINE // entries.itemsize):
            prefetch(entries, k)


def first_layer(table: int, batch: int, block: int, segment: int, first: int, stop: int, one: Any) -> int:
    """What a segment of the inputs adds to a block of the first layer, for samples `first` to `stop` of a minibatch."""
    inputs, _, network, scratch = unpack(table, one)
    (lists,) = unpack_lists(inputs.samples, one)
    start, _ = minibatch_of(inputs, scratch, batch)
    n_in, width, panel = network.layers[0, N_IN], network.block, network.panel
    entries, bounds, weights = lists.entries, lists.bounds, network.first
    vectors = panel * weights.itemsize // VECTOR_BYTES
    for unit in range(block * width, (block + 1) * width, panel):
        out, base = segment_out(network, scratch, block, segment, unit)
        x, y, at = out.array, base.array, unit * n_in
        for i in range(first, stop):
            if unit == block * width:
                prefetch_list(entries, bounds, start + i + PREFETCH_AHEAD, segment)
            begin = bounds[start + i, segment]
            count = bounds[start + i, segment + 1] - begin
            o, s = out.at + i * out.row, base.at + i * base.row
            if vectors == PANEL_VECTORS:
                sparse_row(PANEL_VECTORS, UNROLL, x, o, y, s, one, entries, begin, count, weights, at)
            elif HALF_PANEL > 1 and vectors == HALF_PANEL:
                sparse_row(HALF_PANEL, UNROLL, x, o, y, s, one, entries, begin, count, weights, at)
            else:
                sparse_row(1, UNROLL, x, o, y, s, one, entries, begin, count, weights, at)
    return 0


def update_first_layer(table: int, batch: int, block: int, segment: int, one: Any) -> int:
    """Update the weights between a segment of the inputs and a block of the first layer.

    Each sample adds to the gradient of the weights of its inputs that are not zero. A rule that is just ``p - u * g`` is applied
    while the gradient is summed, which then is never in memory.
    """
    inputs, rules, network, scratch = unpack(table, one)
    (lists,) = unpack_lists(inputs.samples, one)
    start, size = minibatch_of(inputs, scratch, batch)
    n_in, width, panel = network.layers[0, N_IN], network.block, network.panel
    entries, bounds, weights, deltas = lists.entries, lists.bounds, network.first, scratch.deltas
    vectors = panel * weights.itemsize // VECTOR_BYTES
    at_once, scale, to = gradient_target(rules, inputs, network, batch, weights)
    for unit in range(block * width, (block + 1) * width, panel):
        rows, at = block * width * scratch.largest.shape[0] + unit - block * width, unit * n_in
        for i in range(size):
            if size > LARGE:
                prefetch_list(entries, bounds, start + i + PREFETCH_AHEAD, segment)
            begin, end = bounds[start + i, segment], bounds[start + i, segment + 1]
            row = rows + i * width
            if vectors == PANEL_VECTORS:
                scatter_row(PANEL_VECTORS, deltas, row, scale, entries, begin, end, to, at)
            elif HALF_PANEL > 1 and vectors == HALF_PANEL:
                scatter_row(HALF_PANEL, deltas, row, scale, entries, begin, end, to, at)
            else:
                scatter_row(1, deltas, row, scale, entries, begin, end, to, at)
        if not at_once:
            first, stop = inputs.segments[segment], inputs.segments[segment + 1]
            update(rules, inputs, network, batch, weights, at + first * panel, at + stop * panel)
    return 0
