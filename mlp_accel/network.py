"""The multilayer perceptron: initial parameters, forward pass, loss, backward pass and SGD update.

The whole algorithm, on any number of layers and on any backend. Parameters are a list of ``(weights, bias)``, one pair per layer,
``weights`` of shape ``(n_in, n_out)`` and ``bias`` of shape ``(n_out,)``. Inputs are never changed; a ``workspace`` is memory
that the results may be written to, so without one every result is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import SettingError
from mlp_accel.workspace import NO_WORKSPACE, Workspace

if TYPE_CHECKING:
    from mlp_accel.backends.base import Array, Backend, Params


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
    if len(layer_sizes) < 2 or any(size != int(size) or size < 1 for size in layer_sizes):
        raise SettingError(f"layer_sizes must be two or more positive integers, inputs first; got {list(layer_sizes)}")
    rng = np.random.default_rng(seed)
    params = []
    for n_in, n_out in pairwise(layer_sizes):
        sigma = n_in**-0.5 if scale is None else scale
        weights = rng.normal(0.0, sigma, (n_in, n_out))
        bias = rng.normal(0.0, sigma, n_out) if random_bias else np.zeros(n_out)
        params.append((weights, bias))
    return params


def forward(
    backend: Backend, params: Params, x: Array, activation: str = "tanh", workspace: Workspace = NO_WORKSPACE
) -> tuple[list[Array], Array]:
    """Propagate a batch through the network.

    Parameters
    ----------
    backend : Backend
        Where the arrays live.
    params : list of (weights, bias)
        Arrays of the backend.
    x : array (n, n_in)
        uint8 (scaled by 1/255) or the backend's floating dtype (used as it is).
    activation : {"tanh", "relu", "sigmoid"}
        Of the hidden layers.

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
    outputs = [backend.scale_pixels(x)]
    for layer, (weights, bias) in enumerate(params):
        layer_activation = activation if layer < len(params) - 1 else "identity"
        outputs.append(backend.dense(outputs[-1], weights, bias, layer_activation, out=workspace.output(layer)))
    return outputs, backend.softmax(outputs[-1], out=workspace.y_hat)


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
    activation: str = "tanh",
    workspace: Workspace = NO_WORKSPACE,
) -> Params:
    """Propagate the error back: one ``(weights, bias)`` gradient per layer.

    Parameters
    ----------
    outputs, y_hat
        As `forward` returned them.
    y : array (n,)
        Integer labels.
    gradient : {"exact", "notebook"}
        ``"exact"``: the gradient of the mean cross-entropy. ``"notebook"``: the rule of the notebook, a sum over the batch in which
        the error is multiplied by ``y_hat * (1 - y_hat)`` once more.
    activation : {"tanh", "relu", "sigmoid"}
        As given to `forward`.

    Returns
    -------
    list of (weights, bias)
        Gradients in the shapes of the parameters.
    """
    delta = backend.output_delta(y, y_hat, gradient, out=workspace.delta(len(params) - 1))
    grads = []
    for layer in reversed(range(len(params))):
        grads.append(backend.dense_gradient(outputs[layer], delta, out=workspace.grad(layer)))
        if layer > 0:
            weights, _ = params[layer]
            delta = backend.hidden_delta(delta, weights, outputs[layer], activation, out=workspace.delta(layer - 1))
    return grads[::-1]


def sgd(backend: Backend, params: Params, grads: Params, learning_rate: float, in_place: bool = False) -> Params:
    """Go one step down the gradient: ``parameter - learning_rate * gradient``.

    Parameters
    ----------
    params, grads : list of (weights, bias)
        Arrays of the backend.
    learning_rate : float
        Step size.
    in_place : bool
        Allow the backend to write the result over `params`.

    Returns
    -------
    list of (weights, bias)
        The updated parameters.
    """

    def step(parameter: Array, grad: Array) -> Array:
        return backend.sgd_update(parameter, grad, float(learning_rate), out=parameter if in_place else None)

    return [(step(w, dw), step(b, db)) for (w, b), (dw, db) in zip(params, grads, strict=True)]
