"""Exports and builds of a checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlp_accel.bench.gate.builds import (
    BuildError,
    checkout_root,
    export_commit,
    export_working_tree,
    has_file,
    install,
    resolve,
)
from mlp_accel.errors import SettingError


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the outline of the project, and one commit."""
    root = tmp_path / "checkout"
    (root / "mlp_accel").mkdir(parents=True)
    (root / "mlp_accel" / "__init__.py").write_text("committed\n")
    (root / "mlp_accel" / "deleted.py").write_text("")
    (root / "pyproject.toml").write_text("[project]\nname = 'mlp-accel'\nversion = '0'\n")
    (root / ".gitignore").write_text("ignored\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "first")
    return root


def test_a_commit_is_exported_as_it_was(checkout: Path, tmp_path: Path) -> None:
    (checkout / "mlp_accel" / "__init__.py").write_text("changed\n")
    git(checkout, "add", "-A")
    status = subprocess.run(["git", "-C", str(checkout), "status", "--porcelain"], capture_output=True, check=True).stdout
    export_commit(checkout, resolve(checkout, "main"), tmp_path / "base")
    assert (tmp_path / "base" / "mlp_accel" / "__init__.py").read_text() == "committed\n"
    assert (tmp_path / "base" / "pyproject.toml").is_file()
    after = subprocess.run(["git", "-C", str(checkout), "status", "--porcelain"], capture_output=True, check=True).stdout
    assert status == after, "the user's index was touched"


def test_the_working_tree_is_exported_with_its_changes(checkout: Path, tmp_path: Path) -> None:
    (checkout / "mlp_accel" / "__init__.py").write_text("changed\n")
    (checkout / "mlp_accel" / "new ü.py").write_text("")
    (checkout / "mlp_accel" / "deleted.py").unlink()
    (checkout / "ignored").write_text("")
    export_working_tree(checkout, tmp_path / "head")
    assert (tmp_path / "head" / "mlp_accel" / "__init__.py").read_text() == "changed\n"
    assert sorted(path.name for path in (tmp_path / "head" / "mlp_accel").iterdir()) == ["__init__.py", "new ü.py"]
    assert not (tmp_path / "head" / "ignored").exists()


def test_what_a_commit_holds_can_be_asked(checkout: Path) -> None:
    (checkout / "mlp_accel" / "new.py").write_text("")
    assert has_file(checkout, "main", "mlp_accel/__init__.py")
    assert not has_file(checkout, "main", "mlp_accel/new.py"), "it is not committed"


def test_a_folder_in_the_checkout_finds_its_root(checkout: Path) -> None:
    assert checkout_root(checkout / "mlp_accel") == checkout


def test_what_is_no_checkout_is_named(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="is not in a git checkout"):
        checkout_root(tmp_path)
    git(checkout, "rm", "-q", "-r", "mlp_accel")
    with pytest.raises(SettingError, match="is no checkout of mlp_accel"):
        checkout_root(checkout)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingError, match="git is not installed"):
        checkout_root(checkout)


@pytest.mark.parametrize("ref", ["nowhere", "--help", "", "main:pyproject.toml", "main..main"])
def test_an_unknown_commit_is_named(checkout: Path, ref: str) -> None:
    with pytest.raises(SettingError, match=f"{ref!r} from --base names no commit"):
        resolve(checkout, ref)


def test_a_build_that_fails_says_why_and_leaves_nothing_elsewhere(checkout: Path, tmp_path: Path) -> None:
    (checkout / "pyproject.toml").write_text("this is no TOML")
    with pytest.raises(BuildError, match=r"pip install of checkout failed: .*TOML"):
        install(checkout, tmp_path / "build")
