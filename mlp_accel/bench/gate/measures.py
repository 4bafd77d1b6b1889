"""What `mlp-accel ab` can measure of a build, and in how many rounds of a launch."""

from __future__ import annotations

EPOCH, CALL, FIRST_START = "epoch", "call", "first-start"

ROUNDS = {EPOCH: 100, CALL: 100, "import": 6, "transfer": 6, "start": 6, "memory": 6, FIRST_START: 1}
"""Epochs and calls follow each other in one process. Everything else is measured once in each process, so a round is a new one of
each build: ``import`` of the package and its backend; ``transfer``, from the arrays in memory until it can train; ``start``, all
of that and the first epoch, with compiled code from a cache; ``memory``, the most that the process has had by then, in bytes;
``first-start`` is ``start`` with empty caches, which is mostly compilation."""

MEASURES = tuple(measure for measure in ROUNDS if measure != CALL)


def in_one_process(measure: str) -> bool:
    """Whether its rounds follow each other in the same processes."""
    return measure in (EPOCH, CALL)
