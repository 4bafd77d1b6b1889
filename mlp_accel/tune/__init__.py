"""Many networks on many workers: which settings are the best ones for some data.

>>> from mlp_accel.tune import grid, tune
>>> found = tune(grid(learning_rate=[0.1, 0.3], hidden=[32, 64]), "mnist", seeds=5, results="tune.jsonl")
>>> found.ranking()[0].settings
"""

from mlp_accel.tune.ranking import Ranked, Tuning
from mlp_accel.tune.space import Range, grid, sample
from mlp_accel.tune.tuner import tune

__all__ = ["Range", "Ranked", "Tuning", "grid", "sample", "tune"]
