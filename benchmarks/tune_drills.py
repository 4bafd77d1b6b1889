"""Drills: every network is once in the file of results, none twice and none lost, whatever breaks while they are trained.

    python benchmarks/tune_drills.py [--only KIND] [--seed 0]    # ten minutes; root for network namespaces and the full disk

Each drill starts a Dask scheduler and two workers as processes of their own, begins ``mlp-accel tune`` on them, and breaks
something at a random moment. If the command ends early, what was broken is mended and the same command runs again. The results must
then be, bit for bit, those of an undisturbed search on this host. Prints a table and writes ``results/tune_drills.json``; drills
that cannot be done here are in it with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed
import numpy as np

from mlp_accel.environment import environment
from mlp_accel.files import write_json
from mlp_accel.tune.journal import Journal, key

RESULT = Path(__file__).parent / "results" / "tune_drills.json"
SEARCH = ("--grid", "learning_rate=0.02,0.05", "--grid", "hidden=16,24,32", "--seeds", "5", "--epochs", "20")
NETWORKS = 30
COMMAND_SECONDS = 240
TIMEOUTS = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10s"}
"""What is lost is noticed sooner than by Dask's defaults (30 seconds and 5 minutes)."""

Client: Any = distributed.Client
SPACE, HERE, THERE = "mlp-drill", "10.77.0.1", "10.77.0.2"


@dataclass
class Cluster:
    """A scheduler and its workers, processes of their own."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    def start(self, name: str, prefix: tuple[str, ...] = ()) -> None:
        """Start ``scheduler``, or a worker of another name."""
        python = [*prefix, sys.executable, "-m", "dask"]
        command = ["scheduler", "--host", self.host, "--port", str(self.port), "--no-dashboard", "--no-show"]
        if name != "scheduler":
            command = ["worker", self.address, "--nthreads", "1", "--nworkers", "1", "--no-dashboard", "--local-directory"]
            command.append(str(self.folder / name))
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*python, *command], stdout=log, stderr=log, env={**os.environ, **TIMEOUTS}, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """End a process and all that it started, without a warning."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        """End everything."""
        for name in list(self.processes):
            self.kill(name)

    def worker_pids(self) -> list[int]:
        """The processes that train; their nannies are their parents."""
        with Client(self.address, timeout=30) as client:
            return list(client.run(os.getpid).values())


@dataclass
class Drill:
    """A search on a cluster, in a folder of its own."""

    cluster: Cluster
    folder: Path
    data: Path
    rng: random.Random
    file: Path
    options: tuple[str, ...] = ()
    runs: list[int] = field(default_factory=list)

    def search(self) -> subprocess.Popen[bytes]:
        """Begin the search."""
        command = [sys.executable, "-m", "mlp_accel", "tune", *SEARCH, "--data", str(self.data), "--results", str(self.file)]
        with (self.folder / "search.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--scheduler", self.cluster.address, *self.options],
                stdout=log,
                stderr=log,
                env={**os.environ, **TIMEOUTS},
                start_new_session=True,
            )

    def wait_for_results(self, process: subprocess.Popen[bytes]) -> int:
        """Wait until some networks are there, at a random number of them; returns how many."""
        some = self.rng.randint(1, NETWORKS * 2 // 3)
        while process.poll() is None and self.lines() < some:
            time.sleep(0.02)
        time.sleep(self.rng.uniform(0, 0.3))
        return self.lines()

    def lines(self) -> int:
        """Results in the file."""
        return self.file.read_bytes().count(b"\n") if self.file.exists() else 0

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end of a search, and return its exit status."""
        status = process.wait(COMMAND_SECONDS)
        self.runs.append(status)
        return status


Break = Callable[[Drill], str]
"""Begins the search, breaks something, and ends with a whole file of results; says in words what it did."""


def worker_killed(drill: Drill) -> str:
    """A worker's process is killed; its nanny starts another one."""
    victim = drill.rng.choice(drill.cluster.worker_pids())
    process = drill.search()
    at = drill.wait_for_results(process)
    os.kill(victim, signal.SIGKILL)
    drill.end(process)
    return f"at {at} results"


def host_off(drill: Drill) -> str:
    """A worker is killed together with its nanny, as when its host is switched off."""
    process = drill.search()
    at = drill.wait_for_results(process)
    drill.cluster.kill(drill.rng.choice(["one", "two"]))
    drill.end(process)
    return f"at {at} results"


