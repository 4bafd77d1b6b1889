"""PyTorch by hand: tensors, in-place products, the gradient written out, no autograd."""

from __future__ import annotations

from typing import Any

from mlp_accel.bench.engines.peers.base import HostParams
from mlp_accel.bench.engines.peers.pytorch import PyTorchPeer

Tensor = Any


class PyTorchHandwrittenPeer(PyTorchPeer):
    """The training step written out on tensors, in `torch.inference_mode`."""

    form = "hand-written step, eager"
    gradients = ("exact", "notebook")

    def start(self, params: HostParams) -> None:
        torch = self.package
        torch.manual_seed(self.seed)
        self.layers = [(torch.from_numpy(weights.copy()), torch.from_numpy(bias.copy())) for weights, bias in params]

    def epoch(self) -> tuple[float, float | None]:
        torch = self.package
        n = len(self.x)
        loss_sum, hits = torch.zeros((), dtype=self.x.dtype), torch.zeros((), dtype=torch.int64)
        with torch.inference_mode():
            for batch in torch.randperm(n).split(self.batch_size):
                loss, correct = self._step(self.x[batch], self.y[batch])
                loss_sum += loss
                hits += correct
        return float(loss_sum) / n, float(hits) / n

    def _step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        torch, layers = self.package, self.layers
        outputs = [x]
        for weights, bias in layers[:-1]:
            outputs.append(getattr(torch.addmm(bias, outputs[-1], weights), f"{self.activation}_")())
        logits = torch.addmm(layers[-1][1], outputs[-1], layers[-1][0])
        log_probabilities = torch.log_softmax(logits, 1)
        loss, hits = torch.nn.functional.nll_loss(log_probabilities, y, reduction="sum"), (logits.argmax(1) == y).sum()
        delta = log_probabilities.exp_()
        if self.gradient == "notebook":
            slope = delta * (1 - delta)
            delta[torch.arange(len(y)), y] -= 1
            delta *= slope
        else:
            delta[torch.arange(len(y)), y] -= 1
            delta /= len(y)
        for layer in reversed(range(len(layers))):
            weights, bias = layers[layer]
            below = self._hidden_delta(delta @ weights.T, outputs[layer]) if layer else None
            weights.addmm_(outputs[layer].T, delta, alpha=-self.learning_rate)
            bias.sub_(delta.sum(0), alpha=self.learning_rate)
            delta = below
        return loss, hits

    def _hidden_delta(self, error: Tensor, a: Tensor) -> Tensor:
        if self.activation == "tanh":
            return error.mul_(1 - a * a)
        if self.activation == "relu":
            return error.mul_(a > 0)
        return error.mul_(a * (1 - a))

    def params(self) -> HostParams:
        return [(weights.numpy().copy(), bias.numpy().copy()) for weights, bias in self.layers]
