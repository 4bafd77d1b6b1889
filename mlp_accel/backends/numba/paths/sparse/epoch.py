"""A whole epoch on images whose pixels are mostly zero, in one compiled loop.

The two big products, of the images with the weights of the first layer, visit the pixels that are not zero and no other: of
MNIST's that is one in five. The units of the first layer are divided into blocks, and a thread keeps to its block: its columns of
the weights never leave its cache, and what its units put out goes into the second layer as a partial sum. So a minibatch takes two
parallel regions: one for all that is of a block, from the errors of the minibatch before to the partial sums of this one, and one
for the layers above, by images. With more threads than blocks, several share a block, by images or by pixels, and must wait for
each other more often. Every sum is made by one thread, in an order that does not depend on the number of threads, so the results
are the same bits for any number. Activations and update rules are called by their addresses: see `generated`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import prange

from mlp_accel.backends.numba.compiler import ParallelKernel, c_function, numba
from mlp_accel.backends.numba.emit.addresses import call
from mlp_accel.backends.numba.paths.sparse import step as pixel_step
from mlp_accel.backends.numba.paths.sparse.memory import OUT_STRIDE, Data, Network, Rules, Scratch, table_of, unpack

ERRORS, UPDATE, FORWARD, REST, LOSSES = range(5)
"""Parts of a step, of which the first two belong to the minibatch before."""


def run_part(part: int, task: int, table: Any, batch: int, batch_size: int, one: Any) -> int:
    """One task's share of one part of the step on minibatch number `batch`, by `table_of` its memory."""
    data, rules, network, scratch = unpack(table, one)
    start = batch * batch_size
    size = min(batch_size, data.labels.shape[0] - start)
    n_shares = data.shares.shape[0] - 1
    n_tasks = network.layers[0, OUT_STRIDE] // network.block * n_shares
    block, share = task // n_shares, task % n_shares
    first, stop = size * share // n_shares, size * (share + 1) // n_shares
    has_second = network.layers.shape[0] > 1
    if part == ERRORS:
        if has_second:
            pixel_step.first_errors(rules, network, scratch, block, first, stop)
    elif part == UPDATE:
        pixel_step.update_first_layer(data, rules, network, scratch, batch, start, size, block, share)
        pixel_step.update_weights_above(data, rules, network, scratch, batch, size, block, share)
        pixel_step.update_biases(data, rules, network, scratch, batch, size, block, share)
    elif part == FORWARD:
        pixel_step.first_layer(data, network, scratch, start, block, first, stop)
        if has_second:
            pixel_step.partial_sums(rules, network, scratch, block, first, stop)
    elif part == REST:
        first, stop = size * task // n_tasks, size * (task + 1) // n_tasks
        if has_second:
            pixel_step.add_partial_sums(network, scratch, first, stop)
        pixel_step.forward_above(rules, network, scratch, first, stop)
        pixel_step.softmax_errors(data, rules, network, scratch, start, first, stop, size)
        pixel_step.errors_above(rules, network, scratch, first, stop)
    else:
        pixel_step.sum_losses(scratch, batch, size)
    return 0


@functools.cache
def address_of_run_part(dtype: str) -> int:
    """Where `run_part` is, compiled for parameters of this type."""
    i, real = numba.int64, getattr(numba, dtype)
    return int(c_function(run_part, i(i, i, i, i, i, real)).address)


@ParallelKernel
def loop(run: int, table: int, n_batches: int, n_shares: int, n_tasks: int, batch_size: int, one: Any) -> None:
    """The parts of every step in the order in which they depend on each other; `run` and `table` are addresses."""
    n_regions = 2 if n_shares == 1 else 4
    for step in range(n_batches + 1):
        for region in range(n_regions):
            # A thread that has a block for itself waits for no other until the rest.
            begin, end = (region, region + 1) if n_shares > 1 else (ERRORS, REST) if region == 0 else (REST, REST + 1)
            for task in prange(n_tasks):
                for part in range(begin, end):
                    batch = step - 1 if part < FORWARD else step
                    if 0 <= batch < n_batches:
                        call(run, (part, np.int64(task), table, batch, batch_size, one))
        if step < n_batches:
            call(run, (LOSSES, 0, table, step, batch_size, one))


def train_epoch(data: Data, rules: Rules, network: Network, scratch: Scratch, batch_size: int) -> None:
    """Train on every minibatch of `data`; `network`, and in `scratch` the losses and hits of the minibatches, are changed."""
    table = table_of(data, rules, network, scratch)
    dtype = network.first.dtype
    run = address_of_run_part(dtype.name)
    n_batches, n_shares = -(-len(data.labels) // batch_size), len(data.shares) - 1
    n_tasks = int(network.layers[0, OUT_STRIDE]) // network.block * n_shares
    loop(run, table.ctypes.data, n_batches, n_shares, n_tasks, batch_size, dtype.type(1))
