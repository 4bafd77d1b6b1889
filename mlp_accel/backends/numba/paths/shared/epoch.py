"""A whole epoch in compiled code.

A step has two phases, at whose ends the threads wait for each other (see `team`). What they divide among them depends on the shape
of the first layer:

- its *units*: each thread has a block of them (`memory` has a picture), whose weights stay in the cache of its core. The first
  phase is all that can be done within a block, from the deltas of the minibatch before to the partial sums of the second layer of
  this one; the second is the layers above, in which the samples are divided. With more threads than blocks, several share a block,
  and there are four phases.
- its *inputs*, where there are few units and many inputs: in the first phase each thread updates the weights of its segment of the
  inputs and then multiplies with them, which makes partial sums of the first layer; all else is the second phase.
- the *samples*, where the first layer is small: in the first phase the weights are updated, each thread those of some inputs; all
  else is the second phase.

Every sum is made by one thread, in an order that does not depend on the number of threads, so the results are the same bits for any
number. The functions of the first layer, which depend on the form of the samples, activations and update rules are called by their
addresses.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_accel.backends.numba.compiler import c_function, inlined, numba
from mlp_accel.backends.numba.emit.addresses import call
from mlp_accel.backends.numba.paths.shared import backward, forward
from mlp_accel.backends.numba.paths.shared.memory import (
    INPUTS,
    SAMPLES,
    UNITS,
    EpochInput,
    Network,
    Rules,
    Scratch,
    minibatch_of,
    part_of,
    samples_of,
    table_of,
    unpack,
)
from mlp_accel.backends.numba.team import Team

DELTAS, UPDATE, FORWARD, REST = range(N_PARTS := 4)
"""The parts of a step. The first two belong to the minibatch before."""


def compute(table: int, phase: int, job: int, one: Any) -> int:
    """One job of one phase of an epoch; `table` is the address of what `table_of` made."""
    inputs, rules, network, scratch = unpack(table, one)
    division, shares, n_segments = network.division, network.shares, inputs.segments.shape[0] - 1
    block, share = job // shares, job % shares
    _, n_jobs = backward.job_of(network, block, share)
    has_second = network.layers.shape[0] > 1
    if division == SAMPLES:
        step, begin, end = phase // 2, phase % 2 * FORWARD, FORWARD + phase % 2 * FORWARD
    elif division == INPUTS or shares == 1:
        step, begin, end = phase // 2, phase % 2 * REST, REST + phase % 2
    else:
        step, begin = phase // N_PARTS, phase % N_PARTS
        end = begin + 1
    for part in range(begin, end):
        batch = step - 1 if part < FORWARD else step
        start, size = minibatch_of(inputs, scratch, batch)
        if batch < 0 or size <= 0:
            continue
        first, stop = samples_of(size, share, shares)
        low, high = part_of(n_segments, share, shares)
        if part == DELTAS:
            if job == 0:
                forward.sum_losses(scratch, batch, size)
            if has_second and division == UNITS:
                backward.first_deltas(rules, network, scratch, block, first, stop)
        elif part == UPDATE:
            for segment in range(low, high):
                call(rules.update_first_layer, (table, batch, block, segment, one))
            backward.update_weights_above(inputs, rules, network, scratch, batch, size, block, share)
            backward.update_biases(inputs, rules, network, scratch, batch, size, block, share)
        elif part == FORWARD:
            if division == INPUTS:
                call(rules.first_layer, (table, batch, block, share, 0, size, one))
            else:
                for segment in range(n_segments):
                    call(rules.first_layer, (table, batch, block, segment, first, stop, one))
                if has_second:
                    forward.partial_sums(rules, network, scratch, block, first, stop)
        else:
            first, stop = samples_of(size, job, n_jobs)
            if division == INPUTS:
                forward.add_segment_sums(network, scratch, n_segments, first, stop)
                if has_second:
                    forward.partial_sums(rules, network, scratch, block, first, stop)
            if has_second:
                forward.add_partial_sums(network, scratch, first, stop)
            forward.forward_above(rules, network, scratch, first, stop)
            forward.output_deltas(inputs, rules, network, scratch, start, first, stop, size)
            backward.deltas_above(rules, network, scratch, first, stop)
            if has_second and division != UNITS:
                backward.first_deltas(rules, network, scratch, block, first, stop)
            if rules.prepare != 0 and start + size < inputs.labels.shape[0]:
                call(rules.prepare, (table, batch + 1, job, n_jobs, one))
    return 0


def compute_float32(table: int, phase: int, job: int) -> int:
    """`compute` for parameters of this type."""
    return compute_inlined(table, phase, job, np.float32(1))


def compute_float64(table: int, phase: int, job: int) -> int:
    """`compute` for parameters of this type."""
    return compute_inlined(table, phase, job, np.float64(1))


compute_inlined = inlined(compute)


@functools.cache
def address_of_work(dtype: str) -> int:
    """The address of `compute`, compiled for parameters of this type."""
    i = numba.int64
    return int(c_function({"float32": compute_float32, "float64": compute_float64}[dtype], i(i, i, i)).address)


@functools.cache
def first_layer_address(function: Callable[..., int] | None, dtype: str) -> int:
    """The address of a function of the first layer, compiled for parameters of this type; 0 for None."""
    if function is None:
        return 0
    numbers = [numba.int64] * (function.__code__.co_argcount - 1)
    return int(c_function(function, numba.int64(*numbers, getattr(numba, dtype))).address)


def begin_epoch(inputs: EpochInput, rules: Rules, network: Network, scratch: Scratch, team: Team, samples: object) -> None:
    """Begin to train on every minibatch of `inputs`, to the end of which ``team.finish()`` comes.

    That changes `network`, and leaves losses and hits of the minibatches in `scratch`. `samples` is what lies at
    ``inputs.samples``.
    """
    table = table_of(inputs, rules, network, scratch)
    batch_size, dtype = len(scratch.largest), network.first.dtype
    n_batches = -(-len(inputs.labels) // batch_size)
    n_phases = (n_batches + 1) * (2 if network.division != UNITS or network.shares == 1 else N_PARTS)
    if rules.prepare:
        real = ctypes.c_float if dtype == np.float32 else ctypes.c_double
        prepare = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4, real)(rules.prepare)
        prepare(table.ctypes.data, 0, 0, 1, 1)  # the first minibatch; the others are prepared while the one before is trained on
    team.begin(address_of_work(dtype.name), table.ctypes.data, n_phases, (table, inputs, network, scratch, samples))
