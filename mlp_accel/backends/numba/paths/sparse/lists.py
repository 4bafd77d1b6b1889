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
    n, dtype = x.shape[0], np.dtype(dtype)
    rows = sampled_rows(x)
    segments = divide_inputs(np.count_nonzero(rows, axis=0) / len(rows), n_segments)
    values, counts = np.ascontiguousarray(x).reshape(-1), np.empty((n, n_segments), np.int64)
    count_values(values, segments, counts)
    bounds, entries, numbers = room_for(counts, dtype)
    if x.dtype == np.uint8:
        scale = np.asarray(1.0 / 255.0, dtype)[()]
        fill_from_pixels(values, segments, scale, entries, numbers, bounds, np.empty(CHUNK, np.uint32))
    else:
        fill_from_numbers(values, segments, entries, numbers, bounds)
    return SampleLists(entries, bounds, segments)


def list_matrix(x: Any, dtype: npt.DTypeLike, n_segments: int) -> SampleLists:
    """The lists of samples that are a SciPy CSR matrix ``(n, n_in)`` of `dtype`, its columns in ascending order in each row."""
    (n, n_in), dtype = x.shape, np.dtype(dtype)
    segments = divide_inputs(np.bincount(x.indices, minlength=n_in) / n, n_segments)
    matrix, counts = (x.indptr.astype(np.int64), x.indices, x.data), np.zeros((n, n_segments), np.int64)
    count_entries(*matrix[:2], segments, counts)
    bounds, entries, numbers = room_for(counts, dtype)
    fill_from_matrix(*matrix, segments, entries, numbers, bounds)
    return SampleLists(entries, bounds, segments)


def divide_inputs(share: npt.NDArray[np.float64], n_segments: int) -> npt.NDArray[np.int64]:
    """The bounds of the segments, from the share of the samples that have a value at each input."""
    work = np.concatenate([[0], np.cumsum(share + 0.01)])
    segments = np.searchsorted(work, np.linspace(0, work[-1], n_segments + 1)).astype(np.int64)
    segments[-1] = len(share)
    return segments


def room_for(counts: npt.NDArray[np.int64], dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """The bounds of lists of so many entries, and room for the entries: as values, and the same memory as numbers."""
    ends = np.cumsum(-(-counts // UNROLL) * UNROLL).reshape(counts.shape)
    bounds = np.column_stack([np.concatenate([[0], ends[:-1, -1]]), ends])
    entries = aligned_empty((int(ends[-1, -1]) + CHUNK) * 2, dtype)
    return bounds, entries, entries.view(f"u{dtype.itemsize}")


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


@jit()
def count_entries(starts: Any, columns: Any, segments: Any, counts: Any) -> None:
    """For each segment of each row of a CSR matrix count the entries; `counts` are zeros at first."""
    for sample in range(counts.shape[0]):
        segment = 0
        for k in range(starts[sample], starts[sample + 1]):
            while columns[k] >= segments[segment + 1]:
                segment += 1
            counts[sample, segment] += 1


@jit()
def fill_from_matrix(starts: Any, columns: Any, values: Any, segments: Any, entries: Any, numbers: Any, bounds: Any) -> None:
    """`fill_from_numbers` for a CSR matrix."""
    for sample in range(bounds.shape[0]):
        k = starts[sample]
        for segment in range(segments.shape[0] - 1):
            at = bounds[sample, segment]
            while k < starts[sample + 1] and columns[k] < segments[segment + 1]:
                numbers[2 * at], entries[2 * at + 1] = columns[k], values[k]
                k += 1
                at += 1
            for rest in range(at, bounds[sample, segment + 1]):
                numbers[2 * rest], entries[2 * rest + 1] = segments[segment], 0
