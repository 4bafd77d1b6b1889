"""How long an epoch of MNIST should take on a GPU: predicted from counts, never measured.

    python -m mlp_accel.backends.cupy.model

prints the table. What the compiler makes of the kernels is counted: `BUDGETS`, to which ``tests/backends/cupy/test_sass.py`` holds
them. What is assumed of the hardware stands in `Gpu`. The model adds up what a scheduler issues in a step and what the blocks wait
for each other; nothing overlaps but the warps of a scheduler. Where a GPU takes another time, an assumption is wrong.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from mlp_accel.backends.cupy.source import ceil_div

NVRTC = "13.5"
"""Version of the compiler that the budgets hold for."""

SCHEDULERS = 4
"""Of a multiprocessor; each issues one instruction of a warp in a cycle."""

SAMPLES, BATCH, INPUTS = 60_000, 128, 784
STEPS = ceil_div(SAMPLES, BATCH)


@dataclass(frozen=True)
class Gpu:
    """What is assumed of the hardware: an H100 or H200 with its boost clock. Times are in microseconds.

    Attributes
    ----------
    clock : float
        GHz, from NVIDIA's data sheet.
    multiprocessors : int
    bandwidth : float
        Bytes a microsecond from memory, from the data sheet of the H100.
    arrival : float
        From a store to another block to the end of its wait for it (``st.async``, mbarrier). A guess.
    kernel : float
        A small kernel in a CUDA graph that depends on the one before it, from start to start. A guess.
    launch : float
        What the host adds to an epoch: launches, and the transfers of order, losses and hits. A guess.
    """

    clock: float = 1.98
    multiprocessors: int = 132
    bandwidth: float = 3.35e6
    arrival: float = 0.15
    kernel: float = 4.5
    launch: float = 60.0


@dataclass(frozen=True)
class Budget:
    """What a step of 784-32-10 with tanh and SGD at batch size 128 may cost.

    Attributes
    ----------
    slots : int
        Issue slots of a scheduler.
    registers : int
        Of a thread.
    """

    slots: int
    registers: int


BUDGETS = {16: Budget(slots=1366, registers=118), 8: Budget(slots=1981, registers=128), 4: Budget(slots=4242, registers=244)}
"""Of the kernel ``cluster_half.cu``, by the size of the cluster. A change to the kernel may lower them, not raise them."""

EXCHANGES = 2
"""Times in a step that all blocks of a cluster wait for what others send, one after another: the partial sums, the delta."""

STEP_KERNELS = 4
"""Launches of a step of two layers on the paths ``graph`` and ``steps``."""


def cluster_epoch(cluster: int, networks: int = 1, gpu: Gpu | None = None) -> float:
    """Milliseconds of an epoch of so many networks on the path ``cluster``."""
    gpu = gpu or Gpu()
    at_once = max(1, gpu.multiprocessors // cluster)
    rounds = ceil_div(networks, at_once)
    computing = BUDGETS[cluster].slots / (1000 * gpu.clock) + EXCHANGES * gpu.arrival
    fetching = 2 * BATCH * INPUTS * min(networks, at_once) / gpu.bandwidth  # pixels are halves; networks share no cache
    return (rounds * STEPS * max(computing, fetching) + gpu.launch) / 1000


def graph_epoch(gpu: Gpu | None = None) -> float:
    """Milliseconds of an epoch of one network on the path ``graph``."""
    gpu = gpu or Gpu()
    return (STEPS * STEP_KERNELS * gpu.kernel + gpu.launch) / 1000


def table() -> str:
    """All predictions, in Markdown."""
    rows = ["| path | networks | predicted epoch, ms | networks × epochs a second, predicted |", "|---|---|---|---|"]
    predictions = [(f"cluster:{size}", k, cluster_epoch(size, k)) for size in BUDGETS for k in (1, 8, 16, 32, 128)]
    for name, networks, time in [*predictions, ("graph", 1, graph_epoch())]:
        rows.append(f"| {name} | {networks} | {time:.2f} | {1000 * networks / time:,.0f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
