"""The program that tries a path: two steps by the path and by the loop, in a process that nobody else needs.

``python -m mlp_accel.backends.cupy.trial`` reads a request from standard input, as `mlp_accel.backends.cupy.verdicts` writes it,
and answers with a line of JSON: ``problem`` is what is wrong with the path, or null; ``refused`` is why it could not be tried here.
A line before it says that the trial has begun. Whatever the path does, hang or break the GPU's context, it does to this process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from typing import Any

from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.backends.cupy.paths.base import FusedPath, problem_of
from mlp_accel.backends.cupy.portable import unpacked
from mlp_accel.backends.cupy.probe import first_line
from mlp_accel.backends.cupy.verdicts import BEGUN
from mlp_accel.errors import DeviceMemoryError


def main() -> None:
    """Read the request, answer it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    request = json.load(sys.stdin)
    faulthandler.enable()
    faulthandler.dump_traceback_later(request["seconds_to_start"], exit=True)
    answer = _answer(request, answers)
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    os._exit(0)  # a context that is dead may hang when it is cleared up


def _answer(request: dict[str, Any], answers: Any) -> dict[str, str | None]:
    try:
        backend = CupyBackend(request["dtype"], request["device"], request["tf32"])
        backend.to_numpy(backend.empty((1,)))  # whether this process gets a context
        task, path = unpacked(request["task"]), backend.path_named(request["path"])
    except Exception as error:  # nothing of the path has run yet
        return {"refused": first_line(error)}
    assert isinstance(path, FusedPath)
    path.passed_over = frozenset(request["passed_over"])
    answers.write(BEGUN + "\n")
    answers.flush()
    faulthandler.dump_traceback_later(request["seconds_to_try"], exit=True)
    try:
        return {"problem": problem_of(path, task)}
    except DeviceMemoryError as error:
        return {"refused": first_line(error)}


if __name__ == "__main__":
    main()
