"""PyTorch with its compiler: the step of a minibatch by `torch.compile`."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_accel.bench.engines.peers.base import HostParams
from mlp_accel.bench.engines.peers.pytorch import PyTorchPeer


class PyTorchCompilePeer(PyTorchPeer):
    """The step of `PyTorchPeer`, compiled for minibatches of the full size and for the short last one."""

    form = "torch.compile of the step"

    def warm_up(self) -> dict[str, Any]:
        """Two steps on noise, one of them of the size of the last minibatch."""
        rng = np.random.default_rng(0)
        n = self.batch_size + (self.config.n_train % self.batch_size or self.batch_size)
        self.place(rng.random((n, self.layer_sizes[0])).astype(self.dtype), rng.integers(0, self.layer_sizes[-1], n))
        self._begin(n)
        self.epoch()
        return {"device": "cpu", "form": self.form}

    def start(self, params: HostParams) -> None:
        """Begin from these weights in the model that was compiled, so that nothing is compiled anew."""
        torch = self.package
        if not hasattr(self, "model"):
            super().start(params)
            self.rate = self.torch_optimizer.param_groups[0]["lr"] = torch.tensor(self.learning_rate)
            self.train_batch = torch.compile(self.step, dynamic=False)
            return
        with torch.no_grad():
            for layer, (weights, bias) in zip(self._linear(), params, strict=True):
                layer.weight.copy_(torch.from_numpy(weights.T))
                layer.bias.copy_(torch.from_numpy(bias))
            for slots in self.torch_optimizer.state.values():
                for slot in slots.values():
                    if slot is not None:
                        slot.zero_()

    def set_rate(self, rate: float) -> None:
        self.rate.fill_(rate)
