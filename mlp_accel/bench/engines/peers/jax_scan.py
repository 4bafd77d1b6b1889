"""JAX: gradients by `jax.grad`, the whole epoch compiled, its steps a `lax.scan`."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.bench.engines.peers.base import HostParams, Peer


class JaxPeer(Peer):
    """An epoch as one compiled function of the weights and the data."""

    modules = ("jax", "jaxlib")
    distributions = ("jax", "jaxlib")
    form = "jit, lax.scan over the epoch"

    def prepare_import(self) -> None:
        """XLA reads the number of its threads when it is imported. It is not bound to cores, as no other engine is."""
        os.environ["NPROC"] = str(self.threads)
        os.environ["JAX_PLATFORMS"] = "cpu"

    def limit_threads(self) -> None:
        super().limit_threads()
        self.package.config.update("jax_enable_x64", self.dtype == "float64")

    def warm_up(self) -> dict[str, Any]:
        """Compile the epoch for the shape of the data, with which it will be called."""
        jax, jnp = self.package, self.package.numpy
        self.start(self._initial_params())
        n, n_in = self.config.n_train, self.layer_sizes[0]
        x, y = jax.ShapeDtypeStruct((n, n_in), jnp.dtype(self.dtype)), jax.ShapeDtypeStruct((n,), jnp.int32)
        order, rates = (
            jax.ShapeDtypeStruct((n,), jnp.int32),
            jax.ShapeDtypeStruct((-(-n // self.batch_size),), jnp.dtype(self.dtype)),
        )
        epoch = jax.jit(functools.partial(_epoch, jax, self.activation, self.batch_size), donate_argnums=0)
        self._compiled = epoch.lower(self.layers, order, rates, x, y).compile()
        return {"device": "cpu", "form": self.form}

    def place(self, x: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> None:
        jnp = self.package.numpy
        self.x, self.y = self.package.block_until_ready((jnp.asarray(x), jnp.asarray(y, jnp.int32)))

    def start(self, params: HostParams) -> None:
        jnp = self.package.numpy
        self.layers = [(jnp.array(weights), jnp.array(bias)) for weights, bias in params]

    def epoch(self) -> tuple[float, float | None]:
        jnp = self.package.numpy
        order, rates = jnp.asarray(self.next_order(), jnp.int32), jnp.asarray(self.next_rates(), self.dtype)
        self.layers, loss, accuracy = self._compiled(self.layers, order, rates, self.x, self.y)
        self.package.block_until_ready(self.layers)
        return float(loss), float(accuracy)

    def params(self) -> HostParams:
        return [(np.array(weights), np.array(bias)) for weights, bias in self.layers]


def _epoch(jax: Any, activation: str, batch_size: int, layers: Any, order: Any, rates: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
    """New layers, mean loss and accuracy of an epoch.

    The order is drawn outside: `jax.random.permutation` sorts, which takes a fifth of an epoch of MNIST.
    """
    jnp = jax.numpy
    hidden_activation = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[activation]

    def mean_loss(layers: Any, x: Any, y: Any) -> tuple[Any, tuple[Any, Any]]:
        for weights, bias in layers[:-1]:
            x = hidden_activation(x @ weights + bias)
        logits = x @ layers[-1][0] + layers[-1][1]
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)
        return losses.mean(), (losses.sum(), (logits.argmax(axis=1) == y).sum())

    def step(layers: Any, batch_and_rate: tuple[Any, Any]) -> tuple[Any, tuple[Any, Any]]:
        batch, rate = batch_and_rate
        grads, sums = jax.grad(mean_loss, has_aux=True)(layers, x[batch], y[batch])
        return jax.tree.map(lambda parameter, grad: parameter - rate * grad, layers, grads), sums

    n = len(x)
    steps = n // batch_size
    whole = steps * batch_size
    layers, (losses, hits) = jax.lax.scan(step, layers, (order[:whole].reshape(-1, batch_size), rates[:steps]))
    loss, hit = losses.sum(), hits.sum()
    if whole < n:
        layers, (last_loss, last_hits) = step(layers, (order[whole:], rates[steps]))
        loss, hit = loss + last_loss, hit + last_hits
    return layers, loss / n, hit / n
