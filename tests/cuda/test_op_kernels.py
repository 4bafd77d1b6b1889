"""The kernels of the ops: their one barrier left out, which must show. What they compute is tested through the backend."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np

from mlp_accel.backends.cuda import ops, source
from tests.cuda.emulator import DEFAULT, Emulation, Program
from tests.cuda.faults import Faults, table


def test_the_barrier_of_the_sums_is_removed_and_the_fault_is_caught() -> None:
    rng = np.random.default_rng(0)
    y, logits = rng.integers(0, 10, 45), rng.normal(size=(45, 10)).astype(np.float32)
    exact = logits.astype(np.float64)
    expected = (np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(45), y]).sum()
    program = Program(ops.ops_source(), ops.options("float32"))

    def check(emulation: Emulation) -> None:
        total = np.full((), np.nan)
        arguments: list[Any] = [y, logits, total, np.int32(10), np.int32(45)]
        program.launch("cross_entropy_from_logits", 1, ops.THREADS, ops.SHARED_BYTES, arguments, emulation)
        np.testing.assert_allclose(total, expected, rtol=1e-6)

    check(DEFAULT)
    faults = Faults.inject(check, program.barrier_sites(), "ops.cu", seeds=(1, 2, 3))
    sys.stdout.write(table(faults))
    lines = source("ops.cu").splitlines()[1:]
    assert [i for i, text in enumerate(lines, start=1) if re.search(r"\b\w+_sync\(\)", text)] == faults.lines()
    assert faults.missed() == []
