"""Learning-rate schedules: one rate for each minibatch. A new one is one function here, or in a file of yours.

A schedule is a function of the number of a step (from 0) and of the number of all steps; it returns what the learning rate is
multiplied by. Further settings are further arguments, with defaults.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.errors import SettingError

ScheduleFunction = Callable[..., float]


def constant(step: int, steps: int) -> float:
    """The same rate in every step."""
    return 1.0


def linear(step: int, steps: int) -> float:
    """A straight line to zero, which the step after the last one would reach."""
    return 1.0 - step / steps


def cosine(step: int, steps: int) -> float:
    """Half a cosine to zero (Loshchilov and Hutter, "SGDR", 2017, equation 5)."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


def step(step: int, steps: int, steps_per_epoch: int = 1, step_epochs: int = 1, gamma: float = 0.1) -> float:
    """Times `gamma` after every `step_epochs` epochs."""
    return float(gamma ** (step // (steps_per_epoch * step_epochs)))


START, END = 1 / 25, 1 / 25e4
"""The first and the last rate of `one_cycle`, relative to the highest: the defaults of PyTorch's ``OneCycleLR``."""


def one_cycle(step: int, steps: int, warmup: float = 0.3) -> float:
    """Rise and fall in one cycle of cosines (Smith and Topin, 2018), the highest rate after the share `warmup` of the steps."""
    top, last = warmup * steps - 1, steps - 1
    if step <= top:
        return _between(START, 1.0, step / top if top > 0 else 1.0)
    return _between(1.0, END, (step - top) / (last - top) if last > top else 1.0)


def _between(start: float, stop: float, share: float) -> float:
    return stop + (start - stop) * 0.5 * (1.0 + math.cos(math.pi * share))


SCHEDULES: dict[str, ScheduleFunction] = {
    function.__name__.replace("_", "-"): function for function in (constant, linear, cosine, step, one_cycle)
}
"""The schedules above, by name."""


RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "warmup": (lambda share: 0 <= share < 1, "a share of the steps, from 0 to below 1"),
    "step_epochs": (lambda epochs: epochs >= 1 and epochs % 1 == 0, "a whole number of epochs, 1 or more"),
    "gamma": (lambda factor: 0 < factor < math.inf, "a positive number"),
}
"""What a setting of that name must be, of a function of one's own too."""


@dataclass(frozen=True)
class Schedule:
    """The learning rates of a training run.

    Parameters
    ----------
    function : callable or str
        The factor of the learning rate, as the top of this file describes it; or the name of one that is here.
    warmup : float
        Share of all steps in which the rate first rises in a straight line; the function is given the other steps only. A function
        that has an argument of this name gets the share and does the warm-up itself.
    settings : tuple of (str, float)
        Further arguments of the function.

    Raises
    ------
    SettingError
        For an unknown name, which lists the choices; for a setting that the function does not have, or that is out of range.
    """

    function: ScheduleFunction | str = constant
    warmup: float | None = None
    settings: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "function", _function(self.function))
        for name, _ in self.settings:
            if name not in _arguments(self.function):
                owners = [other for other, function in SCHEDULES.items() if name in _arguments(function)]
                hint = f"; {', '.join(owners)} has it" if owners else ""
                raise SettingError(f"the schedule {self.name!r} has no setting {name}{hint}")
        given = self.settings if self.warmup is None else (*self.settings, ("warmup", self.warmup))
        for name, value in given:
            fits, kind = RANGES.get(name, (lambda _: True, ""))
            if not (isinstance(value, int | float | np.number) and fits(value)):
                raise SettingError(f"{name} must be {kind or 'a number'}; got {value}")

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.function, "__name__", repr(self.function)).replace("_", "-")

    def rates(self, learning_rate: float, epoch: int, epochs: int, steps_per_epoch: int) -> npt.NDArray[np.float64]:
        """The learning rate of each minibatch of an epoch (from 0), of a training of `epochs`.

        Returns
        -------
        array (steps_per_epoch,)

        Raises
        ------
        SettingError
            If the function returns something that is no positive number or zero; names the step.
        """
        function = _function(self.function)
        if function is constant and not self.warmup:
            return np.full(steps_per_epoch, float(learning_rate))
        given = dict(self.settings)
        names = _arguments(function)
        if "steps_per_epoch" in names:
            given["steps_per_epoch"] = steps_per_epoch
        steps, warm_up = epochs * steps_per_epoch, 0
        if "warmup" in names:
            given |= {} if self.warmup is None else {"warmup": self.warmup}
        else:
            warm_up = round((self.warmup or 0.0) * steps)
        factors = np.empty(steps_per_epoch)
        for position in range(steps_per_epoch):
            number = epoch * steps_per_epoch + position
            rising = number < warm_up
            factor = (number + 1) / warm_up if rising else function(number - warm_up, steps - warm_up, **given)
            factors[position] = self._checked(factor, number)
        return factors * learning_rate

    def _checked(self, factor: Any, number: int) -> float:
        try:
            value = float(factor)
        except (TypeError, ValueError):
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise SettingError(
                f"the schedule {self.name!r} must return a number, 0 or more; at step {number} it returned {factor!r}"
            )
        return value


def find_schedule(
    value: str | Schedule | ScheduleFunction,
    *,
    warmup: float | None = None,
    step_epochs: int | None = None,
    gamma: float | None = None,
) -> Schedule:
    """The schedule of that name, or the one or the function that is given.

    Raises
    ------
    SettingError
        For an unknown name, which lists the choices; for a setting that the schedule does not have, or that is out of range.
    """
    if isinstance(value, Schedule):
        if (warmup, step_epochs, gamma) != (None, None, None):
            raise SettingError("give the settings of a schedule in the Schedule, or beside its name, not both")
        return value
    given = (("step_epochs", step_epochs), ("gamma", gamma))
    return Schedule(value, warmup, tuple((name, setting) for name, setting in given if setting is not None))


def _arguments(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _function(value: Any) -> ScheduleFunction:
    """The schedule of that name, or the function that is given."""
    if isinstance(value, str):
        if value not in SCHEDULES:
            raise SettingError(f"unknown schedule {value!r}; choose one of {', '.join(SCHEDULES)}, or give a function of your own")
        return SCHEDULES[value]
    if not callable(value):
        raise SettingError(f"a schedule is a name or a function (step, steps) of the factor of the learning rate; got {value!r}")
    function: ScheduleFunction = value
    return function
