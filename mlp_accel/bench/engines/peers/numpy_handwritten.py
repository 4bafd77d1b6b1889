"""NumPy by hand: the loop that somebody writes who knows NumPy well and has only this network to train."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.bench.engines.peers.base import BETA1, BETA2, EPSILON, HostParams, Peer

Array = npt.NDArray[Any]


class NumpyHandwrittenPeer(Peer):
    """Minibatches gathered into a buffer, products into buffers; for plain SGD the learning rate is multiplied into the delta."""

    modules = ("numpy",)
    distributions = ("numpy",)
    form = "hand-written loop"
    gradients = ("exact", "notebook")

    def place(self, x: Array, y: npt.NDArray[np.int64]) -> None:
        self.x, self.y = x, y

    def start(self, params: HostParams) -> None:
        self.layers = [(weights.copy(), bias.copy()) for weights, bias in params]
        size = min(self.batch_size, len(self.x))
        self.outputs = [np.empty((size, n), self.dtype) for n in self.layer_sizes]
        self.deltas = [np.empty((size, n), self.dtype) for n in self.layer_sizes]
        self.grads = [np.empty_like(weights) for weights, _ in self.layers]
        self.slots = [[[np.zeros_like(p) for _ in range(3)] for p in layer] for layer in self.layers]  # two, and room for a result
        self.plain = self.optimizer == "sgd" and not self.weight_decay
        self.steps = 0
        self.samples = np.arange(size)

    def epoch(self) -> tuple[float, float | None]:
        n = len(self.x)
        order = self.next_order()
        loss = hits = 0.0
        for start, rate in zip(range(0, n, self.batch_size), self.next_rates(), strict=True):
            batch_loss, batch_hits = self._step(order[start : start + self.batch_size], rate)
            loss += batch_loss
            hits += batch_hits
        return float(loss) / n, float(hits) / n

    def _step(self, batch: Array, rate: float) -> tuple[Any, Any]:
        m = len(batch)
        outputs, samples = [a[:m] for a in self.outputs], self.samples[:m]
        np.take(self.x, batch, axis=0, out=outputs[0], mode="clip")  # any other mode copies once more
        y = self.y[batch]
        for layer, (weights, bias) in enumerate(self.layers):
            z = np.matmul(outputs[layer], weights, out=outputs[layer + 1])
            z += bias
            if layer < len(self.layers) - 1:
                self._activate(z)
        hits = np.count_nonzero(z.argmax(axis=1) == y)
        z -= z.max(axis=1, keepdims=True)
        of_label = z[samples, y]
        np.exp(z, out=z)
        sums = z.sum(axis=1, keepdims=True)
        loss = np.log(sums).sum() - of_label.sum()
        z /= sums
        self.steps += 1
        self._backward(outputs, self._output_delta(z, samples, y, rate if self.plain else 1.0), rate)
        return loss, hits

    def _activate(self, z: Array) -> None:
        if self.activation == "tanh":
            np.tanh(z, out=z)
        elif self.activation == "relu":
            np.maximum(z, 0, out=z)
        else:
            np.negative(z, out=z)
            np.exp(z, out=z)
            z += 1
            np.reciprocal(z, out=z)

    def _output_delta(self, y_hat: Array, samples: Array, y: Array, rate: float) -> Array:
        """`rate` times the error at the logits, written over the probabilities."""
        if self.gradient == "notebook":
            slope = y_hat * (1 - y_hat)
            slope *= rate
            y_hat[samples, y] -= 1
            y_hat *= slope
        else:
            y_hat[samples, y] -= 1
            y_hat *= rate / len(y)
        return y_hat

    def _backward(self, outputs: list[Array], delta: Array, rate: float) -> None:
        for layer in reversed(range(len(self.layers))):
            weights, bias = self.layers[layer]
            a, error = outputs[layer], delta
            if layer:
                delta = np.matmul(error, weights.T, out=self.deltas[layer][: len(error)])
            grad = np.matmul(a.T, error, out=self.grads[layer])
            if self.plain:
                weights -= grad
                bias -= error.sum(axis=0)
            else:
                self._update(weights, grad, rate, *self.slots[layer][0])
                self._update(bias, error.sum(axis=0), rate, *self.slots[layer][1])
            if layer:
                delta *= self._slope(a)

    def _update(self, p: Array, grad: Array, rate: float, first: Array, second: Array, room: Array) -> None:
        if self.optimizer == "adamw":
            p *= 1 - rate * self.weight_decay
        elif self.weight_decay:
            grad += np.multiply(p, self.weight_decay, out=room)
        if self.optimizer in ("adam", "adamw"):
            first *= BETA1
            first += np.multiply(grad, 1 - BETA1, out=room)
            second *= BETA2
            grad *= grad
            grad *= 1 - BETA2
            second += grad
            root = np.sqrt(second, out=grad)
            root /= math.sqrt(1 - BETA2**self.steps)
            root += EPSILON
            np.divide(first, root, out=room)
            room *= rate / (1 - BETA1**self.steps)
        elif self.optimizer == "sgd":
            np.multiply(grad, rate, out=room)
        else:
            first *= self.momentum
            first += grad
            if self.optimizer == "nesterov":
                np.multiply(first, self.momentum, out=room)
                room += grad
                room *= rate
            else:
                np.multiply(first, rate, out=room)
        p -= room

    def _slope(self, a: Array) -> Array:
        """Derivative of the activation, from what it put out."""
        if self.activation == "relu":
            return np.greater(a, 0)
        square = a * a
        np.subtract(1 if self.activation == "tanh" else a, square, out=square)
        return square

    def params(self) -> HostParams:
        return [(weights.copy(), bias.copy()) for weights, bias in self.layers]
