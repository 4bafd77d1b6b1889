"""The kernels of the ops: their one barrier left out, which must show. What they compute is tested through the backend."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np

from mlp_accel.backends.cupy import ops
from mlp_accel.backends.cupy.source import ceil_div, source
from tests.backends.cupy.emulator import DEFAULT, Emulation, Program
from tests.backends.cupy.faults import Faults, table


def test_every_barrier_of_the_sums_is_removed_in_turn_and_each_fault_is_caught() -> None:
    rng, rows, width = np.random.default_rng(0), 45, 10
    y, logits = rng.integers(0, width, rows), rng.normal(size=(rows, width)).astype(np.float32)
    exact = logits.astype(np.float64)
    of_label = exact[np.arange(rows), y]
    expected = [(np.log(np.exp(exact).sum(axis=1)) - of_label).sum(), np.sum(exact.max(axis=1) == of_label)]
    program = Program(ops.classify_source("float32", "int64"), ops.options())
    blocks = ceil_div(rows, ops.SAMPLES)

    def check(emulation: Emulation) -> None:
        totals, of_blocks, counter = np.full(2, np.nan), np.full((blocks, 2), np.nan), np.zeros(1, np.uint32)
        arguments: list[Any] = [logits.copy(), y, totals, of_blocks, counter, np.int32(0), np.int32(width), np.int32(rows)]
        program.launch("classify", blocks, ops.THREADS, ops.SHARED_BYTES, arguments, emulation)
        np.testing.assert_allclose(totals, expected, rtol=1e-6)
        assert counter == 0

    check(DEFAULT)
    faults = Faults.inject(check, program.barrier_sites(), "classify.cu", seeds=(1, 2, 3))
    sys.stdout.write(table(faults))
    lines = source("classify.cu").splitlines()[1:]
    assert [i for i, text in enumerate(lines, start=1) if re.search(r"\b\w+_sync\(\)", text)] == faults.lines()
    assert faults.missed() == []
    for name in ("basics.cuh", "ops.cuh", "minibatch.cu", "dense.cu", "update.cu"):
        assert "_sync()" not in source(name)
