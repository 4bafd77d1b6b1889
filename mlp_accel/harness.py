"""The entry of `mlp-accel ab`: a training that another version of this package can start and time.

``ab`` measures two builds by the worker process of one of them. So whatever that worker uses of a build must mean the same in both,
and this module is all that it uses. What is here must keep its meaning: a change gets a new `VERSION`, and the worker still handles
the old ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.backends import get_backend
from mlp_accel.optimizers import find_optimizer
from mlp_accel.training.trainer import Trainer

VERSION = 1


class MeasuredTraining:
    """One network in training.

    Parameters
    ----------
    x, y : array (n, n_in), array (n,)
        Samples and labels, on the host.
    params : sequence of (weights, bias)
        Where it starts, on the host; not changed.
    backend, dtype : str
        As for `get_backend`.
    threads : int
        CPU threads. The process keeps to them for as long as this object lives.
    batch_size, learning_rate, seed : number
        As for `mini_batch_sgd`.
    activation, gradient, optimizer : str
        As for `mini_batch_sgd`, by name.
    settings : mapping of str to float
        Settings of the optimiser that differ from its defaults; None stands for the default.
    path : str
        A path by name, or ``"auto"``: the fastest that can train this.

    Attributes
    ----------
    device : str
        Where it computes, in words for people.
    path : str
        Name of the path that was taken.

    Raises
    ------
    MlpAccelError
        If this build or this machine cannot do what is asked.
    """

    def __init__(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        params: Sequence[tuple[Any, Any]],
        *,
        backend: str,
        dtype: str,
        threads: int,
        batch_size: int,
        learning_rate: float,
        activation: str,
        gradient: str,
        optimizer: str,
        settings: Mapping[str, float | None],
        seed: int,
        path: str,
    ) -> None:
        used = get_backend(backend, dtype)
        self._context = ExitStack()
        self._context.enter_context(np.errstate(all="ignore"))  # a loss that is not finite is the caller's to report
        self._context.enter_context(used.limit_threads(threads))
        self._trainer = Trainer(
            *(x, y, [params], used),
            batch_size=batch_size,
            activation=activation,
            gradient=gradient,
            optimizers=[find_optimizer(optimizer, **settings)],
            learning_rates=[learning_rate],
            seeds=[seed],
            path=path,
            threads=threads,
        )
        self.device = used.device
        self._device_seconds = used.launch_clock()
        self.path = self._trainer.taken.name

    def epoch(self) -> float:
        """Train on every sample once and wait for the device; returns the mean loss."""
        return self._trainer.epoch().losses[0]

    def device_seconds(self) -> float | None:
        """Seconds of the last epoch by the device's own clock, around the launches; None where there is none."""
        return self._device_seconds()