def scheduler_killed(drill: Drill) -> str:
    """The scheduler is killed; the search ends and says what is missing; with a new cluster the same command goes on."""
    process = drill.search()
    at = drill.wait_for_results(process)
    drill.cluster.kill("scheduler")
    drill.end(process)
    for name in ("one", "two"):
        drill.cluster.kill(name)
    for name in ("scheduler", "one", "two"):
        drill.cluster.start(name)
    drill.end(drill.search())
    return f"at {at} results"


def search_killed(drill: Drill) -> str:
    """The search itself is killed; the same command goes on."""
    return _signalled(drill, signal.SIGKILL)


def ctrl_c(drill: Drill) -> str:
    """Ctrl-C; the same command goes on."""
    return _signalled(drill, signal.SIGINT)


def _signalled(drill: Drill, number: signal.Signals) -> str:
    process = drill.search()
    at = drill.wait_for_results(process)
    os.killpg(process.pid, number)
    drill.end(process)
    drill.end(drill.search())
    return f"at {at} results"


def worker_frozen(drill: Drill) -> str:
    """A worker's process is stopped in the middle of its work, and does not answer any more."""
    drill.options = ("--timeout", "60")
    process = drill.search()
    at = drill.wait_for_results(process)
    victim = drill.rng.choice(drill.cluster.worker_pids())
    os.kill(victim, signal.SIGSTOP)
    drill.end(process)
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    return f"at {at} results"


def disk_full(drill: Drill) -> str:
    """The disk with the file of results is full; when there is room again the same command goes on."""
    with small_disk(drill.folder / "disk") as disk:
        drill.file = disk / "tune.jsonl"
        ballast = disk / "ballast"
        size = 1024 * drill.rng.randint(4, 12)
        ballast.write_bytes(b"\0" * (256 * 1024 - size))
        drill.end(drill.search())
        at = drill.lines()
        ballast.unlink()
        drill.end(drill.search())
        kept = drill.folder / "tune.jsonl"
        kept.write_bytes(drill.file.read_bytes())
    drill.file = kept
    return f"at {at} results"


def cut_off(drill: Drill, seconds: float | None = None) -> str:
    """The host of one worker, a network namespace, cannot be reached any more."""
    process = drill.search()
    at = drill.wait_for_results(process)
    shell("ip", "link", "set", "mlp-drill0", "down")
    if seconds is not None:
        time.sleep(seconds)
        shell("ip", "link", "set", "mlp-drill0", "up")
    drill.end(process)
    return f"at {at} results"


def cut_off_for_a_while(drill: Drill) -> str:
    """The same, and after some seconds it can be reached again."""
    seconds = drill.rng.uniform(2, 12)
    return f"{cut_off(drill, seconds)}, for {seconds:.0f} s"


DRILLS: dict[Break, int] = {
    worker_killed: 5,
    host_off: 1,
    scheduler_killed: 3,
    search_killed: 2,
    ctrl_c: 1,
    worker_frozen: 1,
    disk_full: 3,
    cut_off: 2,
    cut_off_for_a_while: 2,
}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder.mkdir()
    shell("mount", "-t", "tmpfs", "-o", "size=256k", "drill", str(folder))
    try:
        yield folder
    finally:
        shell("umount", str(folder))


@contextmanager
def other_host() -> Iterator[tuple[str, ...]]:
    """A network namespace with an address of its own; yields the command that runs another one in it."""
    shell("ip", "netns", "add", SPACE)
    try:
        shell("ip", "link", "add", "mlp-drill0", "type", "veth", "peer", "name", "mlp-drill1", "netns", SPACE)
        shell("ip", "address", "add", f"{HERE}/24", "dev", "mlp-drill0")
        shell("ip", "link", "set", "mlp-drill0", "up")
        inside = ("ip", "netns", "exec", SPACE)
        for words in (
            ("address", "add", f"{THERE}/24", "dev", "mlp-drill1"),
            ("link", "set", "mlp-drill1", "up"),
            ("link", "set", "lo", "up"),
        ):
            shell(*inside, "ip", *words)
        yield inside
    finally:
        shell("ip", "netns", "delete", SPACE)


