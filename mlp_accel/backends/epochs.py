"""Whole epochs: the loop over the minibatches that all backends share, and several networks one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from mlp_accel.workspace import Workspace

if TYPE_CHECKING:
    from mlp_accel.backends.base import Backend

Array: TypeAlias = Any
"""An array of the backend's own library."""

Params: TypeAlias = list[tuple[Array, Array]]
"""``(weights (n_in, n_out), bias (n_out,))`` for each layer."""


class Step(Protocol):
    """What one step of training does: a reference that can be called, and the settings for those who do it in their own way."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def activation(self) -> str: ...
    @property
    def gradient(self) -> str: ...

    def __call__(
        self, backend: Backend, params: Params, x: Array, y: Array, rows: Array, workspace: Workspace
    ) -> tuple[Params, Any, Any]: ...


class WholeEpochs:
    """The part of `Backend` that trains whole epochs."""

    xp: Any
    _epoch_path = "ops"

    @property
    def epoch_path(self) -> str:
        """How the last epoch was trained, for people; ``"ops"`` is the shared loop."""
        return self._epoch_path

    def training_images(self, x: Array) -> Any:
        """The images `x`, or a form of them that `train_epoch` takes in their place.

        Made once for a training run, as data are copied to a GPU once: what is changed in `x` later may not be seen.
        """
        return x

    def train_epoch(
        self, step: Step, params: Params, x: Array, y: Array, order: Array, batch_size: int, workspace: Workspace
    ) -> tuple[Params, Array, Array]:
        """Train on every minibatch of `order` once: `step` in a loop.

        An override may fuse what it likes as long as the result is that of `step`, whose settings it reads.

        Parameters
        ----------
        step : Step
            One step of training.
        params : list of (weights, bias)
            Not changed.
        x : array (n, n_in)
            All images, uint8 or floating; or what `training_images` made of them.
        y : array (n,)
            All labels.
        order : array (n,)
            Indices of the samples in the order of training.
        batch_size : int
            The last minibatch takes what remains.
        workspace : Workspace
            Memory for minibatches of `batch_size`.

        Returns
        -------
        params : list of (weights, bias)
            After the epoch, in new memory.
        losses, hits : array (n_batches,)
            For each minibatch the sum of the losses and the number of right answers, before its update; float64.
        """
        self._epoch_path = "ops"
        backend = cast("Backend", self)
        params = [(backend.copy(weights), backend.copy(bias)) for weights, bias in params]
        losses, hits = [], []
        n = order.shape[0]
        for start in range(0, n, batch_size):
            rows = order[start : min(start + batch_size, n)]
            params, loss, hit = step(backend, params, x, y, rows, workspace.rows(rows.shape[0]))
            losses.append(loss)
            hits.append(hit)
        return params, self.xp.stack(losses), self.xp.stack(hits)

    def train_epoch_of_each(
        self, steps: Sequence[Step], params: Params, x: Array, y: Array, orders: Array, batch_size: int, workspace: Workspace
    ) -> tuple[Params, Array, Array]:
        """Train each of several networks on every minibatch of its own order once: `train_epoch` one after another.

        An override may train them side by side, with the same bits.

        Parameters
        ----------
        steps : sequence of Step
            One for each network; they may differ in the learning rate alone.
        params : list of (weights (networks, n_in, n_out), bias (networks, n_out))
            Not changed.
        x, y : array (n, n_in), array (n,)
            All images and labels, the same for all networks.
        orders : array (networks, n)
            Indices of the samples in the order of training.
        batch_size : int
            The last minibatch takes what remains.
        workspace : Workspace
            Memory for minibatches of `batch_size`.

        Returns
        -------
        params : list of (weights, bias)
            After the epoch, in new memory.
        losses, hits : array (networks, n_batches)
            As `train_epoch` returns them.
        """
        trained: list[Params] = []
        losses: list[Array] = []
        hits: list[Array] = []
        orders = self.xp.astype(orders, self.xp.int64)  # as `train_epoch` gets them everywhere
        for network, step in enumerate(steps):
            own = [(weights[network, ...], bias[network, ...]) for weights, bias in params]
            after, loss, hit = self.train_epoch(step, own, x, y, orders[network, ...], batch_size, workspace)
            trained.append(after)
            losses.append(loss)
            hits.append(hit)
        layers = zip(*trained, strict=True)
        stacked = [tuple(self.xp.stack(list(arrays)) for arrays in zip(*layer, strict=True)) for layer in layers]
        return [(weights, bias) for weights, bias in stacked], self.xp.stack(losses), self.xp.stack(hits)
