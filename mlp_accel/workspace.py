"""Memory that training reuses from one step to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlp_accel.backends.base import Array, Backend


@dataclass(frozen=True)
class Workspace:
    """Where the results of one training step may be written. An empty workspace makes every op return new memory.

    Attributes
    ----------
    x : array (batch_size, n_in), optional
        The minibatch, scaled.
    y_hat : array (batch_size, n_classes), optional
        Probabilities.
    outputs, deltas : list of array (batch_size, n_out)
        Output and error of each layer.
    grads : list of (array (n_in, n_out), array (n_out,))
        Gradients of each layer.
    """

    x: Array | None = None
    y_hat: Array | None = None
    outputs: Sequence[Array] = ()
    deltas: Sequence[Array] = ()
    grads: Sequence[tuple[Array, Array]] = ()

    @classmethod
    def allocate(cls, backend: Backend, layer_sizes: Sequence[int], batch_size: int) -> Workspace:
        """Memory on `backend` for minibatches of up to `batch_size` samples."""
        n_in, *n_outs = layer_sizes
        return cls(
            x=backend.empty((batch_size, n_in)),
            y_hat=backend.empty((batch_size, n_outs[-1])),
            outputs=[backend.empty((batch_size, n)) for n in n_outs],
            deltas=[backend.empty((batch_size, n)) for n in n_outs],
            grads=[(backend.empty((m, n)), backend.empty((n,))) for m, n in pairwise(layer_sizes)],
        )

    def rows(self, n: int) -> Workspace:
        """The part of it that a minibatch of `n` samples fills."""
        if self.x is None or self.y_hat is None or self.x.shape[0] == n:
            return self
        return replace(
            self,
            x=self.x[:n, :],
            y_hat=self.y_hat[:n, :],
            outputs=[a[:n, :] for a in self.outputs],
            deltas=[d[:n, :] for d in self.deltas],
        )

    def output(self, layer: int) -> Array | None:
        """Where `layer` may put its output."""
        return self.outputs[layer] if self.outputs else None

    def delta(self, layer: int) -> Array | None:
        """Where the error of `layer` may go."""
        return self.deltas[layer] if self.deltas else None

    def grad(self, layer: int) -> tuple[Array, Array] | None:
        """Where the gradients of `layer` may go."""
        return self.grads[layer] if self.grads else None


NO_WORKSPACE = Workspace()
