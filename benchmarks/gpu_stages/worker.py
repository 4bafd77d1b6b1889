"""The processes that measure: one that crashes, hangs or breaks its GPU context costs the row it was at, and no other.

Rows of one framework follow each other in one process: to start one takes seconds of a GPU's time. After a row that has failed
a new process is started; if the old one had measured other rows before, the row is tried once more in the new one.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gpu_stages.rows import Plan, UnavailableError, finished_row, say

Answer = tuple[str, str | None, dict[str, Any]]
"""Status, reason and fields of a row."""

LEAST_SECONDS = 5.0
"""With less time than this a row is not begun: to start a process takes as long."""

NOT_BEGUN = "not begun: the time of the stage is up"


class Workers:
    """Measures rows, each for a limited time.

    Parameters
    ----------
    log : Path
        What the processes and their children print is added to this file at once.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._worker: _Worker | None = None

    def run(self, plan: Plan, left: float) -> dict[str, Any]:
        """The finished row; `left` are the seconds that its stage still has."""
        end = time.monotonic() + min(plan.limit, left)
        if left < LEAST_SECONDS:
            return finished_row(plan, "failed", NOT_BEGUN, {})
        used = self._worker is not None and self._worker.framework == plan.framework
        status, reason, fields = self._measure(plan, end)
        if status == "failed" and used and end - time.monotonic() > LEAST_SECONDS:
            before = reason
            status, reason, fields = self._measure(plan, end)  # in a new process: the fault may be that of a row before
            fields = {**fields, "failed_before": f"in a process that had measured other rows: {before}"}
        return finished_row(plan, status, reason, fields)

    def _measure(self, plan: Plan, end: float) -> Answer:
        if self._worker is None or self._worker.framework != plan.framework:
            self.end()
            self._worker = _Worker(plan.framework, self._log)
        answer = self._worker.measure(plan, end)
        if answer[0] == "failed":
            self.end()
        return answer

    def end(self) -> None:
        """End the process, and what it has started."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


class _Worker:
    def __init__(self, framework: str, log: Path) -> None:
        self.framework = framework
        context = multiprocessing.get_context("spawn")
        self._answers, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, str(log), os.getpid()))
        self._process.start()
        theirs.close()

    def measure(self, plan: Plan, end: float) -> Answer:
        seconds = max(0.0, end - time.monotonic())
        try:
            self._answers.send(plan)
            if not self._answers.poll(seconds):
                return "failed", f"stopped after {seconds:.0f} s", {}
            answer: Answer = self._answers.recv()
            return answer
        except (EOFError, OSError):
            self._process.join(timeout=5)
            return "failed", f"the process died ({_cause(self._process.exitcode)})", {}

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)  # what it has started, too
        self._process.kill()
        self._process.join(timeout=10)  # one that waits for a GPU may not end at once; nobody waits for it longer
        self._answers.close()


def _cause(code: int | None) -> str:
    if code is None:
        return "and does not end"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _serve(rows: Connection, log: str, parent: int) -> None:
    """The process itself: measures what it is sent."""
    os.setpgrp()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    while True:
        try:
            plan: Plan = rows.recv()
        except EOFError:
            return
        say(f"--- {plan.label}")
        rows.send(_measured(plan))
        _free_memory()


def _end_with(parent: int) -> None:
    """End this process and its children when the parent is gone, however that was ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def _measured(plan: Plan) -> Answer:
    try:
        fields = plan.measure(**plan.arguments)
        mismatch = fields.pop("mismatch", None)
        if not all(map(math.isfinite, fields.get("loss", []))):
            mismatch = mismatch or "a loss is not finite"
        return "mismatch" if mismatch else "ok", mismatch, fields
    except (UnavailableError, ModuleNotFoundError) as error:
        return "unavailable", str(error), {}
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        return "failed", f"{type(error).__name__}: {lines[0] if lines else 'no message'}", {}


def _free_memory() -> None:
    """What a row has left behind must not be what the next one lacks. A context that is dead shows in the next row."""
    with suppress(Exception):
        gc.collect()
        if "cupy" in sys.modules:
            sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
