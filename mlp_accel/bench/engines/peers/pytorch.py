"""PyTorch as most people use it: modules, autograd, an optimiser, eager."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.bench.engines.peers.base import HostParams, Peer


class PyTorchPeer(Peer):
    """`torch.nn` modules trained by autograd and `torch.optim.SGD`."""

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
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.learning_rate)

    def epoch(self) -> tuple[float, float | None]:
        torch = self.package
        n = len(self.x)
        loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        (settings,) = self.optimizer.param_groups
        for batch, settings["lr"] in zip(
            torch.from_numpy(self.next_order()).split(self.batch_size), self.next_rates(), strict=True
        ):
            x, y = self.x[batch], self.y[batch]
            logits = self.model(x)
            loss = torch.nn.functional.cross_entropy(logits, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss_sum += loss.detach() * len(batch)
            hits += (logits.argmax(1) == y).sum()
        return float(loss_sum) / n, float(hits) / n

    def params(self) -> HostParams:
        linear = [layer for layer in self.model if hasattr(layer, "weight")]
        return [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in linear]
