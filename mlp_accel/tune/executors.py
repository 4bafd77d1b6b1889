"""Who trains: processes of this host, or any executor of `concurrent.futures`."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, Self

from mlp_accel.errors import MlpAccelError


class WorkerLostError(MlpAccelError, RuntimeError):
    """A worker ended before it had finished a task. `final`: the task was tried again elsewhere as often as it may."""

    def __init__(self, reason: str, final: bool = False) -> None:
        self.final = final
        super().__init__(reason)


class ClusterLostError(MlpAccelError, RuntimeError):
    """There is nobody left who could train."""


class Pending(Protocol):
    """A task that was given to a worker: a future of `concurrent.futures`, or of Dask."""

    def result(self) -> Any:
        """What the function returned; raises what it raised."""


class Workers:
    """An executor of any kind, with what a search asks of it.

    Parameters
    ----------
    executor : Executor
    slots : int, optional
        How many tasks it runs at once; by default as many as it says, else as many as there are cores.
    """

    def __init__(self, executor: Executor, slots: int | None = None) -> None:
        self._executor = executor
        self._slots = slots or getattr(executor, "_max_workers", None) or os.cpu_count() or 1
        self.finished: queue.SimpleQueue[Pending] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def slots(self) -> int:
        """How many tasks can run now."""
        return self._slots

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        """Give a task to a worker; it comes back by `wait`."""
        future = self._executor.submit(function, *arguments)
        future.add_done_callback(self.finished.put)
        return future

    def wait(self, seconds: float) -> list[Pending]:
        """The tasks that have ended since the last call; waits for one, but not longer than this."""
        found = []
        with suppress(queue.Empty):
            found.append(self.finished.get(timeout=seconds))
            while True:
                found.append(self.finished.get_nowait())
        return found

    def result(self, task: Pending) -> Any:
        """What came of a task that has ended.

        Raises
        ------
        WorkerLostError
            If its worker was lost.
        ClusterLostError
            If all were.
        """
        try:
            return task.result()
        except (BrokenExecutor, CancelledError) as error:
            raise ClusterLostError(f"the executor cannot be used any more: {error or type(error).__name__}") from error

    def end(self, task: Pending) -> bool:
        """End the worker of a task that hangs; False if that is not possible here, as with an executor of one's own."""
        return False

    def now(self) -> float:
        """The time, in seconds."""
        return time.monotonic()

    def close(self) -> None:
        """End what is running; an executor of the user's own stays."""


class Pool(Workers):
    """Spawned processes of this host, each of which can be lost alone.

    Parameters
    ----------
    count : int
        How many.
    devices : sequence of str
        What each shall see of the GPUs, as ``CUDA_VISIBLE_DEVICES``; empty: all of them.

    Raises
    ------
    ClusterLostError
        If they cannot start.
    """

    def __init__(self, count: int, devices: Sequence[str] = ()) -> None:
        self.finished = queue.SimpleQueue()
        self._processes = [_Process(devices[i % len(devices)] if devices else None) for i in range(count)]
        try:
            for process in self._processes:
                process.pid.result()
        except BrokenExecutor as error:
            raise ClusterLostError(
                "a worker process cannot start; a script must call tune() under `if __name__ == '__main__':`, because each worker "
                "reads the script too"
            ) from error

    @property
    def slots(self) -> int:
        return len(self._processes)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        process = next(process for process in self._processes if process.task is None or process.task.done())
        try:
            process.task = process.executor.submit(function, *arguments)
        except BrokenExecutor:
            process.start()
            process.task = process.executor.submit(function, *arguments)
        process.task.add_done_callback(self.finished.put)
        return process.task

    def result(self, task: Pending) -> Any:
        try:
            return task.result()
        except (BrokenExecutor, CancelledError) as error:
            raise WorkerLostError("its worker process ended") from error

    def end(self, task: Pending) -> bool:
        for process in self._processes:
            if process.task is task:
                process.kill()
        return True

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.executor.shutdown(wait=True, cancel_futures=True)


class _Process:
    """One process, started anew when it was lost: a pool of the standard library is lost as a whole, so each has its own."""

    def __init__(self, device: str | None) -> None:
        self.device = device
        self.start()

    def start(self) -> None:
        self.executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(self.device,))
        self.pid = self.executor.submit(os.getpid)
        self.task: Future[Any] | None = None

    def kill(self) -> None:
        with suppress(BrokenExecutor, CancelledError, ProcessLookupError):
            os.kill(self.pid.result(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def _begin(device: str | None) -> None:
    """In a new process: see one GPU, leave Ctrl-C to the parent, and end with it."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
