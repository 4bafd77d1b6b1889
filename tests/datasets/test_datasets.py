"""Data sets that are right are read; each kind of wrong one is an error that names file and field."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_accel import DatasetError, load
from mlp_accel import datasets as module
from mlp_accel.datasets import Dataset, idx

NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def idx_bytes(array: npt.NDArray[Any]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def small() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (12, 4, 5), dtype=np.uint8),
        "y_train": np.arange(12, dtype=np.uint8) % 3,
        "x_test": rng.integers(0, 256, (6, 4, 5), dtype=np.uint8),
        "y_test": np.arange(6, dtype=np.uint8) % 3,
    }


def write_folder(folder: Path, arrays: dict[str, Any], compress: bool = False, prefix: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    for field, array in arrays.items():
        data = array if isinstance(array, bytes) else idx_bytes(array)
        if compress:
            (folder / f"{prefix}{NAMES[field]}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / f"{prefix}{NAMES[field]}").write_bytes(data)
    return folder


def assert_small(data: Dataset) -> None:
    expected = small()
    np.testing.assert_array_equal(data.x_train, expected["x_train"].reshape(12, 20))
    np.testing.assert_array_equal(data.x_test, expected["x_test"].reshape(6, 20))
    np.testing.assert_array_equal(data.y_train, expected["y_train"])
    assert (data.n_in, data.n_classes) == (20, 3)
    assert data.y_train.dtype == np.int64


def test_the_mnist_in_the_package_is_the_real_one(mnist: Dataset) -> None:
    assert mnist.x_train.shape == (60000, 784)
    assert mnist.x_test.shape == (10000, 784)
    assert mnist.x_train.dtype == np.uint8
    assert mnist.x_train.flags.writeable  # as most arrays: for others Numba compiles its kernels once more
    assert mnist.n_classes == 10
    assert np.count_nonzero(mnist.x_train) / mnist.x_train.size == pytest.approx(0.191, abs=5e-4)
    assert np.count_nonzero(mnist.x_train.any(axis=0)) == 717
    assert mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("prefix", ["", "emnist-letters-"])
def test_a_folder_of_idx_files(tmp_path: Path, compress: bool, prefix: str) -> None:
    assert_small(load(write_folder(tmp_path, small(), compress, prefix)))


def test_test_files_may_be_named_test(tmp_path: Path) -> None:
    write_folder(tmp_path, small())
    for path in tmp_path.glob("t10k-*"):
        path.rename(path.with_name(path.name.replace("t10k", "test")))
    assert_small(load(tmp_path))


def test_an_npz_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **small())
    assert_small(load(str(tmp_path / "a.npz")))
    np.savez_compressed(tmp_path / "b.npz", **small())
    assert_small(load(tmp_path / "b.npz"))


def test_floating_values_are_kept(tmp_path: Path) -> None:
    arrays = small()
    arrays |= {name: arrays[name] / np.float32(255) for name in ("x_train", "x_test")}
    np.savez(tmp_path / "a.npz", **arrays)
    assert load(tmp_path / "a.npz").x_train.dtype == np.float32


def test_the_environment_names_the_data_unless_the_argument_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLP_ACCEL_DATA_DIR", str(write_folder(tmp_path / "data", small())))
    assert_small(load())
    monkeypatch.setenv("MLP_ACCEL_DATA_DIR", str(tmp_path / "missing"))
    with pytest.raises(DatasetError, match=r"missing \(from the environment variable MLP_ACCEL_DATA_DIR\): no such file or folder"):
        load()


def broken(field: str, change: Callable[[bytes], bytes]) -> dict[str, Any]:
    arrays: dict[str, Any] = small()
    arrays[field] = change(idx_bytes(arrays[field]))
    return arrays


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (broken("x_train", lambda b: b"\x89PNG" + b[4:]), "train-images.*the magic number is 0x89504e47, it must be 0x00000803"),
        (broken("y_train", lambda b: b"\0\0\x08\x03" + b[4:]), "train-labels.*must be 0x00000801"),
        (broken("x_test", lambda b: b[:-1]), "t10k-images.*(truncated|cannot hold)"),
        (broken("x_test", lambda b: b + b"x"), "t10k-images.*the file has more"),
        (broken("y_test", lambda b: b[:6]), "t10k-labels.*truncated in the header, after 6 of 8 bytes"),
        (broken("y_test", lambda b: b""), "t10k-labels.*empty file"),
        (broken("x_train", lambda b: b[:4] + b"\xff" * 12 + b[16:]), "train-images.*dimensions .4294967295.*cannot hold"),
        ({**small(), "y_train": np.zeros(11)}, "x_train has 12 samples, y_train has 11 labels"),
        ({**small(), "y_test": np.full(6, 3)}, "y_test has the label 3, the largest in y_train is 2"),
        ({**small(), "x_test": np.zeros((6, 4, 4))}, "x_train has 20 values a sample, x_test has 16"),
        ({**small(), "x_test": np.zeros((0, 4, 5)), "y_test": np.zeros(0)}, "x_test is empty"),
    ],
)
def test_a_wrong_idx_file_is_an_error_that_names_file_and_field(
    tmp_path: Path, arrays: dict[str, Any], message: str, compress: bool
) -> None:
    with pytest.raises(DatasetError, match=message) as info:
        load(write_folder(tmp_path, arrays, compress))
    assert str(tmp_path) in str(info.value)


def test_an_absurd_header_costs_no_memory(tmp_path: Path) -> None:
    header = b"\0\0\x08\x03" + struct.pack(">3I", 1000, 1000, 900)
    for compress in (False, True):
        folder = write_folder(tmp_path / str(compress), {**small(), "x_train": header}, compress)
        tracemalloc.start()
        with pytest.raises(DatasetError, match="900000000 bytes"):
            load(folder)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()


def test_a_missing_file_and_two_of_a_kind_are_errors(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, small())
    write_folder(tmp_path, {"x_train": small()["x_train"]}, prefix="other-")
    with pytest.raises(DatasetError, match=r"several files fit train-images-idx3-ubyte: other-train.*, train"):
        load(folder)
    (folder / NAMES["x_train"]).unlink()
    (folder / f"other-{NAMES['x_train']}").unlink()
    with pytest.raises(DatasetError, match=r"no file train-images-idx3-ubyte or"):
        load(folder)


def test_a_gz_file_cut_off_or_damaged_is_an_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, small(), compress=True)
    path = folder / f"{NAMES['x_train']}.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[:40] + b"\xff\xff\xff" + whole[43:], b"no gzip at all"):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match="train-images"):
            load(folder)


def test_a_damaged_file_of_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path, small(), compress=True)
    (folder / "SHA256SUMS").write_text("".join(f"{'0' * 64}  {path.name}\n" for path in sorted(folder.glob("*.gz"))))
    monkeypatch.setattr(module, "_MNIST", folder)
    with pytest.raises(DatasetError, match=r"SHA-256"):
        load("mnist")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "no array x_train; there is y_train, x_test, y_test"),
        ({"y_train": np.full(12, -1)}, "y_train has labels from -1 to -1"),
        ({"y_train": np.full(12, 10**9)}, "y_train has labels from 1000000000 to 1000000000; they must lie in 0 to 65535"),
        ({"y_train": np.zeros(12)}, "y_train must be integer labels"),
        ({"y_train": np.eye(12, dtype=int)}, r"y_train must be integer labels \(n,\); its shape is \(12, 12\)"),
        ({"x_train": np.zeros(12, np.uint8)}, r"x_train has the shape \(12,\)"),
        ({"x_train": np.zeros((12, 20), np.int32)}, "x_train has the dtype int32; it must be uint8"),
        ({"x_train": np.full((12, 20), np.nan), "x_test": np.zeros((6, 20))}, "x_train has values that are not finite"),
        ({"x_train": np.zeros((12, 20))}, "x_train and x_test differ in dtype: float64 and uint8"),
        ({"x_train": np.array([[object()]] * 12)}, "x_train holds Python objects"),
    ],
)
def test_a_wrong_npz_file_is_an_error_that_names_the_array(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {name: array for name, array in {**small(), **changes}.items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match=message):
        load(tmp_path / "a.npz")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in NAMES:
            archive.writestr(f"{name}.npy", b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DatasetError, match="cannot be read"):
        load(path)


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,2,3")
    with pytest.raises(DatasetError, match=r"a\.txt: not a \.npz file"):
        load(tmp_path / "a.txt")


@given(st.binary(max_size=200), st.integers(0, 60))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_at_all_crash_the_reader(tmp_path: Path, noise: bytes, position: int) -> None:
    path = tmp_path / "file"
    whole = idx_bytes(small()["x_test"])
    path.write_bytes(whole[:position] + noise + whole[position + len(noise) :])
    message = str(path)
    try:
        idx.read(path, 3)
    except DatasetError as error:
        message = str(error)
    assert str(path) in message
