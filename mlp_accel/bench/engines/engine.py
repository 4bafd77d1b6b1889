"""The parent's handle of a worker process. A crash, a hang or an error in it fails this engine only.

A worker leads a process group, which its children belong to: they are stopped, go on and end with it.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

CALL_TIMEOUT = 900.0
"""Seconds after which a call counts as hung, unless the engine was given another number."""


@functools.cache
def _starter() -> ThreadPoolExecutor:
    """The thread that starts workers, and lives as long as this process: Linux ends them with the thread that has started them."""
    return ThreadPoolExecutor(1, "mlp-accel-engines")


class EngineError(Exception):
    """The engine is lost. `status` is ``"unavailable"`` or ``"failed"``; `refused` if what failed is a setting or a size."""

    def __init__(self, status: str, reason: str, refused: bool = False) -> None:
        self.status, self.reason, self.refused = status, reason, refused
        super().__init__(f"{status}: {reason}")


class Engine:
    """A worker process that computes only while it is asked to: between calls it is stopped, spinning threads and all.

    Parameters
    ----------
    command : list of str, optional
        What to run as the worker.
    timeout : float
        Seconds after which a call counts as hung.
    variables : mapping of str to str, optional
        Environment variables of the worker, beside those of this process.
    """

    def __init__(
        self, command: list[str] | None = None, timeout: float = CALL_TIMEOUT, variables: Mapping[str, str] | None = None
    ) -> None:
        self.timeout = timeout
        self._process = (
            _starter()
            .submit(
                subprocess.Popen,
                command or [sys.executable, "-P", "-m", "mlp_accel.bench.engines.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **(variables or {})},
                process_group=0,  # Ctrl-C is for us alone: we end the worker ourselves
            )
            .result()
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._last_words: deque[str] = deque(maxlen=5)
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_errors)]
        self._readers.append(threading.Thread(target=self._await_death, daemon=True))
        for reader in self._readers:
            reader.start()

    def call(self, command: str, *arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises
        ------
        EngineError
            If the worker cannot run here, fails, dies or takes too long.
        """
        assert self._process.stdin is not None
        try:
            self._signal("SIGCONT")
            self._process.stdin.write(json.dumps([command, *arguments]) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=self.timeout)
        except queue.Empty:
            raise EngineError("failed", f"no answer to {command!r} within {self.timeout:g} s") from None
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineError("failed", f"the worker died in {command!r}: {self._epitaph()}")
        self._signal("SIGSTOP")
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise EngineError("failed", answer["refused"], refused=True)
        for status in ("unavailable", "failed"):
            if status in answer:
                raise EngineError(status, answer[status])
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        """End the worker and its children, whatever they are doing."""
        self._end()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # a command that it never read
            self._process.stdin.close()
        for reader in self._readers:
            reader.join(timeout=1)  # a child of the worker may still hold its streams

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._lines.put(line)
        self._lines.put("")

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._last_words.extend(line.rstrip() for line in lines)

    def _await_death(self) -> None:
        """A child of a dead worker may hold its streams open, so their end is not to be waited for."""
        if hasattr(os, "waitid"):
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            self._lines.put("")

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):  # not on Windows, where a worker that waits for input is merely idle
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, getattr(signal, name))

    def _end(self) -> int:
        """Kill what is left of its process group; the exit status of the worker."""
        if self._process.returncode is None:  # else the number may be that of another group by now
            if hasattr(os, "killpg"):
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        return self._process.wait()

    def _epitaph(self) -> str:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)  # by its own hand, before its children go
        code = self._end()
        for reader in self._readers:
            reader.join(timeout=1)
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL:
            cause += ", which is what the system sends when memory runs out"
        return f"{cause}{f'; {self._last_words[-1]}' if self._last_words else ''}"
