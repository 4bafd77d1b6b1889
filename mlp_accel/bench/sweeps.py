"""Speed against batch size or hidden width: the whole protocol at each value, and where one engine overtakes another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise

from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import CALL_TIMEOUT
from mlp_accel.bench.protocol import run_benchmark
from mlp_accel.bench.results import Cell, Crossover, Run, Sweep
from mlp_accel.bench.runs import Listener
from mlp_accel.errors import SettingError

PARAMETERS = {"batch_size": "batch size", "hidden": "hidden units"}
"""What can be swept, and what people call it."""


def check_values(parameter: str, values: Sequence[int], n_train: int) -> None:
    """Refuse values that cannot be swept.

    Raises
    ------
    SettingError
        For fewer than two different values, one below 1, or a batch larger than the training set.
    """
    option = f"--sweep-{parameter.partition('_')[0]}"
    if len(set(values)) < 2 or min(values) < 1:
        raise SettingError(f"{option} needs two or more different positive numbers; got {','.join(map(str, values))}")
    if parameter == "batch_size" and max(values) > n_train:
        raise SettingError(f"{option}: {max(values)} is more than the {n_train} training samples")


def changed(config: Config, parameter: str, value: int) -> Config:
    """`config` at one value of a sweep; a hidden width is that of every hidden layer."""
    if parameter == "batch_size":
        return replace(config, batch_size=value)
    n_in, *hidden, n_classes = config.layer_sizes
    return replace(config, layer_sizes=(n_in, *[value] * len(hidden), n_classes))


def run_sweep(
    names: Sequence[str],
    config: Config,
    parameter: str,
    values: Sequence[int],
    listen: Listener = lambda _: None,
    timeout: float = CALL_TIMEOUT,
) -> Sweep:
    """Measure epoch times at several values of a setting; Ctrl-C leaves what was measured until then.

    Parameters
    ----------
    parameter : {"batch_size", "hidden"}
    values : sequence of int
        Each is a benchmark of its own, in rising order.

    The others are those of `run_benchmark`.

    Returns
    -------
    Sweep
    """
    cells: list[Cell] = []
    interrupted = False
    for value in sorted(set(values)):
        listen(f"{PARAMETERS[parameter]} {value}:")
        result = run_benchmark(names, changed(config, parameter, value), listen, timeout)
        runs = tuple(with_speed(run, config.n_train) for run in result.results)
        cells.append(Cell(value=value, results=runs, no_faster_path=result.no_faster_path))
        if result.interrupted:
            interrupted = True
            break
    crossings = crossovers(cells, config.n_train)
    return Sweep(parameter=parameter, cells=tuple(cells), interrupted=interrupted, crossovers=crossings)


def with_speed(run: Run, n_train: int) -> Run:
    """The run with its ``samples_per_second``, from the median epoch."""
    absent = (Run.OPTIONAL if run.absent is None else run.absent) - {"samples_per_second"}
    speed = n_train / run.epoch_seconds.median if run.epoch_seconds else None
    return replace(run, samples_per_second=speed, absent=absent)


def crossovers(cells: Sequence[Cell], n_train: int) -> tuple[Crossover, ...]:
    """Where one engine becomes faster than another, between two neighbouring values; log-log straight lines are assumed.

    Parameters
    ----------
    cells : sequence of Cell
        In rising order of the value.
    n_train : int
        Samples of an epoch.
    """
    found = []
    backends = {run.label for cell in cells for run in cell.results if run.kind == "backend"}
    for before, after in pairwise(cells):
        first, last = _medians(before), _medians(after)
        for a, b in combinations([name for name in first if name in last], 2):
            left, right = math.log(first[a] / first[b]), math.log(last[a] / last[b])
            if left * right < 0:
                share = left / (left - right)

                def there(name: str, share: float = share, first: Times = first, last: Times = last) -> float:
                    return first[name] * math.pow(last[name] / first[name], share)

                others = [there(name) for name in first if name in last and name not in (a, b)]
                below, above = (a, b) if left < 0 else (b, a)
                crossing = Crossover(
                    value=before.value * (after.value / before.value) ** share,
                    seconds=there(a),
                    faster_below=below,
                    faster_above=above,
                    shown={a, b} <= backends or there(a) <= min(others, default=math.inf),
                    samples_per_second=n_train / there(a),
                )
                found.append(crossing)
    return tuple(found)


Times = dict[str, float]
"""Median seconds per epoch by label."""


def _medians(cell: Cell) -> Times:
    return {run.label: run.epoch_seconds.median for run in cell.results if run.epoch_seconds}
