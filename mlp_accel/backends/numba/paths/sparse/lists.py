"""Samples as lists of their pixels that are not zero, made once for a training run."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.numba.compiler import inlined, jit
from mlp_accel.backends.numba.emit.simd import CHUNK, HAS_COMPRESS, NUMBER_BITS, NUMBER_MASK, compress, prefetch
from mlp_accel.backends.numba.paths.sparse.memory import CACHE_LINE, UNROLL, EpochInput, aligned_empty, aligned_zeros
from mlp_accel.backends.paths import sampled_rows

PREFETCH_AHEAD = 8
"""How many samples before it is needed a list is brought into the cache."""

SHIFT, PIXEL = np.uint32(NUMBER_BITS), np.uint32(NUMBER_MASK)
"""An entry of a list is ``value << SHIFT | number``; PIXEL is the mask of the number."""


class PixelLists(NamedTuple):
    """All samples as lists of their pixels that are not zero, 4 bytes for each such pixel."""

    entries: npt.NDArray[np.uint32]
    """The lists one behind the other, as in `EpochInput`."""
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    """(n,): where in the entries the list of each sample begins and ends."""
    work: npt.NDArray[np.float64]
    """(n_in + 1,): an estimate of the work that all pixels before each one make: for each of them the share of the samples in which
    it is not zero, and a little more. The last number is that of all pixels."""


def list_pixels(x: npt.NDArray[np.uint8]) -> PixelLists:
    """The lists of uint8 images ``(n, n_in)``."""
    n, n_in = x.shape
    rows = sampled_rows(x)
    work = np.concatenate([[0], np.cumsum(np.count_nonzero(rows, axis=0) / len(rows) + 0.01)])
    pixels, counts, stops = np.ascontiguousarray(x).reshape(-1), np.empty(n, np.int64), np.empty(n, np.int64)
    count_pixels(pixels, n_in, counts)
    ends = np.cumsum(-(-counts // UNROLL) * UNROLL)
    entries, starts = aligned_empty(int(ends[-1]) + CHUNK, np.uint32), np.concatenate([[0], ends[:-1]])
    fill_lists(pixels, n_in, entries, starts, stops)
    return PixelLists(entries, starts, stops, work)


def share_out(lists: PixelLists, n_shares: int) -> npt.NDArray[np.int64]:
    """Divide the pixels into shares of equal work: where each share begins, and at the end the number of pixels."""
    shares = np.searchsorted(lists.work, np.linspace(0, lists.work[-1], n_shares + 1)).astype(np.int64)
    shares[-1] = len(lists.work) - 1
    return shares


def pixel_values(dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The floating number that each of the 256 values of a pixel is scaled to."""
    values = aligned_zeros(256, dtype)
    values[:] = np.arange(256) * np.asarray(1.0 / 255.0, dtype)
    return values


@jit()
def count_pixels(pixels: Any, n_in: int, counts: Any) -> None:
    """For each sample count the pixels that are not zero."""
    for sample in range(counts.shape[0]):
        part = pixels[sample * n_in : (sample + 1) * n_in]
        count = 0
        for k in range(part.shape[0]):
            count += part[k] != 0
        counts[sample] = count


@jit()
def fill_lists(pixels: Any, n_in: int, entries: Any, starts: Any, stops: Any) -> None:
    """Write the list of each sample to `entries`, which must have room for `CHUNK` more, and its end to `stops`."""
    for sample in range(starts.shape[0]):
        first, entry_at = sample * n_in, np.uint64(starts[sample])
        for pixel in range(0, n_in, CHUNK):
            count = min(CHUNK, n_in - pixel)
            if HAS_COMPRESS and first + pixel + CHUNK <= pixels.shape[0]:
                entry_at += np.uint64(compress(pixels, first + pixel, count, entries, entry_at, pixel))
            else:
                for k in range(pixel, pixel + count):  # written without a branch, which the CPU could not predict
                    value = np.uint32(pixels[first + k])
                    entries[entry_at] = value << SHIFT | np.uint32(k)
                    entry_at += np.uint64(value != 0)
        stops[sample] = entry_at
        for _ in range(UNROLL):
            entries[entry_at] = 0
            entry_at += np.uint64(1)


@jit()
def follow_order(order: Any, starts: Any, stops: Any, labels: Any, n_classes: int, in_order: Any) -> bool:
    """Write starts, stops and labels in the order of an epoch to the rows of `in_order`.

    Returns false if `order` has a sample, or `labels` a class, that does not exist.
    """
    for i in range(order.shape[0]):
        sample = order[i]
        if not 0 <= sample < starts.shape[0] or not 0 <= labels[sample] < n_classes:
            return False
        in_order[0, i], in_order[1, i], in_order[2, i] = starts[sample], stops[sample], labels[sample]
    return True


@inlined
def prefetch_list(inputs: EpochInput, position: int) -> None:
    """Begin to load the list that is needed `PREFETCH_AHEAD` samples later: the order is random, so the CPU cannot foresee it."""
    ahead, entries = position + PREFETCH_AHEAD, inputs.entries
    if ahead < inputs.labels.shape[0]:
        for k in range(inputs.starts[ahead], inputs.stops[ahead], CACHE_LINE // 4):
            prefetch(entries, k)


@inlined
def find_pixel(entries: Any, begin: int, end: int, pixel: int) -> int:
    """The index of the first entry of the sorted list ``entries[begin:end]`` whose pixel has the number `pixel` or a higher one."""
    while begin < end:
        middle = (begin + end) // 2
        if np.int64(entries[middle] & PIXEL) < pixel:
            begin = middle + 1
        else:
            end = middle
    return begin
