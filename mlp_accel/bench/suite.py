"""All that one call of `bench` measures: epoch times, and whatever else was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    until : float, optional
        Test accuracy, between 0 and 1, that engines train to against the clock.
    roofline : bool
        Compare the main ops of each backend with the limits of the device.
    """

    sweep_batch: Sequence[int] = ()
    sweep_hidden: Sequence[int] = ()
    until: float | None = None
    roofline: bool = False

    @property
    def sweeps(self) -> dict[str, Sequence[int]]:
        """Values of each parameter that is swept."""
        return {name: values for name, values in (("batch_size", self.sweep_batch), ("hidden", self.sweep_hidden)) if values}

    def check(self, n_train: int) -> None:
        """Raise `SettingError` for what cannot be measured, before anything is."""
        for parameter, values in self.sweeps.items():
            check_values(parameter, values, n_train)
        if self.until is not None and not 0 < self.until < 1:
            raise SettingError(f"--until must be a test accuracy between 0 and 1, such as 0.955; got {self.until:g}")

    def lines(self, names: Sequence[str], epochs: int, path: str | None = None) -> int:
        """About how many lines `run_suite` will pass to its listener."""
        measured, _ = engines(names, path)
        shown = sum(measurement.shown for measurement in measured)
        benchmark = len(measured) + WARM_UP_EPOCHS + epochs
        cells = sum(len(values) for values in self.sweeps.values())
        return benchmark + cells * (benchmark + 1) + (shown + SEEDS if self.until else 0) + len(names) * self.roofline


def run_suite(names: Sequence[str], config: Config, extras: Extras, listen: Listener, timeout: float = CALL_TIMEOUT) -> Result:
    """Measure epoch times, then the extras; Ctrl-C leaves what was measured until then.

    Returns
    -------
    Result
        As `run_benchmark`; with ``sweeps`` (`run_sweep`), ``until`` (`time_to_accuracy`) and ``roofline`` (`run_roofline`) for what
        was asked for.
    """
    result = run_benchmark(names, config, listen, timeout)
    if result.interrupted:
        return result
    try:
        for parameter, values in extras.sweeps.items():
            sweep = run_sweep(names, config, parameter, values, listen, timeout)
            result = replace(result, sweeps=(*result.sweeps, sweep))
            if sweep.interrupted:
                raise KeyboardInterrupt
        if extras.until is not None:
            until = time_to_accuracy(result.results, config, extras.until, listen, timeout)
            result = replace(result, until=until)
            if until.interrupted:
                raise KeyboardInterrupt
        if extras.roofline:
            result = replace(result, roofline=run_roofline(result.results, config, listen, timeout))
    except KeyboardInterrupt:
        result = replace(result, interrupted=True)
    return result
