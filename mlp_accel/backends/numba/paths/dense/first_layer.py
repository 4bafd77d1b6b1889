"""The first layer of the dense path: tiles of a matrix product, whose sums stay in registers, on rows read where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_accel.backends.numba.compiler import VECTOR_BYTES, inlined
from mlp_accel.backends.numba.emit.addresses import array_at
from mlp_accel.backends.numba.emit.product import Matrix
from mlp_accel.backends.numba.emit.tiles import TILE_ROWS, TILE_VECTORS, gradient_tile, rows_tile
from mlp_accel.backends.numba.paths.dense.rows import Rows, unpack_rows
from mlp_accel.backends.numba.paths.shared.backward import gradient_target, update
from mlp_accel.backends.numba.paths.shared.memory import N_IN, Scratch, minibatch_of, samples_of, segment_out, unpack

DEPTH = 128
"""Inputs that the first layer adds at a time: their weights, for a panel of units, stay in the nearest cache."""

STRIP = 256
"""Samples that a job takes at a time: their sums and deltas stay in the second cache."""

TILE_INPUTS = 14 if TILE_ROWS == 8 else 6
"""Inputs of a tile of the gradient that is two vectors wide: its sums take 28 of the 32 vector registers, or 12 of AVX2's 16."""

FEW_INPUTS = 4
"""Inputs of a smaller tile, for what is left."""


@inlined
def first_row(rows: Rows, scratch: Scratch, batch: int, start: int) -> int:
    """Which of `Rows.rows` is the first of the minibatch."""
    return start if rows.in_place != 0 else batch % 2 * scratch.largest.shape[0]


def scale_pixels(table: int, batch: int, share: int, n_shares: int, one: Any) -> int:
    """Scale a share of the pixels of a minibatch."""
    inputs, _, network, scratch = unpack(table, one)
    (rows,) = unpack_rows(inputs.samples, one)
    start, size = minibatch_of(inputs, scratch, batch)
    first, stop = samples_of(size, share, n_shares)
    n_in, scale, sample = network.layers[0, N_IN], rows.scale[0], first_row(rows, scratch, batch, start)
    for i in range(first, stop):
        pixels, to = array_at(rows.pixels[start + i], n_in, np.uint8(0)), array_at(rows.rows[sample + i], n_in, one)
        for k in range(n_in):
            to[k] = pixels[k] * scale
    return 0