def shell(*command: str) -> None:
    """Run a command; RuntimeError with what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def perform(broken: Break, rng: random.Random, data: Path, expected: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One drill, and what is wrong with its results, if anything."""
    folder.mkdir()
    start = time.monotonic()
    found: dict[str, Any] = {"kind": broken.__name__, "what": broken.__doc__, "problem": None}
    with ExitStack() as stack:
        cluster = Cluster(folder, port=rng.randint(20_000, 30_000))
        stack.callback(cluster.kill_all)
        drill = Drill(cluster, folder, data, rng, folder / "tune.jsonl")
        try:
            prefix: tuple[str, ...] = ()
            if broken in (cut_off, cut_off_for_a_while):
                prefix = stack.enter_context(other_host())
                cluster.host = HERE
            cluster.start("scheduler")
            cluster.start("one")
            cluster.start("two", prefix)
            with Client(cluster.address, timeout=60) as client:
                client.wait_for_workers(2, timeout=120)
            found["how"] = broken(drill)
            found["problem"] = problem_of(drill.file, expected)
        except RuntimeError as error:
            found["skipped"] = str(error)
        except (subprocess.TimeoutExpired, OSError, TimeoutError) as error:
            found["problem"] = f"{type(error).__name__}: {error}"
        found |= {"exit_codes": drill.runs, "results": drill.lines(), "seconds": time.monotonic() - start}
    return found


def problem_of(file: Path, expected: dict[str, Any]) -> str | None:
    """What is wrong with a file of results: a network twice, one lost, a line that is not whole, or other numbers."""
    lines = file.read_text().split("\n")
    if lines.pop():
        return "the last line is not whole"
    rows = [json.loads(line) for line in lines]
    keys = [key(row) for row in rows]
    if len(set(keys)) < len(keys):
        return f"{len(keys) - len(set(keys))} networks are there twice"
    if set(keys) != set(expected):
        return f"{len(set(expected) - set(keys))} networks are missing, {len(set(keys) - set(expected))} are others"
    differing = [name for name, row in zip(keys, rows, strict=True) if numbers(row) != numbers(expected[name])]
    return f"{len(differing)} networks have other results" if differing else None


def numbers(row: Any) -> tuple[Any, ...]:
    """What must be the same, bit for bit, wherever a network was trained."""
    return tuple(row[name] for name in ("status", "accuracy", "loss", "train_accuracy", "train_loss", "epochs"))


def reference(data: Path, folder: Path) -> dict[str, Any]:
    """The results of an undisturbed search by a pool of processes of this host."""
    file = folder / "reference.jsonl"
    command = [sys.executable, "-m", "mlp_accel", "tune", *SEARCH, "--data", str(data), "--results", str(file), "--threads", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with Journal(file) as journal:
        assert len(journal.rows) == NETWORKS
        return dict(journal.rows)


def make_data(path: Path) -> None:
    """Three clouds that overlap: 20,000 samples of 20 values."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 22_000)
    x = (rng.normal(size=(22_000, 20)) + 1.5 * np.eye(3, 20)[y]).astype(np.float32)
    np.savez(path, x_train=x[:20_000], y_train=y[:20_000], x_test=x[20_000:], y_test=y[20_000:])


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Perform the drills; 1 if one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[broken.__name__ for broken in DRILLS], action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="add to the drills that the file has")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or a search would not know Ctrl-C where this runs in the background
    report, performed = environment(), []
    if options.keep and options.output.exists():
        performed = json.loads(options.output.read_text())["drills"]
    say("an undisturbed search, then the drills")
    with tempfile.TemporaryDirectory(prefix="mlp-drills.") as place:
        folder = Path(place)
        data = folder / "clouds.npz"
        make_data(data)
        expected = reference(data, folder)
        for broken, times in DRILLS.items():
            for repetition in range(times if not options.only or broken.__name__ in options.only else 0):
                rng = random.Random(f"{options.seed} {broken.__name__} {repetition}")
                found = perform(broken, rng, data, expected, folder / f"{broken.__name__}-{repetition}")
                performed.append(found)
                verdict = found["problem"] or (f"skipped: {found['skipped']}" if "skipped" in found else "every network once")
                say(
                    f"{found['kind']:20} {found.get('how', ''):30} exit codes {found['exit_codes']!s:12} "
                    f"{found['results']:3} results  {found['seconds']:4.0f} s  {verdict}"
                )
                if found["problem"]:
                    say((folder / f"{broken.__name__}-{repetition}" / "search.log").read_text()[-3000:])
    write_json(str(options.output), {"schema": 1, "environment": report, "networks": NETWORKS, "drills": performed})
    wrong = [found for found in performed if found["problem"]]
    skipped = [found for found in performed if "skipped" in found]
    say(f"{len(performed)} drills, {len(wrong)} went wrong, {len(skipped)} could not be done here")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
