"""The file of results: whole lines, none twice, one writer, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mlp_accel import OutputError
from mlp_accel.tune.journal import Journal, JournalError, key


def row(seed: int, **others: Any) -> dict[str, Any]:
    return {
        "settings": {"hidden": [8]},
        "seed": seed,
        "validation": 0.1,
        "data": "abc",
        "status": "done",
        "accuracy": 0.5,
        **others,
    }


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "tune.jsonl"
    with Journal(path) as journal:
        assert journal.append([row(0), row(1)]) == [row(0), row(1)]
        assert path.read_bytes().count(b"\n") == 2  # at once
    with Journal(path) as journal:
        assert list(journal.rows.values()) == [row(0), row(1)]


def test_a_result_is_not_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "tune.jsonl"
    with Journal(path) as journal:
        journal.append([row(0), row(0)])
        assert journal.append([row(0), row(2)]) == [row(2)]
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("change", [{"seed": 1}, {"fold": 0}, {"data": "x"}, {"validation": 0.2}, {"settings": {"hidden": [9]}}])
def test_what_makes_a_result_another_one_is_in_its_key(change: dict[str, Any]) -> None:
    assert key({**row(0), **change}) != key(row(0))
    assert key({**row(0), "accuracy": 0.9, "worker": "x"}) == key(row(0))


def test_a_line_that_was_cut_off_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "tune.jsonl"
    whole = json.dumps(row(0)) + "\n"
    path.write_text(whole + json.dumps(row(1))[:40])
    with Journal(path) as journal:
        assert list(journal.rows.values()) == [row(0)]
        journal.append([row(1)])
    assert path.read_text() == whole + json.dumps(row(1)) + "\n"


@pytest.mark.parametrize("text", ["hello\n", "hello", "[1]\n", '{"a": 1}\n', '{"settings": {}, "status": "lost"}\n'])
def test_another_file_is_refused_and_stays_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(JournalError, match=r"notes\.txt"):
        Journal(path)
    assert path.read_text() == text


def test_only_one_search_writes(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "tune.jsonl"
    with Journal(path), pytest.raises(JournalError, match="another search"):
        Journal(path)
    with Journal(path):
        pass


def test_on_a_full_disk_the_file_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tune.jsonl"
    real = os.write
    with Journal(path) as journal:
        journal.append([row(0)])
        before = path.read_bytes()

        def full(file: int, data: bytes) -> int:
            if len(data) < 30:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(file, data[: len(data) - 20])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OutputError, match="No space left"):
            journal.append([row(1), row(2)])
        assert path.read_bytes() == before
        monkeypatch.undo()
        assert journal.append([row(1)]) == [row(1)]
    assert len(path.read_text().splitlines()) == 2


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        Journal(tmp_path)