def first_layer(table: int, batch: int, block: int, segment: int, first: int, stop: int, one: Any) -> int:
    """What a segment of the inputs adds to a block of the first layer, for samples `first` to `stop` of a minibatch."""
    inputs, _, network, scratch = unpack(table, one)
    (rows,) = unpack_rows(inputs.samples, one)
    start, _ = minibatch_of(inputs, scratch, batch)
    n_in, width, panel = network.layers[0, N_IN], network.block, network.panel
    low, high = inputs.segments[segment], inputs.segments[segment + 1]
    sample, lanes = first_row(rows, scratch, batch, start) + first, VECTOR_BYTES // network.first.itemsize
    units = TILE_VECTORS * lanes if panel > lanes else lanes
    for strip in range(first, stop, STRIP):
        size, row = min(STRIP, stop - strip), sample + strip - first
        for begin in range(low, high, DEPTH):
            depth = min(DEPTH, high - begin)
            for unit in range(block * width, (block + 1) * width, units):
                whole, before = segment_out(network, scratch, block, segment, unit)
                out = Matrix(whole.array, whole.at + strip * whole.row, whole.row)
                base = Matrix(before.array, before.at + strip * before.row, before.row) if begin == low else out
                weights = Matrix(network.first, unit // panel * panel * n_in + begin * panel + unit % panel, panel)
                if panel > lanes:
                    forward_tiles(TILE_VECTORS, size, rows.rows, row, begin, depth, out, base, weights)
                else:
                    forward_tiles(1, size, rows.rows, row, begin, depth, out, base, weights)
    return 0


@inlined
def forward_tiles(
    vectors: int, size: int, rows: Any, sample: int, begin: int, depth: int, out: Matrix, base: Matrix, weights: Matrix
) -> None:
    """One or two vectors of units, from `depth` inputs from `begin` on, for the `size` samples from `rows[sample]` on."""
    x, y, z = out.array, base.array, weights.array
    whole = size // TILE_ROWS * TILE_ROWS
    for i in range(0, whole, TILE_ROWS):
        o, s = out.at + i * out.row, base.at + i * base.row
        rows_tile(TILE_ROWS, vectors, x, o, out.row, y, s, base.row, rows, sample + i, begin, depth, z, weights.at, weights.row)
    for i in range(whole, size):
        o, s = out.at + i * out.row, base.at + i * base.row
        rows_tile(1, vectors, x, o, out.row, y, s, base.row, rows, sample + i, begin, depth, z, weights.at, weights.row)


def update_first_layer(table: int, batch: int, block: int, segment: int, one: Any) -> int:
    """Update the weights between a segment of the inputs and a block of the first layer.

    The next minibatch is brought into the cache meanwhile: its rows lie anywhere, so the CPU cannot foresee them.
    """
    inputs, rules, network, scratch = unpack(table, one)
    (rows,) = unpack_rows(inputs.samples, one)
    start, size = minibatch_of(inputs, scratch, batch)
    n_in, width, panel, weights = network.layers[0, N_IN], network.block, network.panel, network.first
    first, stop = inputs.segments[segment], inputs.segments[segment + 1]
    sample, lanes = first_row(rows, scratch, batch, start), VECTOR_BYTES // network.first.itemsize
    units = TILE_VECTORS * lanes if panel > lanes else lanes
    ahead = sample + size if rows.in_place != 0 and start + 2 * size <= inputs.labels.shape[0] else sample
    at_once, scale, to = gradient_target(rules, inputs, network, batch, weights)
    for strip in range(0, size, STRIP):
        n = min(STRIP, size - strip)
        for begin in range(first, stop, TILE_INPUTS):
            count = min(TILE_INPUTS, stop - begin)
            for unit in range(block * width, (block + 1) * width, units):
                at = unit // panel * panel * n_in + begin * panel
                out = Matrix(to, at + unit % panel, panel)
                base = out if at_once or strip > 0 else Matrix(scratch.zeros, 0, 0)
                delta = block * width * scratch.largest.shape[0] + unit - block * width + strip * width
                deltas = Matrix(scratch.deltas, delta, width)
                if panel > lanes:
                    gradient_tiles(
                        TILE_VECTORS, count, n, rows.rows, sample + strip, ahead + strip, begin, out, base, scale, deltas
                    )
                else:
                    gradient_tiles(1, count, n, rows.rows, sample + strip, ahead + strip, begin, out, base, scale, deltas)
                if not at_once and strip + n == size and (unit + units) % panel == 0:
                    update(rules, inputs, network, batch, weights, at, at + count * panel)
    return 0


@inlined
def gradient_tiles(
    vectors: int,
    count: int,
    size: int,
    rows: Any,
    sample: int,
    ahead: int,
    begin: int,
    out: Matrix,
    base: Matrix,
    scale: Any,
    deltas: Matrix,
) -> None:
    """One or two vectors of units, and `count` inputs from `begin` on, from the `size` samples from `rows[sample]` on."""
    x, y, z = out.array, base.array, deltas.array
    d, e = deltas.at, deltas.row
    few = 0 if count == TILE_INPUTS else count // FEW_INPUTS * FEW_INPUTS
    if count == TILE_INPUTS:
        o, s = out.at, base.at
        gradient_tile(TILE_INPUTS, vectors, x, o, out.row, y, s, base.row, scale, rows, sample, ahead, size, begin, z, d, e)
    else:
        for k in range(0, few, FEW_INPUTS):
            o, s = out.at + k * out.row, base.at + k * base.row
            gradient_tile(FEW_INPUTS, vectors, x, o, out.row, y, s, base.row, scale, rows, sample, ahead, size, begin + k, z, d, e)
        for k in range(few, count):
            o, s = out.at + k * out.row, base.at + k * base.row
            gradient_tile(1, vectors, x, o, out.row, y, s, base.row, scale, rows, sample, ahead, size, begin + k, z, d, e)
