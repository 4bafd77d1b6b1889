"""Whether a path can be trusted on a GPU: tried in a process of its own before it is first used, and kept on disk.

A kernel that reads where it must not, or that hangs, takes the whole context of its process with it, and no exception can be
caught. So the trial is run by ``python -m mlp_accel.backends.cupy.trial``. Only where that gets no context of its own (a GPU in
exclusive mode, or with too little memory) is the path tried in this process, which is said.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlp_accel.backends.kept_answers import answer_file, keep_answer, read_answer, warn_damaged
from mlp_accel.errors import DeviceMemoryError

FOLDER = "cupy-trials"

SECONDS_TO_START, SECONDS_TO_TRY = 120.0, 60.0
"""Limits for starting the process, and for compiling the kernels and two steps by them. Both are some ten times what they take."""

BEGUN = "begun"
"""The line by which the process says that it has a context, and that what comes now is the path's doing."""

NEVER_ENDED = "its trial in the training's own process never ended"

logger = logging.getLogger("mlp_accel")


@dataclass(frozen=True)
class Verdict:
    """What a trial has found.

    Attributes
    ----------
    problem : str or None
        What is wrong with the path: the end of a sentence that begins with its name.
    where : str
        In words, where it was tried.
    """

    problem: str | None
    where: str = "in a process of its own"


def verdict(name: str, subject: dict[str, Any], request: dict[str, Any], try_here: Callable[[], str | None]) -> Verdict:
    """The verdict on a path that is kept on disk or, if there is none, that of a trial.

    Parameters
    ----------
    name : str
        Of the path, for messages.
    subject : dict
        All that the verdict depends on, in types that JSON knows.
    request : dict
        What the other process is told to try: see `mlp_accel.backends.cupy.trial`.
    try_here : callable
        The trial in this process: returns the problem, or None.
    """
    file = _file(subject)
    found = _kept(file)
    if found is None:
        logger.info("the path %s is tried for the first time on this GPU", name)
        try:
            found = Verdict(tried_elsewhere(request))
        except RefusedError as refused:
            found = _tried_here(name, file, subject, str(refused), try_here)
        _keep(file, subject, found)
    if found.problem is None or file is None:
        return found
    return Verdict(f"{found.problem} (kept in {file}; without that file it is tried again)", found.where)


class RefusedError(Exception):
    """The path could not be tried in another process; the message says why."""


def tried_elsewhere(request: dict[str, Any]) -> str | None:
    """Try a path in a process of its own; the problem, or None.

    Raises
    ------
    RefusedError
        If that process did not come so far.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        raise RefusedError("there is no Python to start it with")
    command = [sys.executable, "-P", "-m", f"{__package__}.trial"]
    limits = {"seconds_to_start": SECONDS_TO_START, "seconds_to_try": SECONDS_TO_TRY}
    path = filter(None, (str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        process = subprocess.Popen(command, env=environment, text=True, errors="replace", **pipes)
    except OSError as error:
        raise RefusedError(f"it cannot be started: {error}") from error
    try:
        output, errors = process.communicate(json.dumps({**request, **limits}), SECONDS_TO_START + SECONDS_TO_TRY + 10)
    except subprocess.TimeoutExpired:  # it should have ended itself
        output, errors = BEGUN, "Timeout"
    finally:
        process.kill()
        with suppress(subprocess.TimeoutExpired, OSError):  # a process that hangs in a GPU's driver may not end
            process.wait(timeout=10)
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                pipe.close()
    return _problem(output.splitlines(), errors.strip(), process.poll())


def _problem(lines: list[str], errors: str, code: int | None) -> str | None:
    """What the output of the other process means."""
    answer = json.loads(lines[-1]) if code == 0 and lines and lines[-1] != BEGUN else {}
    if "problem" in answer:
        problem: str | None = answer["problem"]
        return problem
    if BEGUN not in lines or "refused" in answer:
        words = errors.splitlines()[-1] if errors else f"exit status {code}"
        raise RefusedError(answer.get("refused", f"it did not start ({words})"))
    if "Timeout" in errors:
        return f"it hangs: two steps did not end within {SECONDS_TO_TRY:.0f} s"
    return f"it fails: its trial ended with {f'signal {-code}' if code and code < 0 else f'exit status {code}'}"


def _tried_here(name: str, file: Path | None, subject: dict[str, Any], why: str, try_here: Callable[[], str | None]) -> Verdict:
    """Try it in this process. Should that never end, the next process finds it on disk."""
    logger.warning(
        "the path %s is tried in this process, where a fault of it would be fatal, and not in one of its own: %s", name, why
    )
    where = f"in the training's own process, since another one was refused: {why}"
    _keep(file, subject, Verdict(NEVER_ENDED, where))
    try:
        return Verdict(try_here(), where)
    except DeviceMemoryError:
        if file is not None:
            file.unlink(missing_ok=True)  # it says nothing about the path
        raise
    except Exception as error:
        _keep(file, subject, Verdict(str(error), where))
        raise


@cache
def _sources() -> str:
    """A hash of this folder: host and kernels."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*")):
        if file.suffix in (".py", ".cu", ".cuh"):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _file(subject: dict[str, Any]) -> Path | None:
    """Where the verdict is kept; None if nowhere."""
    return answer_file(FOLDER, [subject, _sources()], "paths are tried at every start, because the verdicts cannot be kept")


def _kept(file: Path | None) -> Verdict | None:
    content = read_answer(file)
    if file is None or content is None:
        return None
    try:
        return Verdict(content["problem"], content["where"])
    except KeyError as error:
        warn_damaged(file, error)
        return None


def _keep(file: Path | None, subject: dict[str, Any], found: Verdict) -> None:
    keep_answer(file, {"problem": found.problem, "where": found.where, **subject}, "the verdict on a path")
