"""Samples as lists of their values that are not zero, made once for a training run."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.numba.compiler import jit
from mlp_accel.backends.numba.emit.simd import CHUNK, HAS_COMPRESS, NUMBER_BITS, NUMBER_MASK, compress
from mlp_accel.backends.numba.emit.tiles import TILE_ROWS
from mlp_accel.backends.numba.paths.shared.memory import IntegerTable, Reals, aligned_empty, unpacker
from mlp_accel.backends.paths import sampled_rows

SEGMENTS = 2
"""Segments that many inputs are divided into: with more, the lists would be so short that their ends took much of the time."""

UNROLL = 4 if TILE_ROWS == 8 else 2
"""Entries of a list that are added side by side, in as many sums. Behind each list are as many zeros, so that its length may be
rounded up."""


class Lists(NamedTuple):
    """The lists of the samples in the order of one epoch."""

    entries: Reals
    """For each sample its values that are not zero, each behind the number of its input, which has as many bits; those of a segment
    of the inputs together, and zeros up to a multiple of `UNROLL` entries, of an input of the same segment: the weights of another
    are written to by another thread."""
    bounds: IntegerTable
    """(n, n_segments + 1): which entry of all is the first of each segment of each sample, and which comes after its last one, in
    the order of training."""


unpack_lists = unpacker(Lists)


class SampleLists(NamedTuple):
    """All samples as lists of their values that are not zero, twice the bytes of the value for each."""

    entries: npt.NDArray[Any]
    """The lists one behind the other, as in `Lists`."""
    bounds: npt.NDArray[np.int64]
    """As in `Lists`, but for the order."""
    segments: npt.NDArray[np.int64]
    """(n_segments + 1,): where each segment of the inputs begins, so that they have as many values that are not zero, and at the
    end the number of inputs."""


def list_samples(x: npt.NDArray[Any], dtype: npt.DTypeLike, n_segments: int) -> SampleLists:
    """The lists of samples ``(n, n_in)``, of uint8 pixels or of `dtype`, with values of `dtype`."""
    (n, n_in), dtype = x.shape, np.dtype(dtype)
    rows = sampled_rows(x)
    work = np.concatenate([[0], np.cumsum(np.count_nonzero(rows, axis=0) / len(rows) + 0.01)])
    segments = np.searchsorted(work, np.linspace(0, work[-1], n_segments + 1)).astype(np.int64)
    segments[-1] = n_in
    values, counts = np.ascontiguousarray(x).reshape(-1), np.empty((n, n_segments), np.int64)
    count_values(values, segments, counts)
    ends = np.cumsum(-(-counts // UNROLL) * UNROLL).reshape(n, n_segments)
    bounds = np.column_stack([np.concatenate([[0], ends[:-1, -1]]), ends])
    entries = aligned_empty((int(ends[-1, -1]) + CHUNK) * 2, dtype)
    numbers = entries.view(f"u{dtype.itemsize}")
    if x.dtype == np.uint8:
        scale = np.asarray(1.0 / 255.0, dtype)[()]
        fill_from_pixels(values, segments, scale, entries, numbers, bounds, np.empty(CHUNK, np.uint32))
    else:
        fill_from_numbers(values, segments, entries, numbers, bounds)
    return SampleLists(entries, bounds, segments)


@jit()
def count_values(values: Any, segments: Any, counts: Any) -> None:
    """For each segment of each sample count the values that are not zero."""
    n_in = segments[segments.shape[0] - 1]
    for sample in range(counts.shape[0]):
        for segment in range(counts.shape[1]):
            part = values[sample * n_in + segments[segment] : sample * n_in + segments[segment + 1]]
            count = 0
            for k in range(part.shape[0]):
                count += part[k] != 0
            counts[sample, segment] = count


@jit()
def fill_from_pixels(pixels: Any, segments: Any, scale: Any, entries: Any, numbers: Any, bounds: Any, found: Any) -> None:
    """Write the lists of all images to `entries`, of which `numbers` is a view.

    `entries` must have room for `CHUNK` more; `found` has room for so many.
    """
    n_in = segments[segments.shape[0] - 1]
    for sample in range(bounds.shape[0]):
        first = sample * n_in
        for segment in range(segments.shape[0] - 1):
            at = np.uint64(bounds[sample, segment])
            for pixel in range(segments[segment], segments[segment + 1], CHUNK):
                count = min(CHUNK, segments[segment + 1] - pixel)
                if HAS_COMPRESS and first + pixel + CHUNK <= pixels.shape[0]:
                    n_found = np.uint64(compress(pixels, first + pixel, count, found, 0, pixel))
                else:
                    n_found = np.uint64(0)
                    for k in range(pixel, pixel + count):  # written without a branch, which the CPU could not predict
                        value = np.uint32(pixels[first + k])
                        found[n_found] = value << np.uint32(NUMBER_BITS) | np.uint32(k)
                        n_found += np.uint64(value != 0)
                for k in range(n_found):
                    numbers[np.uint64(2) * (at + k)] = found[k] & np.uint32(NUMBER_MASK)
                    entries[np.uint64(2) * (at + k) + np.uint64(1)] = scale * (found[k] >> np.uint32(NUMBER_BITS))
                at += n_found
            for k in range(at, np.uint64(bounds[sample, segment + 1])):
                numbers[np.uint64(2) * k], entries[np.uint64(2) * k + np.uint64(1)] = segments[segment], 0


@jit()
def fill_from_numbers(values: Any, segments: Any, entries: Any, numbers: Any, bounds: Any) -> None:
    """`fill_from_pixels` for samples that are floating already."""
    n_in = segments[segments.shape[0] - 1]
    for sample in range(bounds.shape[0]):
        part = values[sample * n_in : (sample + 1) * n_in]
        for segment in range(segments.shape[0] - 1):
            at = np.uint64(bounds[sample, segment])
            for k in range(segments[segment], segments[segment + 1]):
                numbers[np.uint64(2) * at] = k
                entries[np.uint64(2) * at + np.uint64(1)] = part[k]
                at += np.uint64(part[k] != 0)
            for k in range(at, np.uint64(bounds[sample, segment + 1])):
                numbers[np.uint64(2) * k], entries[np.uint64(2) * k + np.uint64(1)] = segments[segment], 0
