"""Results that are kept: in a folder and in a branch, by any number of machines, and nothing else of the user is touched."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlp_accel.bench.config import Config
from mlp_accel.bench.history.git import commits_between, commits_in, order_of, repository
from mlp_accel.bench.history.store import BRANCH, BranchStore, find_store, read_results
from mlp_accel.bench.results import Result, Run, Summary
from mlp_accel.errors import MlpAccelError, OutputError, SettingError

IDENTITY = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "tests"), ("EMAIL", "t@t"))}


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with three commits: of the second the package is the same as of the first."""
    folder = tmp_path / "repository"
    (folder / "mlp_accel").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for name, path, text in (("first", "mlp_accel/a.py", "1"), ("second", "notes", "2"), ("third", "mlp_accel/a.py", "3")):
        (folder / path).write_text(text)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", name)
        git(folder, "tag", name)
    return folder


def result(commit: str = "f" * 40, seconds: float = 1.0, **environment: Any) -> Result:
    run = Run(name="numpy", path="loop", status="ok", epoch_seconds=Summary.of([seconds] * 5))
    about = {"date": "2026-01-02T03:04:05+00:00", "cpu": "a CPU", "commit": commit, "dirty": False, **environment}
    return Result(environment=about, config=Config(), results=(run,))


@pytest.mark.parametrize("kind", ["folder", "branch"])
def test_what_is_added_is_read_again(root: Path, tmp_path: Path, kind: str) -> None:
    name = f"{BRANCH}speed" if kind == "branch" else str(tmp_path / "new" / "results")
    before = (git(root, "status", "--porcelain"), git(root, "rev-parse", "main"), git(root, "ls-files"))
    for seconds in (1.0, 2.0):
        store = find_store(name, root)
        store.check()
        where = store.add(result(seconds=seconds))
        assert "20260102T030405-ffffffffff-" in where
    results, problems = read_results(find_store(name, root))
    assert sorted(found.results[0].epoch_seconds.median for found in results if found.results[0].epoch_seconds) == [1, 2]
    assert problems == []
    assert before == (git(root, "status", "--porcelain"), git(root, "rev-parse", "main"), git(root, "ls-files"))


def test_two_that_add_to_one_branch_at_once_both_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = find_store(f"{BRANCH}speed", root)
    store.add(result(seconds=1.0))
    plain, once = BranchStore._commit, [True]

    def disturbed(self: Any, name: str, content: bytes) -> None:
        if once:
            once.clear()
            plain(self, "other.json", content)
            raise subprocess.CalledProcessError(1, "git update-ref", stderr=b"it moved")
        plain(self, name, content)

    monkeypatch.setattr(BranchStore, "_commit", disturbed)
    store.add(result(seconds=3.0))
    assert len(read_results(store)[0]) == 3


def test_a_file_that_is_no_result_is_left_out_with_the_reason(tmp_path: Path) -> None:
    store = find_store(str(tmp_path))
    store.add(result())
    (tmp_path / "foreign.json").write_text('{"schema": 9}')
    results, (problem,) = read_results(store)
    assert len(results) == 1
    assert "foreign.json: has the schema 9" in problem


def test_a_store_that_cannot_be_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no folder"):
        read_results(find_store(str(tmp_path / "nowhere")))
    with pytest.raises(SettingError, match="no branch 'nowhere'"):
        read_results(find_store(f"{BRANCH}nowhere", root))
    with pytest.raises(SettingError, match="in no git repository"):
        find_store(f"{BRANCH}speed", tmp_path)
    (tmp_path / "folder" / "a.json").mkdir(parents=True)
    with pytest.raises(SettingError, match=r"a\.json: cannot be read"):
        read_results(find_store(str(tmp_path / "folder")))
    (tmp_path / "file").write_text("")
    for name, words in (
        (str(tmp_path / "file"), "cannot record in"),
        (f"{BRANCH}main", "checked out"),
        (f"{BRANCH}a..b", "'a..b'"),
    ):
        with pytest.raises(OutputError, match=words):
            find_store(name, root).check()


def test_git_that_does_not_know_who_commits_says_so(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in IDENTITY:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    git(root, "config", "user.useConfigOnly", "true")
    with pytest.raises(OutputError, match=r"(?s)cannot record in the branch 'speed'.*user\.email"):
        find_store(f"{BRANCH}speed", root).check()


# Commits -----------------------------------------------------------------------------------------------------------------------


def test_commits_come_oldest_first_with_what_their_package_is(root: Path) -> None:
    found = commits_in(root, "first..main", "--commits")
    assert [commit.subject for commit in found] == ["first", "second", "third"]
    assert found[0].package == found[1].package != found[2].package
    assert commits_between(root, "third", "third", ("--good", "--bad"))[0].hash.startswith(found[2].label)
    assert order_of(root, [commit.hash for commit in found]) == {commit.hash: i for i, commit in enumerate(found)}


def test_commits_of_elsewhere_have_no_order(root: Path) -> None:
    for name in ("f" * 40, "--all", "main"):
        assert order_of(root, [name]) is None
    assert order_of(None, []) is None
    assert repository(root / "mlp_accel") == root


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("first", "is no range of commits; write for example v1..main"),
        ("..main", "is no range"),
        ("first...main", "is no range"),
        ("nowhere..main", "'nowhere' from --commits names no commit"),
        ("third..first", "'third' from --commits is no ancestor of 'first'"),
        ("--help..main", "'--help' from --commits names no commit"),
    ],
)
def test_a_range_that_is_none_is_named(root: Path, text: str, words: str) -> None:
    with pytest.raises(MlpAccelError, match=words):
        commits_in(root, text, "--commits")
