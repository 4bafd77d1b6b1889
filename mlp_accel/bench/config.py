"""What a benchmark trains, and how it measures it: the settings that stand in the result file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlp_accel.bench.record import Record

MIN_EPOCHS = 5
"""Fewer steady epochs make a result short: good for a look, not for keeping."""


@dataclass(frozen=True, kw_only=True)
class Config(Record):
    """What is trained, and how it is measured. The defaults are those of the command, for MNIST and one thread.

    Attributes
    ----------
    layer_sizes : tuple of int
        Inputs, units of each hidden layer, classes.
    path : str or None
        The one path that is measured of every backend; None for two of them: the loop and the fastest.
    schedule_epochs : int or None
        Epochs from the first rate of the schedule to the last; None for a constant rate.
    data : str
        As `datasets.load` takes it.
    n_train : int
        Training samples.
    epochs, warm_up_epochs : int
        Epochs that count, and those before them.
    short : bool
        Too few epochs to quote.

    The others are those of `mini_batch_sgd` and `get_backend`.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"schedule", "schedule_epochs"})

    activation: str = "tanh"
    gradient: str = "exact"
    dtype: str = "float32"
    batch_size: int = 128
    layer_sizes: tuple[int, ...] = (784, 32, 10)
    optimizer: str = "sgd"
    learning_rate: float = 0.5
    momentum: float | None = None
    weight_decay: float | None = 0.0
    schedule: str = "constant"
    schedule_epochs: int | None = None
    seed: int = 0
    threads: int = 1
    path: str | None = None
    data: str = "mnist"
    n_train: int = 60_000
    epochs: int = 10
    warm_up_epochs: int = 1
    short: bool = False

    @property
    def network(self) -> str:
        """The layer sizes in words: ``784-32-10``."""
        return "-".join(str(size) for size in self.layer_sizes)
