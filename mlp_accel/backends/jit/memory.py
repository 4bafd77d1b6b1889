"""The memory of a fused epoch: flat arrays, grouped by what they are."""

from __future__ import annotations

from typing import Any, NamedTuple

CACHE_LINE = 64
"""Bytes."""

UNROLL = 8
"""Most entries that are added side by side, and zeros behind a list, so that its length may be rounded up."""

N_GROUPS = 2
"""Of pixels. Each makes the lists shorter and brings another partial sum."""

N_IN, N_OUT, IN_STRIDE, OUT_STRIDE, WEIGHTS, TRANSPOSED, BIAS, INPUT, OUTPUT = range(9)
"""Columns of `Network.layers`."""


class Data(NamedTuple):
    """What is learnt from."""

    entries: Any
    """uint32: of each image and group the pixels that are not zero, ``value << 16 | pixel``, and at least one zero behind them."""
    list_starts: Any
    list_stops: Any
    """int64 (n_samples * N_GROUPS,): where in them the list of each image and group begins and ends."""
    labels: Any
    """integer (n_samples,)"""
    order: Any
    """int64 (n,)"""
    values: Any
    """(256,): what a pixel stands for."""
    groups: Any
    """int64 (N_GROUPS, n_shares + 1): where each share of each group of pixels begins."""


class Network(NamedTuple):
    """Parameters, rows padded with zeros to whole vectors."""

    first: Any
    """(n_panels * n_in * panel,): the first layer's weights, `panel` columns after the other: a panel fits the cache."""
    panel: Any
    """Columns of a panel: 1, 2 or 4 vectors."""
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
    """(N_GROUPS * batch_size * stride,): what each group of pixels adds to the first layer."""
    outputs: Any
    errors: Any
    bias_gradient: Any
    zeros: Any
    panels: Any
    """(N_GROUPS * n_shares, batch_size * panel): a panel of the first layer's errors."""
    image_starts: Any
    image_stops: Any
    """int64 (N_GROUPS * batch_size,): where in `Data.entries` the lists of the minibatch begin and end."""
    pixel_entries: Any
    """uint32 (n_in * (batch_size + UNROLL),): of each pixel the images in which it is not zero, ``value << 16 | image``."""
    pixel_starts: Any
    pixel_stops: Any
    """int64 (n_in,): where in them the list of each pixel begins and ends."""
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
