"""Lists of the pixels that are not zero: of each image once for a training run, and turned around in each step."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_accel.backends.jit.compiler import jit
from mlp_accel.backends.jit.memory import CACHE_LINE, N_GROUPS, UNROLL, Data, Scratch
from mlp_accel.backends.jit.simd import CHUNK, HAS_COMPRESS, compress, prefetch

PREFETCH_AHEAD = 8
"""Images."""

ROW = np.uint32(0xFFFF)
"""Mask of the part of an entry that is a number of a row."""


@jit()
def count_pixels(pixels: Any, n_in: int, groups: Any, counts: Any) -> None:
    """Of each image and group count the pixels that are not zero; `groups` holds where the groups begin, and `n_in`."""
    for image in range(counts.shape[0]):
        for group in range(N_GROUPS):
            part = pixels[image * n_in + groups[group] : image * n_in + groups[group + 1]]
            count = 0
            for k in range(part.shape[0]):
                count += part[k] != 0
            counts[image, group] = count


@jit()
def list_pixels(pixels: Any, n_in: int, groups: Any, entries: Any, starts: Any, stops: Any) -> None:
    """Of each image and group list the pixels that are not zero; `entries` must have room for `CHUNK` more."""
    for number in range(starts.shape[0]):
        image, group = number // N_GROUPS * n_in, number % N_GROUPS
        at = np.uint64(starts[number])
        for pixel in range(groups[group], groups[group + 1], CHUNK):
            count = min(CHUNK, groups[group + 1] - pixel)
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
def find_lists(data: Data, scratch: Scratch, start: int, group: int, first: int, stop: int) -> None:
    """Note where the lists of a group begin and end, and have the next ones brought nearer: they lie anywhere in memory."""
    order, entries, list_starts, list_stops = data.order, data.entries, data.list_starts, data.list_stops
    starts, stops = scratch.image_starts, scratch.image_stops
    row = group * scratch.largest.shape[0]
    for i in range(first, stop):
        number = order[start + i] * N_GROUPS + group
        starts[row + i], stops[row + i] = list_starts[number], list_stops[number]
        ahead = start + i + PREFETCH_AHEAD
        if ahead < order.shape[0]:
            number = order[ahead] * N_GROUPS + group
            for k in range(list_starts[number], list_stops[number], CACHE_LINE // 4):
                prefetch(entries, k)


@jit()
def list_images(data: Data, scratch: Scratch, size: int, group: int, share: int) -> None:
    """Turn the lists of pixels around: of each pixel of a share list the images in which it is not zero."""
    first, stop = data.groups[group, share], data.groups[group, share + 1]
    starts, stops, entries = scratch.pixel_starts, scratch.pixel_stops, scratch.pixel_entries
    image_starts, image_stops, image_entries = scratch.image_starts, scratch.image_stops, data.entries
    images = group * scratch.largest.shape[0]
    for pixel in range(first, stop):
        stops[pixel] = starts[pixel]
    for image in range(size):
        # Unsigned numbers spare the question whether an index is negative.
        at, end = np.uint64(image_starts[images + image]), np.uint64(image_stops[images + image])
        number = np.uint32(image)
        while at < end and np.int64(image_entries[at] & ROW) < first:
            at += np.uint64(1)
        while at < end:
            entry = image_entries[at]
            pixel_number = np.uint64(entry & ROW)
            if np.int64(pixel_number) >= stop:
                break
            slot = np.uint64(stops[pixel_number])
            entries[slot] = entry & ~ROW | number
            stops[pixel_number] = slot + np.uint64(1)
            at += np.uint64(1)
    for pixel in range(first, stop):
        for k in range(UNROLL):
            entries[stops[pixel] + k] = 0
