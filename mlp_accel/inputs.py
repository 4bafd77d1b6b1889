"""Samples and labels as people have them, made what a backend computes with; what need not be copied is not.

Taken are NumPy arrays, lists and memory maps; tensors of PyTorch, and arrays of JAX and CuPy, on the CPU or on a GPU; frames of
pandas and polars; and sparse matrices of SciPy. None of these libraries is imported here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.arrays import Array, is_sparse
from mlp_accel.backends.base import Backend

OF_CUPY = ("cupy", "cupyx")
TENSORS = ("torch", "jax", "jaxlib", *OF_CUPY)
"""Libraries whose arrays may lie on a GPU."""

logger = logging.getLogger("mlp_accel")


def as_samples(x: Any, backend: Backend, n_in: int, names: Sequence[str] | None = None) -> Any:
    """Samples as an array of the backend, or a sparse matrix as a CSR matrix of the backend's dtype, which stays on the host.

    What lies on a GPU stays there, if the backend computes there.

    Parameters
    ----------
    x : array-like (n, n_in)
        uint8 stays as it is, and means pixels; everything else becomes the backend's floating dtype.
    n_in : int
        Values per sample that there must be.
    names : sequence of str, optional
        Of the columns, for messages; by default those of a frame.

    Raises
    ------
    ValueError
        For another shape; for values that are not finite, or that the dtype cannot hold, and for what is no number: these are
        named by row and column.
    """
    stays = is_sparse(x) or (backend.device != "cpu" and on_gpu(x))
    given = _detached(x) if stays else numbers(x)
    if given.ndim != 2 or given.shape[1] != n_in:
        raise ValueError(f"x must have shape (n, {n_in}), the number of inputs of the first layer; got {tuple(given.shape)}")
    if is_sparse(given):
        return as_csr(given, backend.dtype)
    with np.errstate(over="ignore"):  # what overflows is found below
        result = backend.asarray(given)
    if result.dtype not in (backend.xp.uint8, backend.float_dtype):
        result = backend.xp.astype(result, backend.float_dtype)
    check_finite(result, x, column_names(x) if names is None else names, backend.xp)
    if isinstance(given, np.ndarray) and isinstance(result, np.ndarray) and not np.may_share_memory(given, result):
        logger.info("the samples, %s in C order: %s, are copied to plain %s", given.dtype, given.flags.c_contiguous, result.dtype)
    return result


def as_labels(y: Any) -> npt.NDArray[Any]:
    """Labels as a NumPy array, of any dtype."""
    return np.asarray(on_host(y))


def is_pixels(x: Any) -> bool:
    """Whether `x` holds uint8, which means pixels that are scaled by 1/255."""
    return str(getattr(x, "dtype", "")).rpartition(".")[2] == "uint8"


def take(x: Any, chosen: npt.NDArray[np.bool]) -> Any:
    """The rows that are chosen, where the array is."""
    if is_sparse(x):
        return x.tocsr()[chosen]
    if on_gpu(x):
        return x[in_library_of(x, chosen)]
    return np.asarray(on_host(x))[chosen]


def as_csr(x: Any, dtype: str) -> Any:
    """A sparse matrix as CSR of `dtype`, with its columns in ascending order and each at most once in a row."""
    given = x.tocsr()
    if not given.has_canonical_format:
        given = given.copy() if given is x else given
        given.sum_duplicates()
    with np.errstate(over="ignore"):  # what overflows is found below
        matrix = given.astype(dtype, copy=False)
    if not np.isfinite(matrix.data).all():
        entry = int(np.flatnonzero(~np.isfinite(matrix.data))[0])
        row = int(np.searchsorted(matrix.indptr, entry, side="right")) - 1
        raise ValueError(_not_finite(given.data[entry], dtype, row, int(matrix.indices[entry]), None))
    return matrix


def numbers(x: Any) -> npt.NDArray[Any]:
    """`x` as a NumPy array of numbers; ValueError, which names the column, if it holds anything else."""
    array = np.asarray(on_host(x))
    if array.dtype == object or array.dtype.kind in "US":
        return _converted(array, column_names(x))
    if array.dtype.kind not in "biuf":
        raise ValueError(f"x must hold real numbers; its dtype is {array.dtype}")
    return array


def on_host(x: Any) -> Any:
    """`x` as an array in the memory of the CPU: its own memory where that is there."""
    if is_sparse(x) or isinstance(x, np.ndarray):
        return x
    x = _detached(x)
    library = library_of(x)
    if library == "torch":
        torch = sys.modules["torch"]
        return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()
    if library in OF_CUPY:
        return x.get()
    return np.asarray(x)


def on_gpu(x: Any) -> bool:
    """Whether `x` lies in the memory of an NVIDIA GPU."""
    return hasattr(_detached(x), "__cuda_array_interface__")


def in_library_of(x: Any, values: npt.NDArray[Any]) -> Any:
    """NumPy's `values` as an array of the library of `x`, and on its device, if that is PyTorch, JAX or CuPy; else as they are."""
    library = library_of(x)
    if library == "torch":
        return sys.modules["torch"].from_numpy(values).to(x.device)
    if library in ("jax", "jaxlib"):
        return sys.modules["jax"].device_put(values, x.device)
    if library in OF_CUPY:
        with x.device:
            return sys.modules["cupy"].asarray(values)
    return values


