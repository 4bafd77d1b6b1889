"""Files are written whole or not at all, and parameters come back as they were saved."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from mlp_accel import OutputError, ParameterFileError, init_params, load_params, save_params
from mlp_accel.files import check_writable, write_atomically, write_text


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_text(target, "old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_written_file_has_ordinary_permissions(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_link_is_followed_a_pipe_is_written_to_and_permissions_are_kept(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    write_text(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_cannot_be_written_is_said_beforehand(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match="there is no folder"):
        check_writable(tmp_path / "missing" / "a.json")
    existing = tmp_path / "a.json"
    existing.write_text("old")
    check_writable(existing)
    assert existing.read_text() == "old"
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "missing" / "a.json", "x")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_come_back_bit_for_bit(tmp_path: Path, dtype: Any) -> None:
    params = [(w.astype(dtype), b.astype(dtype)) for w, b in init_params([5, 4, 3], seed=1, random_bias=True)]
    save_params(tmp_path / "p.npz", params)
    for (w, b), (v, c) in zip(load_params(tmp_path / "p.npz"), params, strict=True):
        assert w.dtype == dtype
        np.testing.assert_array_equal(w, v)
        np.testing.assert_array_equal(b, c)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds nothing"),
        ({"weights_1": np.zeros((2, 3))}, "not weights_1, bias_1"),
        ({"weights_1": np.zeros((2, 3)), "bias_2": np.zeros(3)}, "not weights_1, bias_1"),
        ({"weights_1": np.zeros((2, 3)), "bias_1": np.zeros(2)}, r"weights_1 \(2, 3\), bias_1 \(2,\) do not fit"),
        ({"weights_1": np.zeros((2, 3), int), "bias_1": np.zeros(3)}, "not floating"),
        (
            {"weights_1": np.zeros((2, 3)), "bias_1": np.zeros(3), "weights_2": np.zeros((4, 2)), "bias_2": np.zeros(2)},
            "do not follow the layer before",
        ),
        ({"weights_1": np.array([[None]]), "bias_1": np.zeros(1)}, "holds Python objects"),
    ],
)
def test_a_malformed_parameter_file_is_an_error_that_names_the_layer(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, **arrays)
    with pytest.raises(ParameterFileError, match=message):
        load_params(path)


def test_a_file_that_is_no_npz_or_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParameterFileError, match="No such file"):
        load_params(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ParameterFileError, match=r"not a \.npz file"):
        load_params(tmp_path / "text.npz")


def test_an_absurd_shape_in_a_header_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**20)})
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("weights_1.npy", buffer.getvalue())
        archive.writestr("bias_1.npy", buffer.getvalue())
    with pytest.raises(ParameterFileError, match=r"weights_1: the header says \(1099511627776, 1048576\).*does not hold them"):
        load_params(tmp_path / "p.npz")
