"""Where results are kept: a folder of result files, or a branch of a git repository that holds nothing else.

Files are added, never changed, so that any number of machines may add to one store.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from mlp_accel.bench.history.git import git, git_text, repository, said
from mlp_accel.bench.result_files import parse_result
from mlp_accel.bench.results import Result
from mlp_accel.errors import OutputError, SettingError
from mlp_accel.files import check_writable, write_text

BRANCH = "git:"
"""What the name of a store begins with that is a branch."""

NO_COMMIT = "0" * 40


class FolderStore:
    """Results in the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self) -> None:
        """Make sure that a result can be added; a folder that is not there is made."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot record in {self.folder}: {error.strerror or error}") from error
        check_writable(self.folder / "result.json")

    def add(self, result: Result) -> str:
        """Write one more file; says where."""
        path = self.folder / file_name(result)
        write_text(path, as_text(result))
        return str(path)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file: where it is and what is in it."""
        if not self.folder.is_dir():
            raise SettingError(f"there is no folder {self.folder}; `mlp-accel bench --record FOLDER` makes one")
        for path in sorted(self.folder.rglob("*.json")):
            try:
                content = path.read_bytes()
            except OSError as error:
                raise SettingError(f"{path}: cannot be read: {error.strerror or error}") from error
            yield str(path), content


class BranchStore:
    """Results in the files of a branch. The working tree and the index are not touched."""

    def __init__(self, branch: str, folder: Path) -> None:
        root = repository(folder)
        if root is None:
            raise SettingError(f"{folder} is in no git repository: there is no branch {branch!r} to keep results in")
        self.root, self.branch = root, branch

    def check(self) -> None:
        """Make sure that a result can be added: it can be a branch's name, it is not checked out, and git knows who commits."""
        checked_out = git_text(self.root, "worktree", "list", "--porcelain").splitlines()
        if f"branch refs/heads/{self.branch}" in checked_out:
            raise OutputError(f"cannot record in the branch {self.branch!r}: it is checked out; name one that holds results alone")
        try:
            git(self.root, "check-ref-format", "--branch", self.branch)
            git(self.root, "var", "GIT_COMMITTER_IDENT")
        except subprocess.CalledProcessError as error:
            raise OutputError(f"cannot record in the branch {self.branch!r}: {said(error)}") from error

    def add(self, result: Result) -> str:
        """Commit one more file; says where. Another one that was added meanwhile is kept."""
        name = file_name(result)
        for attempt in (1, 2, 3):
            try:
                self._commit(name, as_text(result).encode())
                return f"{BRANCH}{self.branch}:{name}"
            except subprocess.CalledProcessError as error:
                if attempt == 3:
                    raise OutputError(f"cannot record in the branch {self.branch!r}: {said(error)}") from error
        raise AssertionError

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file: where it is and what is in it."""
        try:
            named = ("rev-parse", "--verify", "--end-of-options", f"{self.branch}^{{commit}}")
            archive = git(self.root, "archive", "--format=tar", git_text(self.root, *named))
        except subprocess.CalledProcessError as error:
            raise SettingError(f"there is no branch {self.branch!r} in {self.root} ({said(error)})") from error
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if member.name.endswith(".json") and file is not None:
                    yield f"{BRANCH}{self.branch}:{member.name}", file.read()

    def _commit(self, name: str, content: bytes) -> None:
        reference = f"refs/heads/{self.branch}"
        parent = git_text(self.root, "for-each-ref", "--format=%(objectname)", reference)
        blob = git(self.root, "hash-object", "-w", "--stdin", content=content).decode().strip()
        with tempfile.TemporaryDirectory() as folder:
            index = str(Path(folder) / "index")  # not the user's
            git(self.root, "read-tree", *([parent] if parent else ["--empty"]), GIT_INDEX_FILE=index)
            git(self.root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", GIT_INDEX_FILE=index)
            tree = git(self.root, "write-tree", GIT_INDEX_FILE=index).decode().strip()
        parents = ("-p", parent) if parent else ()
        commit = git_text(self.root, "commit-tree", tree, *parents, "-m", f"Result {name}")
        git(self.root, "update-ref", reference, commit, parent or NO_COMMIT)


Store = FolderStore | BranchStore


def find_store(name: str, folder: Path | None = None) -> Store:
    """The store of that name: ``git:BRANCH`` in the repository of `folder` (this one by default), or else a folder."""
    if name.startswith(BRANCH):
        return BranchStore(name.removeprefix(BRANCH), folder or Path.cwd())
    return FolderStore(Path(name))


def read_results(store: Store) -> tuple[list[Result], list[str]]:
    """The results of a store, and for each file that is none, why."""
    results, problems = [], []
    for where, content in store.files():
        try:
            results.append(parse_result(content, where))
        except ValueError as error:
            problems.append(str(error))
    return results, problems


def file_name(result: Result) -> str:
    """Date and commit of a result, and what makes it the only one of that name."""
    date = "".join(char for char in str(result.environment.get("date", "")) if char.isalnum())[:15]
    commit = str(result.environment.get("commit") or "no-commit")[:10]
    return f"{date or 'undated'}-{commit}-{uuid.uuid4().hex[:6]}.json"


def as_text(result: Result) -> str:
    """The result file."""
    return json.dumps(result.to_dict(), allow_nan=False) + "\n"
