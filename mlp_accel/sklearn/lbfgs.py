"""The solver L-BFGS: SciPy's, on the loss and the gradient of the whole data set."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning

from mlp_accel.activations import Activation
from mlp_accel.backends.arrays import Array
from mlp_accel.backends.base import Backend
from mlp_accel.backends.loop import to_backend
from mlp_accel.network import backward, forward, loss_accuracy
from mlp_accel.sklearn.rules import penalty_shares
from mlp_accel.training.evaluate import pieces

Pairs = list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]


def minimize(
    backend: Backend,
    x: Any,
    y: Array,
    params: Sequence[tuple[Any, Any]],
    activation: Activation,
    alpha: float,
    max_iter: int,
    max_fun: int,
    tol: float,
) -> tuple[Pairs, float, int]:
    """Parameters at which the loss with its penalty is smallest, that loss, and the number of iterations.

    Parameters
    ----------
    backend : Backend
        Of dtype float64.
    x, y
        All samples, as `on_device` returns them.
    params : list of (weights, bias)
        Where to start.
    alpha : float
        The loss has ``alpha / (2 * n)`` times the squares of the weights added.
    max_iter, max_fun, tol
        When to stop: iterations, evaluations, and the size of the gradient.
    """
    import scipy.optimize

    shapes = [(weights.shape, bias.shape) for weights, bias in params]
    n = x.shape[0]
    layers = zip(params, penalty_shares(params), strict=True)
    shares = pack([(np.full(weights.shape, share), np.zeros(bias.shape)) for (weights, bias), share in layers])

    def loss_and_gradient(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights_and_biases = unpack(flat, shapes)
        on_device = to_backend(backend, weights_and_biases)
        total, gradient = 0.0, np.zeros_like(flat)
        for samples, labels in pieces(backend, x, y):
            outputs, y_hat = forward(backend, on_device, samples, activation)
            loss, _ = loss_accuracy(backend, labels, y_hat)
            gradients = backward(backend, on_device, outputs, y_hat, labels, activation=activation)
            share = samples.shape[0] / n
            total += share * float(loss)
            gradient += share * pack([(backend.to_numpy(weights), backend.to_numpy(bias)) for weights, bias in gradients])
        decay = shares * flat
        return total + alpha / (2 * n) * float(decay @ flat), gradient + alpha / n * decay

    options = {"maxiter": max_iter, "maxfun": max_fun, "gtol": tol}
    start = pack([(weights.astype(np.float64), bias.astype(np.float64)) for weights, bias in params])
    result = scipy.optimize.minimize(loss_and_gradient, start, method="L-BFGS-B", jac=True, options=options)
    if result.status != 0:
        message = f"lbfgs did not converge in {result.nit} iterations: {result.message}; raise max_iter, or scale the data"
        warnings.warn(message, ConvergenceWarning, stacklevel=2)
    return unpack(result.x, shapes), float(result.fun), int(result.nit)


def pack(params: Sequence[tuple[Any, Any]]) -> npt.NDArray[np.float64]:
    """All parameters in one array."""
    return np.concatenate([array.ravel() for pair in params for array in pair])


def unpack(flat: npt.NDArray[np.float64], shapes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Pairs:
    """The inverse of `pack`, for pairs of these shapes."""
    sizes = [int(np.prod(shape)) for pair in shapes for shape in pair]
    arrays = iter(np.split(flat, np.cumsum(sizes)[:-1]))
    return [(next(arrays).reshape(weights), next(arrays).reshape(bias)) for weights, bias in shapes]