def is_tensor(x: Any) -> bool:
    """Whether `x` is of a library that may have it on a GPU."""
    return library_of(x) in TENSORS


def library_of(x: Any) -> str:
    """The name of the package that the type of `x` is from, such as ``"torch"``."""
    return type(x).__module__.partition(".")[0]


def column_names(x: Any) -> list[str] | None:
    """The names of the columns of a frame, or None for what has none."""
    columns = getattr(x, "columns", None)
    return None if columns is None else [str(name) for name in columns]


def check_finite(x: Array, given: Any, names: Sequence[str] | None = None, xp: Any = np) -> None:
    """Refuse values that are NaN or infinite; ValueError, which names the first one, its row and its column.

    Parameters
    ----------
    x : array (n, n_in)
        Of the array module `xp`.
    given : array-like
        What `x` was made from: its values, and the `names` of its columns, stand in the message.
    """
    # One sum, in which nothing that is not finite gets lost, takes a fraction of the time of looking at each value.
    if not xp.isdtype(x.dtype, "real floating") or not x.size or bool(xp.isfinite(xp.sum(x))) or bool(xp.all(xp.isfinite(x))):
        return
    row, column = (int(index[0]) for index in xp.nonzero(~xp.isfinite(x)))
    raise ValueError(_not_finite(np.asarray(on_host(given))[row, column], str(x.dtype), row, column, names))


def _not_finite(value: Any, dtype: str, row: int, column: int, names: Sequence[str] | None) -> str:
    """The message for a value that is not finite, or becomes infinite as `dtype`."""
    number = float(value)
    what = "NaN" if np.isnan(number) else "infinity" if np.isinf(number) else f"{number:g}, which is infinity in {dtype}: too large"
    name = "" if names is None else f" ({names[column]})"
    return f"Input X contains {what}: row {row}, column {column}{name}"


def _detached(x: Any) -> Any:
    """A tensor without its history, by which PyTorch would refuse to give its memory away."""
    return x.detach() if library_of(x) == "torch" else x


def _converted(array: npt.NDArray[Any], names: Sequence[str] | None) -> npt.NDArray[np.float64]:
    """Objects or strings as float64; ValueError, which names row and column, for the first that is no number."""
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        for position, value in np.ndenumerate(array):
            try:
                float(value)
            except (TypeError, ValueError):
                where = ", ".join(f"{axis} {index}" for axis, index in zip(("row", "column"), position, strict=False))
                name = f" ({names[position[1]]})" if names is not None and len(position) == 2 else ""
                raise ValueError(f"x must hold numbers; {where}{name} holds {value!r}") from None
        raise
