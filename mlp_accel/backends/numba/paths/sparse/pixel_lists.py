"""Lists of the pixels that are not zero, of each image, made once for a training run."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_accel.backends.numba.compiler import inlined, jit
from mlp_accel.backends.numba.emit.simd import CHUNK, HAS_COMPRESS, compress, prefetch
from mlp_accel.backends.numba.paths.sparse.memory import CACHE_LINE, UNROLL, Data

PREFETCH_AHEAD = 8
"""Images."""

PIXEL = np.uint32(0xFFFF)
"""Mask of the part of an entry that is the number of a pixel."""


@jit()
def count_pixels(pixels: Any, n_in: int, counts: Any) -> None:
    """Of each image count the pixels that are not zero."""
    for image in range(counts.shape[0]):
        part = pixels[image * n_in : (image + 1) * n_in]
        count = 0
        for k in range(part.shape[0]):
            count += part[k] != 0
        counts[image] = count


@jit()
def list_pixels(pixels: Any, n_in: int, entries: Any, starts: Any, stops: Any) -> None:
    """Of each image list the pixels that are not zero; `entries` must have room for `CHUNK` more."""
    for number in range(starts.shape[0]):
        image, at = number * n_in, np.uint64(starts[number])
        for pixel in range(0, n_in, CHUNK):
            count = min(CHUNK, n_in - pixel)
            if HAS_COMPRESS and image + pixel + CHUNK <= pixels.shape[0]:
                at += np.uint64(compress(pixels, image + pixel, count, entries, at, pixel))
            else:
                for k in range(pixel, pixel + count):  # without a branch: nobody could predict it
                    value = np.uint32(pixels[image + k])
                    entries[at] = value << np.uint32(16) | np.uint32(k)
                    at += np.uint64(value != 0)
        stops[number] = at
        for _ in range(UNROLL):
            entries[at] = 0
            at += np.uint64(1)


@jit()
def follow_order(order: Any, starts: Any, stops: Any, labels: Any, n_classes: int, to: Any) -> bool:
    """Put where the lists begin and end, and the labels, in the order of an epoch; false if there is no such image or class."""
    for i in range(order.shape[0]):
        image = order[i]
        if not 0 <= image < starts.shape[0] or not 0 <= labels[image] < n_classes:
            return False
        to[0, i], to[1, i], to[2, i] = starts[image], stops[image], labels[image]
    return True


@inlined
def prefetch_list(data: Data, position: int) -> None:
    """Have the list of an image that is soon needed brought nearer: it lies anywhere in memory."""
    ahead, entries = position + PREFETCH_AHEAD, data.entries
    if ahead < data.labels.shape[0]:
        for k in range(data.starts[ahead], data.stops[ahead], CACHE_LINE // 4):
            prefetch(entries, k)


@inlined
def find_pixel(entries: Any, begin: int, end: int, pixel: int) -> int:
    """Where in the list ``entries[begin:end]`` the pixels from number `pixel` on begin."""
    while begin < end:
        middle = (begin + end) // 2
        if np.int64(entries[middle] & PIXEL) < pixel:
            begin = middle + 1
        else:
            end = middle
    return begin
