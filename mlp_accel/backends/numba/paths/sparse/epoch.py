"""A whole epoch on uint8 images whose pixels are mostly zero, in one compiled loop.

Most of the arithmetic of a step is in two products of the samples and the first layer: one on the way forward, one for the
gradient. Both visit only the pixels that are not zero; in MNIST that is one in five.

The units of the first layer are divided into blocks (`memory` has a picture), and each thread has one block. The weights of the
block stay in the cache of the thread's core, and the outputs of its units go into the second layer as a partial sum. A step has two
parallel regions, and at the end of each all threads wait for each other:

1. Each thread works on its block: the deltas of the minibatch before, the update by that minibatch, and the way forward of this one
   as far as the partial sums of the second layer.
2. Each thread works on some of the samples: the layers above, from the partial sums to the deltas of the second layer.

Where there are more threads than blocks, several threads share a block. They must then wait for each other after the deltas and
after the update, too, so that a step has four regions.

Every sum is made by one thread, in an order that does not depend on the number of threads, so the results are the same bits for any
number. Activations and update rules are called by their addresses: see `generated`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import prange

from mlp_accel.backends.numba.compiler import ParallelKernel, c_function, numba
from mlp_accel.backends.numba.emit.addresses import call
from mlp_accel.backends.numba.paths.sparse import backward, forward
from mlp_accel.backends.numba.paths.sparse.memory import OUT_STRIDE, EpochInput, Network, Rules, Scratch, table_of, unpack

DELTAS, UPDATE, FORWARD, REST, LOSSES = range(5)
"""The phases of a step. The first two belong to the minibatch before."""


def compute_phase(phase: int, job: int, table: Any, batch: int, batch_size: int, one: Any) -> int:
    """One job of one phase of the step on minibatch number `batch`; `table` is the address of what `table_of` made."""
    inputs, rules, network, scratch = unpack(table, one)
    start = batch * batch_size
    size = min(batch_size, inputs.labels.shape[0] - start)
    n_shares = inputs.shares.shape[0] - 1
    n_jobs = network.layers[0, OUT_STRIDE] // network.block * n_shares
    block, share = job // n_shares, job % n_shares
    first, stop = size * share // n_shares, size * (share + 1) // n_shares
    has_second = network.layers.shape[0] > 1
    if phase == DELTAS:
        if has_second:
            backward.first_deltas(rules, network, scratch, block, first, stop)
    elif phase == UPDATE:
        backward.update_first_layer(inputs, rules, network, scratch, batch, start, size, block, share)
        backward.update_weights_above(inputs, rules, network, scratch, batch, size, block, share)
        backward.update_biases(inputs, rules, network, scratch, batch, size, block, share)
    elif phase == FORWARD:
        forward.first_layer(inputs, network, scratch, start, block, first, stop)
        if has_second:
            forward.partial_sums(rules, network, scratch, block, first, stop)
    elif phase == REST:
        first, stop = size * job // n_jobs, size * (job + 1) // n_jobs
        if has_second:
            forward.add_partial_sums(network, scratch, first, stop)
        forward.forward_above(rules, network, scratch, first, stop)
        forward.output_deltas(inputs, rules, network, scratch, start, first, stop, size)
        backward.deltas_above(rules, network, scratch, first, stop)
    else:
        forward.sum_losses(scratch, batch, size)
    return 0


@functools.cache
def address_of_phase(dtype: str) -> int:
    """The address of `compute_phase`, compiled for parameters of this type."""
    i, real = numba.int64, getattr(numba, dtype)
    return int(c_function(compute_phase, i(i, i, i, i, i, real)).address)


@ParallelKernel
def loop(address: int, table: int, n_batches: int, n_shares: int, n_jobs: int, batch_size: int, one: Any) -> None:
    """The phases of every step in the order in which they depend on each other.

    `address` is that of `compute_phase`, `table` that of what `table_of` made.
    """
    n_regions = 2 if n_shares == 1 else 4
    for step in range(n_batches + 1):
        for region in range(n_regions):
            # A thread that has a block for itself goes through three phases without waiting for the others.
            begin, end = (region, region + 1) if n_shares > 1 else (DELTAS, REST) if region == 0 else (REST, REST + 1)
            for job in prange(n_jobs):
                for phase in range(begin, end):
                    batch = step - 1 if phase < FORWARD else step
                    if 0 <= batch < n_batches:
                        call(address, (phase, np.int64(job), table, batch, batch_size, one))
        if step < n_batches:
            call(address, (LOSSES, 0, table, step, batch_size, one))


def train_epoch(inputs: EpochInput, rules: Rules, network: Network, scratch: Scratch, batch_size: int) -> None:
    """Train on every minibatch of `inputs`; changes `network`, and leaves losses and hits of the minibatches in `scratch`."""
    table = table_of(inputs, rules, network, scratch)
    dtype = network.first.dtype
    address = address_of_phase(dtype.name)
    n_batches, n_shares = -(-len(inputs.labels) // batch_size), len(inputs.shares) - 1
    n_jobs = int(network.layers[0, OUT_STRIDE]) // network.block * n_shares
    loop(address, table.ctypes.data, n_batches, n_shares, n_jobs, batch_size, dtype.type(1))
