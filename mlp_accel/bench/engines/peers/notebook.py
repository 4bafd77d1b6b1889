"""The teaching notebook's algorithm: float64, samples in columns, the bias in column 0 of the weights, one-hot labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.bench.engines.peers.base import HostParams, Peer
from mlp_accel.errors import PeerUnavailableError
from mlp_accel.training.notebook import from_notebook, to_notebook

Array = npt.NDArray[np.float64]


class NotebookPeer(Peer):
    """One hidden layer of tanh, as a beginner's notebook writes it: every result is a new array."""

    modules = ("numpy",)
    distributions = ("numpy",)
    form = "as in the notebook, float64"
    activations = ("tanh",)
    schedules = False
    gradients = ("exact", "notebook")
    optimizers = ("sgd",)
    decays = False

    def check_settings(self) -> None:
        super().check_settings()
        if len(self.layer_sizes) != 3:
            raise PeerUnavailableError("it has exactly one hidden layer")

    def place(self, x: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> None:
        self.x = np.hstack([np.ones((len(x), 1)), x])
        self.y = np.eye(self.layer_sizes[-1])[y]

    def start(self, params: HostParams) -> None:
        self.w1, self.w2 = (to_notebook(weights, bias).astype(np.float64) for weights, bias in params)

    def epoch(self) -> tuple[float, float | None]:
        n = len(self.x)
        order = self.next_order()
        loss = hits = 0.0
        for start in range(0, n, self.batch_size):
            batch = order[start : start + self.batch_size]
            batch_loss, batch_hits = self._step(self.x[batch], self.y[batch])
            loss += batch_loss
            hits += batch_hits
        return loss / n, hits / n

    def _step(self, x: Array, y: Array) -> tuple[float, float]:
        hidden = np.tanh(self.w1 @ x.T)
        a1 = np.vstack([np.ones(len(x)), hidden])
        z2 = self.w2 @ a1
        e = np.exp(z2 - z2.max(axis=0))
        y_hat = e / e.sum(axis=0)
        loss = -np.log(np.sum(y_hat * y.T, axis=0)).sum()
        hits = np.sum(y_hat.argmax(axis=0) == y.argmax(axis=1))
        error = y_hat - y.T
        error = error * y_hat * (1 - y_hat) if self.gradient == "notebook" else error / len(x)
        grad2 = error @ a1.T
        grad1 = ((self.w2[:, 1:].T @ error) * (1 - hidden**2)) @ x
        self.w1 = self.w1 - self.learning_rate * grad1
        self.w2 = self.w2 - self.learning_rate * grad2
        return float(loss), float(hits)

    def params(self) -> HostParams:
        return [from_notebook(self.w1), from_notebook(self.w2)]
