"""PyTorch as most people use it: modules, autograd, an optimiser, eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.bench.engines.peers.base import HostParams, Peer


class PyTorchPeer(Peer):
    """`torch.nn` modules trained by autograd and an optimiser of `torch.optim`."""

    modules = ("torch",)
    distributions = ("torch",)
    form = "autograd, eager"

    def limit_threads(self) -> None:
        super().limit_threads()
        self.package.set_num_threads(self.threads)

    def place(self, x: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> None:
        self.x, self.y = self.package.from_numpy(x), self.package.from_numpy(y)

    def start(self, params: HostParams) -> None:
        torch = self.package
        activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}[self.activation]
        layers: list[Any] = []
        for weights, bias in params:
            layer = torch.nn.Linear(*weights.shape, dtype=self.x.dtype)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weights.T))
                layer.bias.copy_(torch.from_numpy(bias))
            layers += [layer, activation()]
        self.model = torch.nn.Sequential(*layers[:-1])
        self.torch_optimizer = self._torch_optimizer(self.model.parameters())
        self.train_batch: Callable[[Any, Any], tuple[Any, Any]] = self.step

    def _torch_optimizer(self, parameters: Any) -> Any:
        optim, settings = self.package.optim, {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer in ("adam", "adamw"):
            return {"adam": optim.Adam, "adamw": optim.AdamW}[self.optimizer](parameters, **settings)
        return optim.SGD(parameters, momentum=self.momentum, nesterov=self.optimizer == "nesterov", **settings)

    def epoch(self) -> tuple[float, float | None]:
        torch = self.package
        n = len(self.x)
        loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for batch, rate in zip(torch.from_numpy(self.next_order()).split(self.batch_size), self.next_rates(), strict=True):
            self.set_rate(rate)
            loss, correct = self.train_batch(self.x[batch], self.y[batch])
            loss_sum += loss * len(batch)
            hits += correct
        return float(loss_sum) / n, float(hits) / n

    def set_rate(self, rate: float) -> None:
        """Take the next step with this learning rate."""
        self.torch_optimizer.param_groups[0]["lr"] = rate

    def step(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Train on a minibatch; mean loss and number of right answers."""
        logits = self.model(x)
        loss = self.package.nn.functional.cross_entropy(logits, y)
        self.torch_optimizer.zero_grad()
        loss.backward()
        self.torch_optimizer.step()
        return loss.detach(), (logits.argmax(1) == y).sum()

    def params(self) -> HostParams:
        return [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in self._linear()]

    def _linear(self) -> list[Any]:
        return [layer for layer in self.model if hasattr(layer, "weight")]
