"""A Dask cluster as workers: by the address of its scheduler, or one that is started here. Needs the extra ``dask``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlp_accel.backends.threads import thread_count
from mlp_accel.environment import gpus
from mlp_accel.errors import MlpAccelError
from mlp_accel.tune.data import UnfitWorkerError
from mlp_accel.tune.executors import ClusterLostError, Pending, WorkerLostError, Workers
from mlp_accel.tune.worker import check_versions, versions

LOCAL = "local"

CONNECT_SECONDS = 30
"""To wait for the scheduler, at the start and when the connection is lost."""

NOBODY_SECONDS = 300.0
"""To wait for a worker where there is none."""


class DaskMissingError(MlpAccelError, ImportError):
    """Dask is not installed."""


@contextmanager
def connected(address: str, workers: int | None = None, threads: int | None = None) -> Iterator[Any]:
    """A client of the cluster at an address, or of one that is started here and ends with the context.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``tcp://head:8786``; or ``"local"``.
    workers, threads : int, optional
        Of a local cluster: processes, by default one for each GPU, else one; and CPU threads of each.

    Raises
    ------
    DaskMissingError
        If Dask is not installed.
    ClusterLostError
        If there is no scheduler.
    """
    try:
        import distributed
    except ImportError as error:
        raise DaskMissingError(f"a cluster needs Dask ({error}): pip install 'mlp-accel[dask]'") from error
    dask: Any = distributed
    if address == LOCAL:
        count = workers or len(gpus()) or 1
        per_worker = threads or max(1, thread_count() // count)
        with dask.LocalCluster(n_workers=count, threads_per_worker=per_worker) as cluster, dask.Client(cluster) as client:
            yield client
        return
    try:
        client = dask.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ClusterLostError(f"there is no Dask scheduler at {address}: {error}") from error
    with client:
        yield client


@contextmanager
def connect(address: str, workers: int | None = None, threads: int | None = None) -> Iterator[DaskWorkers]:
    """The workers of a cluster; the parameters are those of `connected`."""
    with connected(address, workers, threads) as client, DaskWorkers(client) as found:
        yield found


class DaskWorkers(Workers):
    """The workers of a Dask cluster, one task at a time for each.

    A worker that is lost is Dask's affair first: the scheduler gives the task to another one, three times by default
    (``distributed.scheduler.allowed-failures``). Only what is lost after that comes back as lost.

    Parameters
    ----------
    client : distributed.Client

    Raises
    ------
    UnfitWorkerError
        If a worker has other versions than this process.
    """

    def __init__(self, client: Any) -> None:
        super().__init__(client.get_executor(pure=False), 1)
        self._client = client
        self._looked, self._since = -1.0, time.monotonic()
        self._tasks: set[Pending] = set()
        compare_versions(client)

    def __str__(self) -> str:
        count, dashboard = self.slots, self._client.dashboard_link
        where = f"Dask at {self._client.scheduler.address}, {count} worker{'' if count == 1 else 's'}"
        return f"{where}; dashboard {dashboard}" if dashboard else where

    @property
    def slots(self) -> int:
        """How many workers there are, which is asked once a second.

        Raises
        ------
        ClusterLostError
            If the scheduler does not answer, or there was no worker for a long time.
        """
        now = time.monotonic()
        if now - self._looked > 1:
            try:
                self._slots = len(self._client.nthreads())
            except (OSError, RuntimeError, TimeoutError) as error:
                self._reconnect(error)
                return self._slots
            self._looked = now
            if self._slots:
                self._since = now
            elif now - self._since > NOBODY_SECONDS:
                raise ClusterLostError(f"the scheduler has had no worker for {NOBODY_SECONDS:g} s")
        return self._slots

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        task: Any = self._client.submit(function, *arguments, pure=False)
        task.add_done_callback(self.finished.put)
        self._tasks.add(task)
        pending: Pending = task
        return pending

    def result(self, task: Pending) -> Any:
        from distributed import CancelledError, KilledWorker

        self._tasks.discard(task)
        try:
            return task.result()
        except KilledWorker as error:
            raise WorkerLostError(
                f"all workers that tried it were lost ({error.allowed_failures + 1} of them)", final=True
            ) from error
        except CancelledError as error:  # the connection to the scheduler was lost, and all tasks with it
            self._reconnect(error)
            raise WorkerLostError("the connection to the scheduler was lost") from error

    def end(self, task: Any) -> bool:
        addresses = [address for address, keys in self._client.processing().items() if task.key in keys]
        self._client.cancel([task], force=True)
        self._tasks.discard(task)
        if addresses:
            self._client.restart_workers(addresses, timeout=CONNECT_SECONDS, raise_for_error=False)
        return True

    def close(self) -> None:
        if self._client.status == "running":
            self._client.cancel(list(self._tasks), force=True)

    def _reconnect(self, cause: Exception) -> None:
        """Wait until the client has its scheduler again; it tries by itself."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while self._client.status != "running":
            if time.monotonic() > deadline or self._client.status == "closed":
                raise ClusterLostError(f"the Dask scheduler does not answer any more ({cause})") from cause
            time.sleep(0.1)


def compare_versions(client: Any) -> None:
    """UnfitWorkerError if a worker of the cluster has other versions than this process; names the worker and the difference."""
    expected = versions()
    for address, problem in client.run(version_problem, expected, on_error="return").items():
        if problem is not None:
            raise UnfitWorkerError(f"the worker at {address}: {problem}")


def version_problem(expected: Mapping[str, str]) -> str | None:
    """In a worker: what is different there, in words."""
    try:
        check_versions(expected)
    except UnfitWorkerError as error:
        return str(error)
    return None
