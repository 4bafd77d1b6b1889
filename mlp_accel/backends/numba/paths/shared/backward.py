"""From the loss back to the first layer: deltas of all layers, gradients and updates.

Each function does it for some of the units, of the samples or of the inputs; `memory` explains blocks, shares and panels.
"""

from __future__ import annotations

from typing import Any

from mlp_accel.backends.numba.compiler import CACHE_LINE, inlined, jit
from mlp_accel.backends.numba.emit.addresses import array_at, call
from mlp_accel.backends.numba.emit.product import Matrix, multiply
from mlp_accel.backends.numba.paths.shared.memory import (
    OUT_STRIDE,
    EpochInput,
    Network,
    Rules,
    Scratch,
    row_of,
)


@inlined
def times_slope(rules: Rules, scratch: Scratch, start: int, stop: int) -> None:
    """Multiply the deltas from number `start` to `stop` by the slope of the activation."""
    deltas, slope_inputs = scratch.deltas, scratch.sums  # without `activation.of_input` the sums are the outputs: see `Scratch`
    shift = start * deltas.itemsize
    addresses = deltas.ctypes.data + shift, slope_inputs.ctypes.data + shift
    call(rules.times_slope, (*addresses, stop - start, deltas.dtype.type(1)))


@jit()
def deltas_above(rules: Rules, network: Network, scratch: Scratch, first: int, stop: int) -> None:
    """From the deltas at the logits back to those of the second layer, for samples `first` to `stop`."""
    layers = network.layers
    for layer in range(layers.shape[0] - 1, 1, -1):
        _, n_out, stride_in, stride, _, transposed, _, source, target = row_of(layers, layer)
        out = Matrix(scratch.deltas, source + first * stride_in, stride_in, 1)
        above = Matrix(scratch.deltas, target + first * stride, stride, 1)
        zeros, matrix = Matrix(scratch.zeros, 0, 0, 1), Matrix(network.transposed, transposed, stride_in, 1)
        multiply(rules.product, stop - first, stride_in, n_out, out, zeros, network.first.dtype.type(1), above, matrix)
        times_slope(rules, scratch, source + first * stride_in, source + stop * stride_in)


@jit()
def first_deltas(rules: Rules, network: Network, scratch: Scratch, block: int, first: int, stop: int) -> None:
    """The deltas of a block of the first layer, for samples `first` to `stop`."""
    _, n_out, stride_in, stride, _, transposed, _, _, target = row_of(network.layers, 1)
    width = network.block
    start = (block * scratch.largest.shape[0] + first) * width
    out, above = Matrix(scratch.deltas, start, width, 1), Matrix(scratch.deltas, target + first * stride, stride, 1)
    zeros, matrix = Matrix(scratch.zeros, 0, 0, 1), Matrix(network.transposed, transposed + block * width, stride_in, 1)
    multiply(rules.product, stop - first, width, n_out, out, zeros, network.first.dtype.type(1), above, matrix)
    times_slope(rules, scratch, start, start + (stop - first) * width)


@inlined
def update(rules: Rules, inputs: EpochInput, network: Network, batch: int, parameters: Any, start: int, stop: int) -> None:
    """Update the numbers `start` to `stop` of an array of parameters; their gradients are set to 0 for the next step."""
    size, one = parameters.itemsize, parameters.dtype.type(1)
    address = parameters.ctypes.data + start * size
    shift = address - network.first.ctypes.data
    scalars = inputs.scalars.ctypes.data + batch * rules.n_scalars * size
    call(rules.update, (address, address + network.stride, network.slots.ctypes.data, shift, scalars, stop - start, one))


