"""Whole epochs: how a backend trains them, and the plain form of training several networks, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_accel.backends.base import Array, Params, Step
    from mlp_accel.workspace import Workspace


class ManyNetworks:
    """A part of `Backend`."""

    xp: Any

    def train_epoch(
        self, step: Step, params: Params, x: Array, y: Array, order: Array, batch_size: int, workspace: Workspace
    ) -> tuple[Params, Array, Array]:
        """See `Backend`."""
        raise NotImplementedError

    @property
    def has_fused_epoch(self) -> bool:
        """Whether it trains an epoch in a way of its own."""
        from mlp_accel.backends.base import Backend

        return type(self).train_epoch is not Backend.train_epoch

    @property
    def epoch_path(self) -> str:
        """How it trains an epoch, for people."""
        return "fused epoch" if self.has_fused_epoch else "ops"

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
