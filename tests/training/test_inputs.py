"""Samples and labels as people have them: each kind trains to the same bits as plain arrays."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse

from mlp_accel import evaluate, init_params, mini_batch_sgd
from mlp_accel.backends import Backend, get_backend
from mlp_accel.errors import PathError
from mlp_accel.inputs import as_samples, in_library_of, on_host

LAYERS = [20, 16, 3]


def data() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, LAYERS[0])).astype(np.float32), rng.integers(0, LAYERS[-1], 200)


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def mapped(array: npt.NDArray[Any], folder: Path) -> npt.NDArray[Any]:
    np.save(folder / "array.npy", array)
    result: npt.NDArray[Any] = np.load(folder / "array.npy", mmap_mode="r")
    return result


def imported(name: str, make: Callable[[Any, Any], Any]) -> Callable[[Any, Path], Any]:
    """An array made by a library; the test is skipped where the library is not."""
    return lambda array, _: make(pytest.importorskip(name), array)


def doubled(x: npt.NDArray[Any]) -> Any:
    """A matrix in which each value stands as two halves, in any order."""
    row, column = np.nonzero(x)
    order = np.random.default_rng(1).permutation(2 * len(row))
    values, rows, columns = (np.tile(array, 2)[order] for array in (x[row, column] / 2, row, column))
    return scipy.sparse.coo_array((values, (rows, columns)), x.shape)


Kinds = dict[str, Callable[[Any, Path], Any]]

SAMPLES: Kinds = {
    "Fortran order": lambda x, _: np.asfortranarray(x),
    "every second row": lambda x, _: np.repeat(x, 2, axis=0)[::2],
    "read-only": lambda x, _: read_only(x),
    "memory-mapped": mapped,
    "float64": lambda x, _: x.astype(np.float64),
    "big-endian": lambda x, _: x.astype(">f4"),
    "list": lambda x, _: x.tolist(),
    "objects": lambda x, _: x.astype(object),
    "torch": imported("torch", lambda torch, x: torch.tensor(x, requires_grad=True)),
    "JAX": imported("jax", lambda jax, x: jax.numpy.asarray(x)),
    "pandas": imported("pandas", lambda pandas, x: pandas.DataFrame(x)),
    "polars": imported("polars", lambda polars, x: polars.DataFrame(x)),
}
SPARSE: Kinds = {
    "CSR matrix": lambda x, _: scipy.sparse.csr_matrix(x),
    "CSC array": lambda x, _: scipy.sparse.csc_array(x),
    "COO with duplicates": lambda x, _: doubled(x),
}
LABELS: Kinds = {
    "int32": lambda y, _: y.astype(np.int32),
    "uint8": lambda y, _: y.astype(np.uint8),
    "big-endian": lambda y, _: y.astype(">i4"),
    "read-only": lambda y, _: read_only(y),
    "memory-mapped": mapped,
    "every second": lambda y, _: np.repeat(y, 2)[::2],
    "list": lambda y, _: y.tolist(),
    "torch": imported("torch", lambda torch, y: torch.tensor(y)),
    "pandas": imported("pandas", lambda pandas, y: pandas.Series(y)),
    "polars": imported("polars", lambda polars, y: polars.Series(y)),
}


def bits(x: Any, y: Any, backend: Backend) -> list[bytes]:
    history_params: list[Any] = init_params(LAYERS)
    history = mini_batch_sgd(x, y, history_params, backend=backend, epochs=2, batch_size=32, learning_rate=0.1)
    return [array.tobytes() for layer in history.params for array in layer]


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_of_any_layout_train_to_the_same_bits(backend: Backend, kind: str, tmp_path: Path) -> None:
    x, y = data()
    assert bits(SAMPLES[kind](x, tmp_path), y, backend) == bits(x, y, backend)


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_layout_train_to_the_same_bits(backend: Backend, kind: str, tmp_path: Path) -> None:
    x, y = data()
    assert bits(x, LABELS[kind](y, tmp_path), backend) == bits(x, y, backend)


COPIED = {
    "Fortran order": ("numba",),
    "every second row": ("numba",),
    "read-only": ("numba",),
    "memory-mapped": ("numba",),
    "float64": ("numpy", "numba"),
    "big-endian": ("numpy", "numba"),
    "torch": (),
    "JAX": ("numba",),
}
"""Which backends copy the samples that are not where or what they need; the table in docs/estimator.md says the same."""


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("kind", COPIED)
def test_samples_are_copied_only_where_a_backend_needs_it(kind: str, name: str, tmp_path: Path) -> None:
    given = SAMPLES[kind](data()[0], tmp_path)
    samples = as_samples(given, get_backend(name, "float32"), LAYERS[0])
    assert np.may_share_memory(samples, on_host(given)) == (name not in COPIED[kind])


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_plain_samples_and_pixels_are_used_where_they_are(name: str) -> None:
    x, _ = data()
    for samples in (x, x.astype(np.uint8)):
        assert np.may_share_memory(as_samples(samples, get_backend(name, "float32"), LAYERS[0]), samples)


def sparse_data() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 600)) * (rng.random((200, 600)) < 0.1)
    x[17] = 0
    return x.astype(np.float32), rng.integers(0, 3, 200)


@pytest.mark.parametrize(("kind", "optimizer"), [*((kind, "sgd") for kind in SPARSE), ("CSR matrix", "adam")])
def test_a_sparse_matrix_trains_to_the_bits_of_the_dense_array(backend: Backend, kind: str, optimizer: str, tmp_path: Path) -> None:
    x, y = sparse_data()
    results = []
    for samples in (x, SPARSE[kind](x, tmp_path)):
        history = mini_batch_sgd(
            samples, y, init_params([600, 8, 3]), backend=backend, epochs=2, batch_size=32, optimizer=optimizer
        )
        results.append((history.params, evaluate(backend, history.params, samples, y, "tanh"), history.path))
    (dense, dense_test, _), (sparse, sparse_test, path) = results
    assert path in ("loop", "sparse")
    if path == "loop":  # held to the fastest path of a backend whose paths take no sparse matrices
        np.testing.assert_allclose(sparse_test, dense_test, rtol=1e-4)
    else:
        assert [a.tobytes() for pair in sparse for a in pair] == [a.tobytes() for pair in dense for a in pair]
        assert sparse_test == dense_test


def test_a_sparse_matrix_does_not_become_dense() -> None:
    n, n_in = 2000, 100_000  # 800 MB as a dense array
    rng = np.random.default_rng(0)
    x: Any = scipy.sparse.random_array((n, n_in), density=1e-4, format="csr", dtype=np.float32, rng=rng)
    params = init_params([n_in, 3, 2])
    mini_batch_sgd(x, rng.integers(0, 2, n), params, backend="numba", epochs=1)
    tracemalloc.start()
    history = mini_batch_sgd(x, rng.integers(0, 2, n), params, backend="numba", epochs=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert history.path == "sparse"
    assert peak < 40e6


def test_a_path_that_takes_no_sparse_matrix_says_so() -> None:
    x, y = sparse_data()
    history = mini_batch_sgd(scipy.sparse.csr_array(x), y, init_params([600, 3]), backend="numba", epochs=1, path="loop")
    assert history.path == "loop"
    with pytest.raises(PathError, match="it takes no sparse matrices"):
        mini_batch_sgd(scipy.sparse.csr_array(x), y, init_params([600, 3]), backend="numba", epochs=1, path="dense")


@pytest.mark.parametrize("kind", ["list", "CSR matrix", "torch", "pandas", "polars"])
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN"), (-np.inf, "infinity"), (1e300, "1e\\+300, which is infinity in float32: too large")]
)
def test_a_value_that_is_not_finite_is_named_by_row_and_column(kind: str, value: float, message: str, tmp_path: Path) -> None:
    x, y = data()
    wide = x.astype(np.float64)
    wide[150, 7] = value
    backend = get_backend("numpy", "float32")
    name = {"pandas": r" \(7\)", "polars": r" \(column_7\)"}.get(kind, "")
    with pytest.raises(ValueError, match=f"{message}: row 150, column 7{name}$"):
        mini_batch_sgd({**SAMPLES, **SPARSE}[kind](wide, tmp_path), y, init_params(LAYERS), backend=backend)


def test_what_is_no_number_is_named() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"width": [1.0, 2.0], "colour": ["4", "red"]})
    with pytest.raises(ValueError, match=r"x must hold numbers; row 1, column 1 \(colour\) holds 'red'"):
        mini_batch_sgd(frame, [0, 1], init_params([2, 2]), backend="numpy")
    with pytest.raises(ValueError, match="real numbers; its dtype is complex128"):
        mini_batch_sgd(np.ones((2, 2)) * 1j, [0, 1], init_params([2, 2]), backend="numpy")


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.float16, bool])
def test_numbers_of_other_types_are_used_as_they_are(kind: type, backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x: Any = rng.integers(0, 2, (200, LAYERS[0])).astype(kind)
    y = rng.integers(0, 3, 200)
    assert bits(x, y, backend) == bits(x.astype(np.float32), y, backend)


@pytest.mark.parametrize("kind", ["torch", "JAX"])
def test_results_come_back_as_arrays_of_the_library(kind: str, tmp_path: Path) -> None:
    x, _ = data()
    given = SAMPLES[kind](x, tmp_path)
    back = in_library_of(given, x)
    assert type(back) is type(given)
    np.testing.assert_array_equal(on_host(back), x)
    assert in_library_of([1], x) is x


def test_bfloat16_is_read() -> None:
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(on_host(torch.tensor([1.5, -2.0], dtype=torch.bfloat16)), [1.5, -2.0])
