"""Tables in CSV files, data without a test split, and samples to predict."""

from __future__ import annotations

import builtins
import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mlp_accel import DatasetError, SettingError, load
from mlp_accel.datasets import load_samples
from mlp_accel.datasets.split import stratified_share
from mlp_accel.errors import MissingPackageError

HEADER = "length,width,petals,species"
LINES = [f"{i / 4},{i},{i % 2 == 0},{('setosa', 'virginica', 'versicolor')[i % 3]}" for i in range(30)]


@pytest.fixture
def _polars() -> None:
    pytest.importorskip("polars")


def table(folder: Path, *lines: str, name: str = "table.csv", header: str = HEADER) -> Path:
    path = folder / name
    text = "\n".join([header, *(lines or LINES)]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.usefixtures("_polars")
@pytest.mark.parametrize("name", ["table.csv", "TABLE.CSV", "table.csv.gz"])
def test_a_table_is_samples_and_labels(tmp_path: Path, name: str) -> None:
    data = load(table(tmp_path, name=name), target="species")
    assert data.classes is not None
    assert data.classes.tolist() == ["setosa", "versicolor", "virginica"]
    assert (data.n_in, data.n_classes, data.features, data.target) == (3, 3, ("length", "width", "petals"), "species")
    x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    order = np.argsort(x[:, 1])
    i = np.arange(30)
    np.testing.assert_array_equal(x[order], np.column_stack([i / 4, i, i % 2 == 0]))
    assert data.classes[y[order]].tolist() == [line.rpartition(",")[2] for line in LINES]
    assert np.bincount(data.y_test).tolist() == [2, 2, 2]


@pytest.mark.usefixtures("_polars")
@pytest.mark.parametrize(
    ("labels", "classes"), [([3, 7, 3, 7], [3, 7]), (["true", "false"] * 2, [False, True]), (["1.0", "2.0"] * 2, [1, 2])]
)
def test_labels_may_be_numbers_or_booleans(tmp_path: Path, labels: list[Any], classes: list[Any]) -> None:
    data = load(table(tmp_path, *(f"{i},{label}" for i, label in enumerate(labels)), header="x,y"), target="y", test_share=0.5)
    assert data.classes is not None
    assert data.classes.tolist() == classes


@pytest.mark.usefixtures("_polars")
@pytest.mark.parametrize(
    ("lines", "target", "message"),
    [
        (["1,2,3,a", "1,,3,b"], "species", "line 3 of the column 'width' is empty"),
        (["1,2,3,a", "1,2,3,"], "species", "line 3 of the column 'species' is empty"),
        (["1,2,3,a", "1,two,3,b"], "species", "line 3 of the column 'width' holds 'two', which is no number"),
        (["1,2,3,a", "1,inf,3,b"], "species", "line 3 of the column 'width' holds inf"),
        (["1,2,3,a", "1,2,3,b"], "kind", "no column 'kind'; there is length, width, petals, species"),
        (["1,2,3,0.5", "1,2,3,1"], "species", "line 2 of the target 'species' holds 0.5, which is no class"),
        (["1,2,3,4,5,6"], "species", "cannot be read as a table"),
    ],
)
def test_a_wrong_table_is_an_error_that_names_line_and_column(tmp_path: Path, lines: list[str], target: str, message: str) -> None:
    with pytest.raises(DatasetError, match=f"table.csv: {message}"):
        load(table(tmp_path, *lines), target=target)


@pytest.mark.usefixtures("_polars")
def test_a_table_without_lines_and_a_table_without_values_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text(HEADER + "\n")
    with pytest.raises(DatasetError, match="no line below the names of the columns"):
        load(tmp_path / "empty.csv", target="species")
    with pytest.raises(DatasetError, match="no column beside the target 'y'"):
        load(table(tmp_path, "1", "2", header="y"), target="y")


@pytest.mark.usefixtures("_polars")
def test_a_target_belongs_to_a_table_and_a_table_to_a_target(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"which column holds the labels.*one of length, width, petals, species"):
        load(table(tmp_path))
    with pytest.raises(SettingError, match="mnist: only a table"):
        load("mnist", target="species")


def test_without_polars_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_polars(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "polars":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_polars)
    with pytest.raises(MissingPackageError, match=r"polars is needed to read .*table.csv.*pip install 'mlp-accel\[tables\]'"):
        load(table(tmp_path), target="species")


def test_an_npz_that_is_not_divided(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2, 2)), np.array(["b", "a", "b", "b"] * 10)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    data = load(tmp_path / "a.npz", test_share=0.25, seed=1)
    assert data.x_test.shape == (10, 4)
    assert data.classes is not None
    assert data.classes.tolist() == ["a", "b"]
    for part, labels in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        rows = [int(np.flatnonzero((x.reshape(40, 4) == row).all(axis=1))[0]) for row in part]
        assert data.classes[labels].tolist() == y[rows].tolist()
    assert len(load(tmp_path / "a.npz").x_test) == 8


def test_data_with_a_test_split_take_no_share(clouds: Path) -> None:
    with pytest.raises(SettingError, match="has test samples of its own"):
        load(clouds, test_share=0.1)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.floats(0.02, 0.98), st.integers(0, 9))
@settings(deadline=None)
def test_every_class_has_its_share(labels: list[int], share: float, seed: int) -> None:
    classes = np.array(labels)
    counts = np.bincount(classes)
    try:
        chosen = stratified_share(classes, share, seed)
    except SettingError:  # the share is of no whole sample
        reject()
    of_rest, of_part = (np.bincount(classes[rows], minlength=len(counts)) for rows in (~chosen, chosen))
    assert ((of_rest > 0) == (counts > 0)).all()
    assert (np.abs(of_part - np.minimum(counts * share, counts - 1)) <= 1).all()
    np.testing.assert_array_equal(stratified_share(classes, share, seed), chosen)


def test_samples_to_predict(tmp_path: Path, clouds: Path) -> None:
    x, labels = load_samples(clouds)
    assert x.shape == (100, 8)
    assert labels is not None
    np.savez(tmp_path / "x.npz", x=x)
    alone, none = load_samples(tmp_path / "x.npz")
    np.testing.assert_array_equal(alone, x)
    assert none is None
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "images").write_bytes(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 3, 4) + images.tobytes())
    np.testing.assert_array_equal(load_samples(tmp_path / "images")[0], images.reshape(2, 12))
    with pytest.raises(DatasetError, match="no such file"):
        load_samples(tmp_path / "missing.csv")
    np.savez(tmp_path / "y.npz", y=labels)
    with pytest.raises(DatasetError, match="no array x_test"):
        load_samples(tmp_path / "y.npz")


@pytest.mark.usefixtures("_polars")
def test_columns_to_predict_are_found_by_name(tmp_path: Path) -> None:
    path = table(tmp_path, "a,1,2", "b,3,4", header="species,width,length")
    x, labels = load_samples(path, ["length", "width"], "species")
    np.testing.assert_array_equal(x, [[2, 1], [4, 3]])
    assert labels is not None
    assert labels.tolist() == ["a", "b"]
    x, labels = load_samples(path, ["length"], "kind")
    np.testing.assert_array_equal(x, [[2], [4]])
    assert labels is None
    with pytest.raises(DatasetError, match="no column 'petals'"):
        load_samples(path, ["petals"])