@inlined
def gradient_target(rules: Rules, inputs: EpochInput, network: Network, batch: int, parameters: Any) -> Any:
    """What a gradient is added to, and times what: by a rule that is just ``p - u * g`` the parameters themselves, times ``-u``.

    Returns
    -------
    at_once : bool
        Whether that is so; by any other rule the gradient is stored first, and `update` applies the rule.
    scale : number
    target : array
        The parameters, or their gradients.
    """
    one, at_once = parameters.dtype.type(1), rules.rate_index >= 0
    scale = -inputs.scalars[batch * rules.n_scalars + rules.rate_index] if at_once else one
    address = parameters.ctypes.data + (0 if at_once else network.stride)
    return at_once, scale, array_at(address, parameters.shape[0], one)


@inlined
def job_of(network: Network, block: int, share: int) -> Any:
    """The number of a share of a block among all jobs, and how many those are."""
    return block * network.shares + share, network.layers[0, OUT_STRIDE] // network.block * network.shares


@jit()
def update_weights_above(
    inputs: EpochInput, rules: Rules, network: Network, scratch: Scratch, batch: int, size: int, block: int, share: int
) -> None:
    """Update the part of the weights above the first layer that this job has, and of their copy in `transposed`."""
    layers, width, matrix, copy = network.layers, network.block, network.weights, network.transposed
    n_shares = network.shares
    job, n_jobs = job_of(network, block, share)
    at_once, scale, updated = gradient_target(rules, inputs, network, batch, matrix)
    base = matrix if at_once else scratch.zeros
    for layer in range(1, layers.shape[0]):
        n_in, n_out, stride_in, stride, weights, transposed, _, source, target = row_of(layers, layer)
        if layer == 1:  # its inputs are the outputs of the first layer, which lie block by block
            begin, n = block * width, max(0, min(width, n_in - block * width))
            first, stop = begin + n * share // n_shares, begin + n * (share + 1) // n_shares
            below = Matrix(scratch.outputs, begin * scratch.largest.shape[0] + first - begin, 1, width)
        else:
            first, stop = n_in * job // n_jobs, n_in * (job + 1) // n_jobs
            below = Matrix(scratch.outputs, source + first, 1, stride_in)
        first_weight, last_weight = weights + first * stride, weights + stop * stride
        rows, deltas = Matrix(updated, first_weight, stride, 1), Matrix(scratch.deltas, target, stride, 1)
        before = Matrix(base, first_weight if at_once else 0, stride if at_once else 0, 1)
        multiply(rules.product, stop - first, stride, size, rows, before, scale, below, deltas)
        if not at_once:
            update(rules, inputs, network, batch, matrix, first_weight, last_weight)
        for k in range(first, stop):
            for j in range(n_out):
                copy[transposed + j * stride_in + k] = matrix[weights + k * stride + j]


@jit()
def update_biases(
    inputs: EpochInput, rules: Rules, network: Network, scratch: Scratch, batch: int, size: int, block: int, share: int
) -> None:
    """Update the part of the biases of all layers that this job has."""
    layers, width, biases, deltas = network.layers, network.block, network.bias, scratch.deltas
    line = CACHE_LINE // biases.itemsize
    job, n_jobs = job_of(network, block, share)
    at_once, scale, updated = gradient_target(rules, inputs, network, batch, biases)
    base = biases if at_once else scratch.zeros
    for layer in range(layers.shape[0]):
        _, _, _, stride, _, _, bias, _, target = row_of(layers, layer)
        if layer == 0:
            first, stop, stride = 0, width if share == 0 else 0, width
            bias, target = block * width, block * width * scratch.largest.shape[0]
        else:
            n_lines = -(-stride // line)  # whole cache lines: two cores that write to one line wait for each other
            first, stop = n_lines * job // n_jobs * line, min(n_lines * (job + 1) // n_jobs * line, stride)
        if stop > first:
            at = bias + first
            sums, before = Matrix(updated, at, 0, 1), Matrix(base, at if at_once else 0, 0, 1)
            rows = Matrix(deltas, target + first, stride, 1)
            multiply(rules.product, 1, stop - first, size, sums, before, scale, Matrix(scratch.ones, 0, 0, 0), rows)
            if not at_once:
                update(rules, inputs, network, batch, biases, at, bias + stop)
