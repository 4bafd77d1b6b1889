"""What is asked of git: commits in their order, and a branch that holds result files."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlp_accel.errors import SettingError

PACKAGE = ("mlp_accel", "pyproject.toml")
"""What a build is made of: commits that do not touch it are equally fast."""

HASH = re.compile("[0-9a-f]{40,64}")


@dataclass(frozen=True)
class Commit:
    """A commit: its hash, its subject, and what names the contents of the package in it."""

    hash: str
    subject: str
    package: str

    @property
    def label(self) -> str:
        """The hash as people write it."""
        return self.hash[:10]


def git(root: Path, *arguments: str, content: bytes = b"", **environment: str) -> bytes:
    """What a git command says.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.
    SettingError
        If there is no git.
    """
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, input=content, capture_output=True, check=True, env={**os.environ, **environment})
    except FileNotFoundError as error:
        raise SettingError("git is not installed; without it there are no commits") from error
    return done.stdout


def git_text(root: Path, *arguments: str) -> str:
    """`git`, as text without the last line break."""
    return git(root, *arguments).decode(errors="replace").removesuffix("\n")


def commits_in(root: Path, text: str, option: str) -> list[Commit]:
    """The commits of a range such as ``v1..main``, the first one included, oldest first, along the first parents.

    Raises
    ------
    SettingError
        If it names no such range; names the option.
    """
    first, dots, last = text.partition("..")
    if not dots or not first or last.startswith("."):
        raise SettingError(f"{text!r} from {option} is no range of commits; write for example v1..main")
    return commits_between(root, first, last or "HEAD", (option, option))


def commits_between(root: Path, first: str, last: str, options: tuple[str, str]) -> list[Commit]:
    """The commits from `first` to `last`, both included, oldest first, along the first parents."""
    ends = [_resolved(root, ref, option) for ref, option in zip((first, last), options, strict=True)]
    try:
        git(root, "merge-base", "--is-ancestor", *ends)
    except subprocess.CalledProcessError as error:
        raise SettingError(f"{first!r} from {options[0]} is no ancestor of {last!r} from {options[1]}") from error
    listed = git_text(root, "log", "--first-parent", "--reverse", "--format=%H", f"{ends[0]}..{ends[1]}").split()
    return [_commit(root, name) for name in (ends[0], *listed)]


def order_of(root: Path | None, hashes: Sequence[str]) -> dict[str, int] | None:
    """The position of each commit among all, parents first; None if there is no checkout here, or it does not know one of them."""
    if root is None or not all(HASH.fullmatch(name) for name in hashes):
        return None
    try:
        listed = git_text(root, "rev-list", "--topo-order", "--reverse", *hashes).split() if hashes else []
    except subprocess.CalledProcessError:
        return None
    return {name: position for position, name in enumerate(listed)}


def repository(folder: Path) -> Path | None:
    """The top of the git repository that `folder` is in, if it is in one."""
    try:
        return Path(git_text(folder, "rev-parse", "--show-toplevel"))
    except (subprocess.CalledProcessError, SettingError):
        return None


def said(error: subprocess.CalledProcessError) -> str:
    """Why a command of git has failed."""
    return error.stderr.decode(errors="replace").strip() or f"git exited with status {error.returncode}"


def _resolved(root: Path, ref: str, option: str) -> str:
    try:
        return git_text(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise SettingError(
            f"{ref!r} from {option} names no commit here; give a branch, a tag or a commit that git knows"
        ) from error


def _commit(root: Path, name: str) -> Commit:
    subject = git_text(root, "log", "-1", "--format=%s", name)
    return Commit(name, subject, git_text(root, "ls-tree", name, *PACKAGE))
