"""Two builds of the package from one checkout: a commit, and the working tree with its uncommitted changes.

Each is exported to a folder and installed from there into a folder of its own. The libraries they run on are those of this Python:
only the package differs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from mlp_accel.errors import MlpAccelError, SettingError


class BuildError(MlpAccelError):
    """A build could not be made; the message names it and ends with what the builder said."""


def repository_root(folder: Path) -> Path:
    """The top of the git checkout that `folder` is in, whatever it holds.

    Raises
    ------
    SettingError
        If there is none.
    """
    try:
        return Path(_git(folder, "rev-parse", "--show-toplevel"))
    except FileNotFoundError as error:
        raise SettingError("git is not installed; without it there is no base to compare with") from error
    except subprocess.CalledProcessError as error:
        raise SettingError(f"{folder} is not in a git checkout; run this in one ({_said(error)})") from error


def checkout_root(folder: Path) -> Path:
    """The top of the git checkout of mlp_accel that `folder` is in.

    Raises
    ------
    SettingError
        If there is none.
    """
    root = repository_root(folder)
    if not (root / "mlp_accel" / "__init__.py").is_file() or not (root / "pyproject.toml").is_file():
        raise SettingError(f"{root} is no checkout of mlp_accel: it has no mlp_accel/__init__.py or no pyproject.toml")
    return root


def resolve(root: Path, ref: str) -> str:
    """The commit that `ref` names.

    Raises
    ------
    SettingError
        If it names none.
    """
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise SettingError(f"{ref!r} from --base names no commit here; give a branch, a tag or a commit that git knows") from error


def has_file(root: Path, commit: str, path: str) -> bool:
    """Whether `commit` holds the file `path`."""
    try:
        _git(root, "cat-file", "-e", f"{commit}:{path}")
    except subprocess.CalledProcessError:
        return False
    return True


def export_commit(root: Path, commit: str, target: Path) -> None:
    """Write the files of `commit` to the new folder `target`."""
    target.mkdir()
    index = {"GIT_INDEX_FILE": str(target.with_suffix(".index"))}  # not the user's
    _git(root, "read-tree", commit, **index)
    _git(root, "checkout-index", "--all", f"--prefix={target}/", **index)


def export_working_tree(root: Path, target: Path) -> None:
    """Copy the files of the working tree to the new folder `target`: changed and new ones too, but not those that git ignores."""
    target.mkdir()
    for name in _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        source = root / name
        if source.is_file():  # not if it was deleted
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)


def install(source: Path, target: Path) -> None:
    """Install the package in `source` into the folder `target`, without what it depends on.

    Raises
    ------
    BuildError
        If that fails.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    process = subprocess.Popen(
        [*command, "--target", str(target), str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(source.parent)},  # what it leaves goes when that goes
        process_group=0,
    )
    try:
        output, _ = process.communicate()
    finally:
        with suppress(ProcessLookupError):  # Ctrl-C: it, and the processes that it has started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise BuildError(f"pip install of {source.name} failed: {' / '.join(output.strip().splitlines()[-3:])}")


def _git(folder: Path, *arguments: str, **environment: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return result.stdout.removesuffix("\n")


def _said(error: subprocess.CalledProcessError) -> str:
    return str(error.stderr).strip() or f"git exited with status {error.returncode}"
