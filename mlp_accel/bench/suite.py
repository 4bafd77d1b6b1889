"""All that one call of `bench` measures: epoch times, and whatever else was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import CALL_TIMEOUT
from mlp_accel.bench.protocol import engines, run_benchmark
from mlp_accel.bench.results import Result
from mlp_accel.bench.roofline import run_roofline
from mlp_accel.bench.runs import WARM_UP_EPOCHS, Listener
from mlp_accel.bench.sweeps import check_values, run_sweep
from mlp_accel.bench.until import SEEDS, time_to_accuracy
from mlp_accel.errors import SettingError


@dataclass(frozen=True)
class Extras:
    """What is measured beside the epoch times.

    Attributes
    ----------
    sweep_batch, sweep_hidden : sequence of int
        Batch sizes and hidden widths at which everything is measured again.
    until : mapping of float to Config
        Test accuracies, between 0 and 1, that engines train to against the clock; and what is trained for each.
    roofline : bool
        Compare the main ops of each backend with the limits of the device.
    starts : int
        How often each engine is started for the epoch times; as `run_benchmark` takes it. All else takes one start.
    """

    sweep_batch: Sequence[int] = ()
    sweep_hidden: Sequence[int] = ()
    until: Mapping[float, Config] = field(default_factory=dict)
    roofline: bool = False
    starts: int = 1

    @property
    def sweeps(self) -> dict[str, Sequence[int]]:
        """Values of each parameter that is swept."""
        return {name: values for name, values in (("batch_size", self.sweep_batch), ("hidden", self.sweep_hidden)) if values}

    def check(self, n_train: int) -> None:
        """Raise `SettingError` for what cannot be measured, before anything is."""
        for parameter, values in self.sweeps.items():
            check_values(parameter, values, n_train)
        for accuracy in self.until:
            if not 0 < accuracy < 1:
                raise SettingError(f"--until must be test accuracies between 0 and 1, such as 0.955; got {accuracy:g}")

    def races(self) -> list[tuple[Config, list[float]]]:
        """The accuracies of `until` by what is trained: one training goes through all that it is for."""
        configs: list[Config] = []
        for config in self.until.values():
            if config not in configs:
                configs.append(config)
        return [(config, [accuracy for accuracy, other in self.until.items() if other == config]) for config in configs]

    def lines(self, names: Sequence[str], epochs: int, path: str | None = None) -> int:
        """About how many lines `run_suite` will pass to its listener."""
        measured, _ = engines(names, path)
        shown = sum(measurement.shown for measurement in measured)
        benchmark = len(measured) + WARM_UP_EPOCHS + epochs
        again = (self.starts - 1) * len(measured)
        cells = sum(len(values) for values in self.sweeps.values())
        races = len(self.races()) * (shown + SEEDS)
        return benchmark + again + cells * (benchmark + 1) + races + len(measured) * self.roofline


def run_suite(names: Sequence[str], config: Config, extras: Extras, listen: Listener, timeout: float = CALL_TIMEOUT) -> Result:
    """Measure epoch times, then the extras; Ctrl-C leaves what was measured until then.

    Returns
    -------
    Result
        As `run_benchmark`; with ``sweeps`` (`run_sweep`), ``until`` (`time_to_accuracy`) and ``roofline`` (`run_roofline`) for what
        was asked for.
    """
    result = run_benchmark(names, config, listen, timeout, extras.starts)
    if result.interrupted:
        return result
    try:
        for parameter, values in extras.sweeps.items():
            sweep = run_sweep(names, config, parameter, values, listen, timeout)
            result = replace(result, sweeps=(*result.sweeps, sweep))
            if sweep.interrupted:
                raise KeyboardInterrupt
        for trained, accuracies in extras.races():
            until = time_to_accuracy(result.results, trained, accuracies, listen, timeout)
            result = replace(result, until=(*result.until, *until))
            if until[0].interrupted:
                raise KeyboardInterrupt
        if extras.roofline:
            result = replace(result, roofline=run_roofline(result.results, config, listen, timeout))
    except KeyboardInterrupt:
        result = replace(result, interrupted=True)
    return result
