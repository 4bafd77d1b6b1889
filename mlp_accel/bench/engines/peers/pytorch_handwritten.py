"""PyTorch by hand: tensors, in-place products, the gradient written out, no autograd."""

from __future__ import annotations

import math
from typing import Any

from mlp_accel.bench.engines.peers.base import BETA1, BETA2, EPSILON, HostParams
from mlp_accel.bench.engines.peers.pytorch import PyTorchPeer

Tensor = Any


class PyTorchHandwrittenPeer(PyTorchPeer):
    """The training step written out on tensors and buffers, in `torch.inference_mode`."""

    form = "hand-written step, eager"
    gradients = ("exact", "notebook")

    def start(self, params: HostParams) -> None:
        torch = self.package
        self.layers = [(torch.from_numpy(weights.copy()), torch.from_numpy(bias.copy())) for weights, bias in params]
        self.slots = [[(torch.zeros_like(p), torch.zeros_like(p)) for p in layer] for layer in self.layers]
        self.steps = 0
        self.samples = torch.arange(self.batch_size)
        self.outputs = [torch.empty((self.batch_size, n), dtype=self.x.dtype) for n in self.layer_sizes]

    def epoch(self) -> tuple[float, float | None]:
        torch = self.package
        n = len(self.x)
        loss_sum, hits = torch.zeros((), dtype=self.x.dtype), torch.zeros((), dtype=torch.int64)
        with torch.inference_mode():
            batches = torch.from_numpy(self.next_order()).split(self.batch_size)
            for batch, rate in zip(batches, self.next_rates(), strict=True):
                x = torch.index_select(self.x, 0, batch, out=self.outputs[0][: len(batch)])
                loss, correct = self._step(x, self.y[batch], rate)
                loss_sum += loss
                hits += correct
        return float(loss_sum) / n, float(hits) / n

    def _step(self, x: Tensor, y: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        torch, layers = self.package, self.layers
        self.steps += 1
        outputs = [x]
        for (weights, bias), buffer in zip(layers, self.outputs[1:], strict=True):
            torch.addmm(bias, outputs[-1], weights, out=buffer[: len(x)])
            outputs.append(buffer[: len(x)])
            if len(outputs) <= len(layers):
                getattr(outputs[-1], f"{self.activation}_")()
        logits = outputs.pop()
        log_probabilities = torch.log_softmax(logits, 1)
        loss, hits = torch.nn.functional.nll_loss(log_probabilities, y, reduction="sum"), (logits.argmax(1) == y).sum()
        delta = log_probabilities.exp_()
        if self.gradient == "notebook":
            slope = delta * (1 - delta)
            delta[self.samples[: len(y)], y] -= 1
            delta *= slope
        else:
            delta[self.samples[: len(y)], y] -= 1
            delta /= len(y)
        for layer in reversed(range(len(layers))):
            weights, bias = layers[layer]
            below = self._hidden_delta(delta @ weights.T, outputs[layer]) if layer else None
            if self.optimizer == "sgd" and not self.weight_decay:
                weights.addmm_(outputs[layer].T, delta, alpha=-rate)
                bias.sub_(delta.sum(0), alpha=rate)
            else:
                self._update(weights, outputs[layer].T @ delta, rate, *self.slots[layer][0])
                self._update(bias, delta.sum(0), rate, *self.slots[layer][1])
            delta = below
        return loss, hits

    def _update(self, p: Tensor, grad: Tensor, rate: float, first: Tensor, second: Tensor) -> None:
        if self.optimizer == "adamw":
            p.mul_(1 - rate * self.weight_decay)
        elif self.weight_decay:
            grad.add_(p, alpha=self.weight_decay)
        if self.optimizer in ("adam", "adamw"):
            first.lerp_(grad, 1 - BETA1)
            second.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
            root = second.sqrt().div_(math.sqrt(1 - BETA2**self.steps)).add_(EPSILON)
            p.addcdiv_(first, root, value=-rate / (1 - BETA1**self.steps))
            return
        if self.optimizer != "sgd":
            first.mul_(self.momentum).add_(grad)
            grad = first if self.optimizer == "momentum" else grad.add_(first, alpha=self.momentum)
        p.sub_(grad, alpha=rate)

    def _hidden_delta(self, error: Tensor, a: Tensor) -> Tensor:
        if self.activation == "tanh":
            return error.mul_(1 - a * a)
        if self.activation == "relu":
            return error.mul_(a > 0)
        return error.mul_(a * (1 - a))

    def params(self) -> HostParams:
        return [(weights.numpy().copy(), bias.numpy().copy()) for weights, bias in self.layers]
