"""scikit-learn: `MLPClassifier`, one `partial_fit` an epoch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.bench.engines.peers.base import HostParams, Peer
from mlp_accel.errors import PeerUnavailableError


class ScikitLearnPeer(Peer):
    """`sklearn.neural_network.MLPClassifier`; its weight decay spares the biases, which ours does not."""

    modules = ("sklearn.neural_network",)
    distributions = ("scikit-learn",)
    form = "MLPClassifier.partial_fit"
    schedules = False
    optimizers = ("sgd", "momentum", "nesterov", "adam")
    decays = False
    takes_order = False

    def check_settings(self) -> None:
        super().check_settings()
        if self.layer_sizes[-1] == 2:
            raise PeerUnavailableError("for two classes it trains another network: one output with a logistic loss")

    def limit_threads(self) -> None:
        super().limit_threads()
        self.sklearn = importlib.import_module("sklearn")

    def place(self, x: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> None:
        self.x, self.y = x, y

    def start(self, params: HostParams) -> None:
        self.model = self.package.MLPClassifier(
            self.layer_sizes[1:-1],
            activation={"sigmoid": "logistic"}.get(self.activation, self.activation),
            solver="adam" if self.optimizer == "adam" else "sgd",
            alpha=0,
            batch_size=self.batch_size,
            learning_rate_init=self.learning_rate,
            momentum=self.momentum,
            nesterovs_momentum=self.optimizer == "nesterov",
            random_state=np.random.RandomState(self.seed),
        )
        first = slice(0, self.batch_size)  # it makes its arrays when it first sees data
        self.model.partial_fit(self.x[first], self.y[first], classes=np.arange(self.layer_sizes[-1]))
        del self.model._optimizer  # the next call makes another, which remembers nothing of those data
        self.model.coefs_ = [weights.copy() for weights, _ in params]
        self.model.intercepts_ = [bias.copy() for _, bias in params]

    def epoch(self) -> tuple[float, float | None]:
        with self.sklearn.config_context(assume_finite=True):  # else it looks at every number of every sample in every epoch
            self.model.partial_fit(self.x, self.y)
        return float(self.model.loss_), None

    def params(self) -> HostParams:
        return [(w.copy(), b.copy()) for w, b in zip(self.model.coefs_, self.model.intercepts_, strict=True)]
