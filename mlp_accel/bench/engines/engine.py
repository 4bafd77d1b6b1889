"""The parent's handle of a worker process. A crash, a hang or an error in it fails this engine only."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import Any

CALL_TIMEOUT = 900.0
"""Seconds after which a call counts as hung, unless the engine was given another number."""


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
    """

    def __init__(self, command: list[str] | None = None, timeout: float = CALL_TIMEOUT) -> None:
        self.timeout = timeout
        self._process = subprocess.Popen(
            command or [sys.executable, "-P", "-m", "mlp_accel.bench.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C is for us alone: we end the worker ourselves
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._last_words: deque[str] = deque(maxlen=5)
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_errors)]
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
        """End the worker, whatever it is doing."""
        self._process.kill()
        self._process.wait()
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

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):  # not on Windows, where a worker that waits for input is merely idle
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, getattr(signal, name))

    def _epitaph(self) -> str:
        code = self._process.wait()
        for reader in self._readers:
            reader.join(timeout=1)
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL:
            cause += ", which is what the system sends when memory runs out"
        return f"{cause}{f'; {self._last_words[-1]}' if self._last_words else ''}"
