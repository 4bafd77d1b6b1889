"""The multilayer perceptron: initial parameters, forward pass, loss, backward pass and update.

The whole algorithm, on any number of layers and on any backend: `train_step` is what trains, and the public verbs `forward`,
`backward` and `sgd` are made of the same pieces. Parameters are a list of ``(weights, bias)``, one pair per layer, ``weights`` of
shape ``(n_in, n_out)`` and ``bias`` of shape ``(n_out,)``. The verbs never change their inputs.

A *delta* is the error at a layer: the derivative of the loss by what goes into the layer's activation, for each sample and unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation, find_activation
from mlp_accel.backends.arrays import Array, Params, Slots
from mlp_accel.backends.base import Backend
from mlp_accel.backends.paths import Task
from mlp_accel.errors import SettingError
from mlp_accel.optimizers import OPTIMIZERS, Optimizer


def init_params(
    layer_sizes: Sequence[int], seed: int = 0, scale: float | None = None, random_bias: bool = False
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Draw initial parameters from N(0, scale), on the host.

    Parameters
    ----------
    layer_sizes : sequence of int
        Number of inputs, of units in each hidden layer, and of classes: ``[784, 32, 10]``.
    seed : int
        The same seed gives the same bits for every backend.
    scale : float, optional
        Standard deviation of the weights. By default ``1 / sqrt(n_in)`` for each layer, which keeps the variance of the signal
        (LeCun et al., "Efficient BackProp", 1998, section 4.6).
    random_bias : bool
        Draw the biases too, as the notebook does; otherwise they are zero.

    Returns
    -------
    list of (weights, bias)
        float64 arrays of shape ``(n_in, n_out)`` and ``(n_out,)``.

    Raises
    ------
    SettingError
        With fewer than two layer sizes, or one that is not a positive integer.
    """
    try:
        sizes = [index(size) for size in layer_sizes]
    except TypeError:
        sizes = []
    if len(sizes) < 2 or min(sizes) < 1:
        raise SettingError(f"layer_sizes must be two or more positive integers, inputs first; got {list(layer_sizes)}")
    rng = np.random.default_rng(seed)
    params = []
    for n_in, n_out in pairwise(sizes):
        sigma = n_in**-0.5 if scale is None else scale
        weights = rng.normal(0.0, sigma, (n_in, n_out))
        bias = rng.normal(0.0, sigma, n_out) if random_bias else np.zeros(n_out)
        params.append((weights, bias))
    return params


# What trains ----------------------------------------------------------------------------------------------------------------------


def train_step(
    backend: Backend, params: Params, slots: Slots, x: Array, y: Array, task: Task, scalars: Any
) -> tuple[Params, Slots, Any, Any]:
    """Train on one minibatch: forward, loss, backward, and each layer's update as soon as its delta is known.

    Parameters
    ----------
    params : list of (weights, bias)
        May be overwritten.
    slots : list of list of (weights, bias)
        For each layer what the optimiser remembers, a pair in the shapes of the parameters for each slot; may be overwritten.
    x : array (n, n_in)
        The minibatch, floating.
    y : array (n,)
        Integer labels.
    task : Task
        Activation, gradient and update rule.
    scalars : sequence of float
        The numbers of this step that are the same for all parameters (the learning rate and the like), as `Optimizer.scalars`
        computes them.

    Returns
    -------
    params, slots
        After the update.
    loss, hits : 0-d values of the backend
        Sum of the losses and number of right answers, before the update; float64.
    """
    outputs, slope_inputs = layer_outputs(backend, params, x, task.activation)
    delta, loss, hits = backend.classify(outputs[-1], y, task.gradient)
    for layer, layer_input, layer_delta in walk_back(backend, params, outputs, slope_inputs, delta, task.activation):
        params[layer], slots[layer] = backend.update(params[layer], slots[layer], layer_input, layer_delta, task.rule, scalars)
    return params, slots, loss, hits


def layer_outputs(backend: Backend, params: Params, x: Array, activation: Activation) -> tuple[list[Array], list[Array]]:
    """Propagate a minibatch through all layers.

    Returns
    -------
    outputs : list of array
        ``[x, a1, ..., logits]``: the input, then the output of each layer.
    slope_inputs : list of array
        For each layer the array that the slope of the activation is computed from on the way back: the output of the layer, or the
        sums that go into the activation (``activation.of_input``).
    """
    outputs, slope_inputs = [x], []
    for layer, (weights, bias) in enumerate(params, start=1):
        output, slope_input = backend.dense(outputs[-1], weights, bias, activation if layer < len(params) else None)
        outputs.append(output)
        slope_inputs.append(slope_input)
    return outputs, slope_inputs


