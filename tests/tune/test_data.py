"""Which samples train and which judge, and how workers find them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_accel import SettingError
from mlp_accel.tune.data import Source, Split, UnfitWorkerError, find, fingerprint, shared


@given(labels=st.lists(st.integers(0, 3), min_size=8, max_size=60), folds=st.integers(2, 5), seed=st.integers(0, 9))
def test_every_sample_judges_in_one_fold_and_classes_are_dealt_alike(labels: list[int], folds: int, seed: int) -> None:
    y, split = np.array(labels), Split(None, folds, seed)
    parts = [split.rows(y, part) for part in split.parts]
    assert sorted(np.concatenate([judge for _, judge in parts])) == list(range(len(y)))
    for train, judge in parts:
        assert sorted([*train, *judge]) == list(range(len(y)))
    for label in set(labels):
        counts = [int((y[judge] == label).sum()) for _, judge in parts]
        assert max(counts) - min(counts) <= 1


@given(labels=st.lists(st.integers(0, 3), min_size=20, max_size=60), share=st.floats(0.1, 0.9))
def test_a_share_is_kept_out_of_each_class_alike(labels: list[int], share: float) -> None:
    y = np.array(labels)
    train, judge = Split(share).rows(y, None)
    assert sorted([*train, *judge]) == list(range(len(y)))
    for label in set(labels):
        assert (y[judge] == label).sum() == pytest.approx(share * (y == label).sum(), abs=1)


def test_the_split_is_known_by_its_seed() -> None:
    y = np.arange(100) % 3
    one, same, other = (Split(0.2, seed=seed).rows(y, None)[1].tolist() for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize("settings", [(0.0,), (1.0,), (None,), (None, 1)])
def test_a_split_that_cannot_be_is_refused(settings: Any) -> None:
    with pytest.raises(SettingError):
        Split(*settings)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(SettingError, match="is none of them"):
        Split(0.1).rows(np.array([0, 1]), None)


def test_workers_of_this_host_map_the_same_files(clouds: Path) -> None:
    with shared(str(clouds)) as source:
        x, y = find(source)
        assert isinstance(x, np.memmap)
        assert (source.shape, source.n_classes) == (x.shape, int(y.max()) + 1)
        assert source.fingerprint == fingerprint(x, y)
        folder = Path(source.folder)
    assert not folder.exists()


def test_workers_of_other_hosts_read_the_same_data_by_name(clouds: Path) -> None:
    with shared(str(clouds)) as source:
        pass
    x, y = find(source)
    assert fingerprint(x, y) == source.fingerprint


def test_other_data_under_the_same_name_are_noticed(clouds: Path) -> None:
    with pytest.raises(UnfitWorkerError, match="other data"):
        find(Source(str(clouds), "/nowhere", "0123456789abcdef", (600, 8), 3))


def test_data_from_memory_cannot_be_had_on_another_host() -> None:
    with pytest.raises(UnfitWorkerError, match="give a file or folder"):
        find(Source(None, "/nowhere", "0123456789abcdef", (600, 8), 3))
    with pytest.raises(UnfitWorkerError, match="cannot be read"):
        find(Source("/nowhere.npz", "/nowhere", "0123456789abcdef", (600, 8), 3))


@pytest.mark.parametrize("change", ["value", "label", "shape", "dtype"])
def test_the_fingerprint_tells_data_apart(change: str) -> None:
    x, y = np.arange(12, dtype=np.uint8).reshape(4, 3), np.array([0, 1, 0, 1])
    before = fingerprint(x, y)
    if change == "value":
        x = x.copy()
        x[0, 0] = 9
    elif change == "label":
        y = y[::-1]
    elif change == "shape":
        x = x.reshape(3, 4)
    else:
        x = x.astype(np.float32)
    assert fingerprint(x, y) != before
