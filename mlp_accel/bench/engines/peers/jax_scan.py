"""JAX: gradients by `jax.grad`, the whole epoch compiled, its steps a `lax.scan`."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.bench.engines.peers.base import BETA1, BETA2, EPSILON, HostParams, Peer


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
        rule = functools.partial(updated, jnp, self.optimizer, self.momentum, self.weight_decay)
        epoch = jax.jit(functools.partial(train_epoch, jax, self.activation, rule, self.batch_size), donate_argnums=0)
        self._compiled = epoch.lower(self.state, order, rates, x, y).compile()
        return {"device": "cpu", "form": self.form}

    def place(self, x: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> None:
        jnp = self.package.numpy
        self.x, self.y = self.package.block_until_ready((jnp.asarray(x), jnp.asarray(y, jnp.int32)))

    def start(self, params: HostParams) -> None:
        jnp = self.package.numpy
        layers = [(jnp.array(weights), jnp.array(bias)) for weights, bias in params]
        n_slots = {"sgd": 0, "momentum": 1, "nesterov": 1}.get(self.optimizer, 2)
        slots = [self.package.tree.map(jnp.zeros_like, layers) for _ in range(n_slots)]
        self.state = (layers, slots, jnp.zeros((), self.dtype))

    def epoch(self) -> tuple[float, float | None]:
        jnp = self.package.numpy
        order, rates = jnp.asarray(self.next_order(), jnp.int32), jnp.asarray(self.next_rates(), self.dtype)
        self.state, loss, accuracy = self._compiled(self.state, order, rates, self.x, self.y)
        self.package.block_until_ready(self.state)
        return float(loss), float(accuracy)

    def params(self) -> HostParams:
        return [(np.array(weights), np.array(bias)) for weights, bias in self.state[0]]


def updated(
    jnp: Any, optimizer: str, momentum: float, weight_decay: float, p: Any, grad: Any, slots: Any, rate: Any, step: Any
) -> tuple[Any, ...]:
    """The parameter, then its slots, after a step."""
    if weight_decay and optimizer != "adamw":
        grad = grad + weight_decay * p
    if optimizer in ("adam", "adamw"):
        first = BETA1 * slots[0] + (1 - BETA1) * grad
        second = BETA2 * slots[1] + (1 - BETA2) * grad**2
        root = jnp.sqrt(second / (1 - BETA2**step)) + EPSILON
        kept = p * (1 - rate * weight_decay) if optimizer == "adamw" else p
        return kept - rate / (1 - BETA1**step) * first / root, first, second
    if optimizer == "sgd":
        return (p - rate * grad,)
    velocity = momentum * slots[0] + grad
    return p - rate * (velocity if optimizer == "momentum" else grad + momentum * velocity), velocity


def train_epoch(
    jax: Any, activation: str, rule: Any, batch_size: int, state: Any, order: Any, rates: Any, x: Any, y: Any
) -> tuple[Any, Any, Any]:
    """New layers with their slots and the number of steps, mean loss and accuracy of an epoch.

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

    def step(state: Any, batch_and_rate: tuple[Any, Any]) -> tuple[Any, tuple[Any, Any]]:
        (layers, slots, steps), (batch, rate) = state, batch_and_rate
        grads, sums = jax.grad(mean_loss, has_aux=True)(layers, x[batch], y[batch])
        new = jax.tree.map(lambda p, grad, *kept: rule(p, grad, kept, rate, steps + 1), layers, grads, *slots)
        layers, *slots = jax.tree.transpose(jax.tree.structure(layers), jax.tree.structure((0,) * (1 + len(slots))), new)
        return (layers, slots, steps + 1), sums

    n = len(x)
    steps = n // batch_size
    whole = steps * batch_size
    state, (losses, hits) = jax.lax.scan(step, state, (order[:whole].reshape(-1, batch_size), rates[:steps]))
    loss, hit = losses.sum(), hits.sum()
    if whole < n:
        state, (last_loss, last_hits) = step(state, (order[whole:], rates[steps]))
        loss, hit = loss + last_loss, hit + last_hits
    return state, loss / n, hit / n