def walk_back(
    backend: Backend, params: Params, outputs: Sequence[Array], slope_inputs: Sequence[Array], delta: Array, activation: Activation
) -> Iterator[tuple[int, Array, Array]]:
    """Walk from the last layer to the first: for each layer its number, its input and its delta.

    `outputs` and `slope_inputs` are those of `layer_outputs`, `delta` is that at the logits. The delta of the layer below is
    computed before a layer is yielded, so whoever gets the layer may change its weights.
    """
    for layer in reversed(range(len(params))):
        weights, _ = params[layer]
        below = backend.hidden_delta(delta, weights, slope_inputs[layer - 1], activation) if layer > 0 else None
        yield layer, outputs[layer], delta
        delta = below


# The public verbs -----------------------------------------------------------------------------------------------------------------


def forward(backend: Backend, params: Params, x: Array, activation: str | Activation = "tanh") -> tuple[list[Array], Array]:
    """Propagate a minibatch through the network.

    Parameters
    ----------
    backend : Backend
        Where the arrays live.
    params : list of (weights, bias)
        Arrays of the backend.
    x : array (n, n_in)
        uint8 (scaled by 1/255) or the backend's floating dtype (used as it is).
    activation : str or Activation
        Activation of the hidden layers: a name in `mlp_accel.activations`, or one of your own.

    Returns
    -------
    outputs : list of array
        ``[x, a1, ..., logits]``: the scaled input and what each layer puts out, ``(n, n_out)`` each.
    y_hat : array (n, n_classes)
        Probabilities, the softmax of the logits.

    Raises
    ------
    ValueError
        If the shapes do not fit or the activation is unknown.
    TypeError
        If `x` is neither uint8 nor of the backend's dtype.
    """
    backend.check_input(x, n_in=params[0][0].shape[0])
    outputs, _ = layer_outputs(backend, params, backend.scale_pixels(x), find_activation(activation))
    return outputs, backend.softmax(outputs[-1])


def loss_accuracy(backend: Backend, y: Array, y_hat: Array) -> tuple[Any, Any]:
    """Mean cross-entropy and fraction of right answers.

    Parameters
    ----------
    y : array (n,)
        Integer labels in ``0 ... n_classes - 1``. A label outside counts as no class at all: training and `evaluate` check the
        labels beforehand, on the host, because a check here would have to wait for the device.
    y_hat : array (n, n_classes)
        Probabilities, clipped from below at the dtype's smallest normal number.

    Returns
    -------
    loss, accuracy : 0-d values of the backend
        Not synchronised; ``float(loss)`` waits for the device.
    """
    n = y_hat.shape[0]
    return backend.cross_entropy(y, y_hat) / n, backend.correct(y, y_hat) / n


def backward(
    backend: Backend,
    params: Params,
    outputs: Sequence[Array],
    y_hat: Array,
    y: Array,
    gradient: str = "exact",
    activation: str | Activation = "tanh",
) -> Params:
    """Propagate the deltas back: one ``(weights, bias)`` gradient per layer.

    Parameters
    ----------
    outputs, y_hat
        As `forward` returned them.
    y : array (n,)
        Integer labels.
    gradient : {"exact", "notebook"}
        ``"exact"``: the gradient of the mean cross-entropy. ``"notebook"``: the rule of the notebook, a sum over the samples, in
        which the delta at the logits is multiplied by ``y_hat * (1 - y_hat)`` once more.
    activation : str or Activation
        As given to `forward`. If its slope is a function of the sums that go into the activation (``of_input``), they are computed
        once more, because `forward` does not return them.

    Returns
    -------
    list of (weights, bias)
        Gradients in the shapes of the parameters.
    """
    activation = find_activation(activation)
    slope_inputs = outputs[1:]
    if activation.of_input:
        hidden = zip(outputs[:-2], params[:-1], strict=True)
        slope_inputs = [backend.dense(x, weights, bias, None)[0] for x, (weights, bias) in hidden]
    delta = backend.output_delta(y, y_hat, gradient)
    walk = walk_back(backend, params, outputs, slope_inputs, delta, activation)
    return [backend.dense_gradient(layer_input, layer_delta) for _, layer_input, layer_delta in walk][::-1]


def sgd(backend: Backend, params: Params, grads: Params, learning_rate: float) -> Params:
    """Go one step down the gradient: ``parameter - learning_rate * gradient``.

    Parameters
    ----------
    params, grads : list of (weights, bias)
        Arrays of the backend.
    learning_rate : float
        Step size.

    Returns
    -------
    list of (weights, bias)
        The updated parameters, in new memory.
    """
    rule = Optimizer.record_for([OPTIMIZERS["sgd"]])

    def step(parameter: Array, grad: Array) -> Array:
        return backend.apply_rule(rule, parameter, grad, [], [float(learning_rate)])[0]

    return [(step(w, dw), step(b, db)) for (w, b), (dw, db) in zip(params, grads, strict=True)]
