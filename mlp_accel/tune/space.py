"""The space of a search: settings of networks, all of a grid or drawn at random."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from mlp_accel.activations import find_activation
from mlp_accel.backends import DTYPES, GRADIENTS
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.training.recipes import Recipe

Settings = Mapping[str, Any]
"""Some of the settings of a `Recipe` by name; the seed is not one of them."""

NAMES = tuple(field.name for field in fields(Recipe) if field.name != "seed")
RATES = ("learning_rate", "momentum", "weight_decay")
"""Numbers that may be others in every recipe; None means the default of the optimiser."""

NUMBERS = (int, float)

DIGITS = 4
"""Of a number that is drawn, so that people can read it and write it."""


class Distribution(Protocol):
    """What values can be drawn from: a `Range`, or a distribution of `scipy.stats`."""

    def rvs(self, *, random_state: np.random.Generator) -> Any:
        """A value."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes
    ----------
    log : bool
        The logarithms of the numbers are equally likely, not the numbers.
    whole : bool
        Whole numbers only.

    Raises
    ------
    SettingError
        If there are no such numbers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high and (self.low > 0 or not self.log)):
            positive = "positive " if self.log else ""
            raise SettingError(
                f"a range goes from a {positive}number to one that is not smaller; got {self.low:g} to {self.high:g}"
            )

    def rvs(self, *, random_state: np.random.Generator) -> float | int:
        """A number of the range."""
        half = 0.5 if self.whole else 0.0  # so that the ends are as likely as the others
        low, high = self.low - half, self.high + half
        if self.log:
            low, high = math.log(low), math.log(high)
        value = low + (high - low) * random_state.random()
        value = math.exp(value) if self.log else value
        return min(max(round(value), int(self.low)), int(self.high)) if self.whole else min(max(value, self.low), self.high)


def grid(**values: Sequence[Any]) -> list[Settings]:
    """Every combination of the values of each setting.

    Examples
    --------
    >>> grid(learning_rate=[0.1, 0.3], hidden=[32, (64, 32)])
    """
    check_names(values)
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def sample(n: int, seed: int = 0, **ranges: Distribution | Sequence[Any]) -> list[Settings]:
    """Draw settings at random.

    Parameters
    ----------
    n : int
        How many.
    seed : int
        Of the draw.
    **ranges : Range, distribution of scipy.stats, or sequence
        For each setting what to draw from; of a sequence every value is as likely. Numbers are rounded to four digits.
    """
    check_names(ranges)
    if n < 1:
        raise SettingError(f"the number of settings to draw must be at least 1; got {n}")
    generator = np.random.default_rng(seed)
    draws = [(name, _draw_from(values, generator)) for name, values in ranges.items()]
    return [{name: draw() for name, draw in draws} for _ in range(n)]


def _draw_from(values: Distribution | Sequence[Any], generator: np.random.Generator) -> Callable[[], Any]:
    """A function that draws a value."""
    if isinstance(values, Sequence):
        return lambda: values[int(generator.integers(len(values)))]
    rvs = values.rvs

    def draw() -> Any:
        value = rvs(random_state=generator)
        value = value if isinstance(value, (int, float)) else value.item()  # of scipy.stats
        return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value

    return draw


def recipes_of(space: Iterable[Settings], base: Recipe) -> list[Recipe]:
    """A complete recipe for each of the settings, with those of `base` in place of what they do not say; each one once.

    Raises
    ------
    SettingError
        For a setting that there is not, or a value that it cannot have; names both.
    """
    found: dict[Recipe, None] = {}
    checked: dict[Any, Settings] = {}
    for settings in space:
        values = {
            name: value if type(value) in NUMBERS and name != "hidden" else _plain(name, value) for name, value in settings.items()
        }
        rates = {name: values.pop(name) for name in RATES if values.get(name) is not None}
        kind = *values.items(), *rates
        if kind not in checked or not _plainly_right(rates):  # there may be many, so each kind is checked once
            check_names(settings)
            complete = {**vars(base), **values, **rates, "seed": 0}
            defaults = check_recipe(Recipe(**complete))
            checked[kind] = {**complete, **{name: defaults[name] for name in RATES if complete[name] is None}}
        found[Recipe(**{**checked[kind], **rates})] = None
    if not found:
        raise SettingError("there are no settings to try: the space is empty")
    return list(found)


def _plainly_right(rates: Settings) -> bool:
    """Whether these numbers are such that no rule refuses them."""
    for value in rates.values():
        if type(value) not in NUMBERS or not 0 <= value < math.inf:
            return False
    return bool(rates.get("learning_rate", 1) != 0 and rates.get("momentum", 0) < 1)


def check_names(settings: Iterable[str]) -> None:
    """Refuse a setting that there is not."""
    for name in settings:
        check_choice("setting", name, NAMES)


def check_recipe(recipe: Recipe) -> Settings:
    """Refuse a recipe with a value that it cannot have; returns its optimiser's settings with defaults in place of None."""
    try:
        if not recipe.hidden or min(recipe.hidden) < 1:
            raise SettingError(f"hidden must be one or more numbers of units, at least 1; got {recipe.hidden}")
        for name in ("epochs", "batch_size"):
            if getattr(recipe, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(recipe, name)}")
        find_activation(recipe.activation)
        check_choice("gradient", recipe.gradient, GRADIENTS)
        check_choice("dtype", recipe.dtype, DTYPES)
        recipe.find_schedule()
        return recipe.optimizer_settings()
    except TypeError as error:
        raise SettingError(f"a setting has a value of the wrong kind: {error}; the settings are {recipe}") from error


def _plain(name: str, value: Any) -> Any:
    """The value in the type that a recipe has, and JSON knows."""
    if name == "hidden":
        return tuple(int(units) for units in (value if isinstance(value, Sequence | np.ndarray) else [value]))
    return value.item() if isinstance(value, np.generic) else value


# As text ----------------------------------------------------------------------------------------------------------------------


def parse_grid(text: str) -> tuple[str, list[Any]]:
    """A setting and its values from ``learning_rate=0.1,0.3`` or ``hidden=32,64-32`` (two hidden layers)."""
    name, values = _parse_assignment(text, "--grid", "learning_rate=0.1,0.3")
    return name, [parse_value(name, value, f"--grid {text}") for value in values.split(",")]


def parse_range(text: str) -> tuple[str, Range]:
    """A setting and its range from ``momentum=0:0.9``, ``learning_rate=log:0.01:1``, ``hidden=int:16:256`` or ``logint:16:256``."""
    name, described = _parse_assignment(text, "--range", "learning_rate=log:0.01:1")
    *kind, low, high = described.split(":") if described.count(":") in (1, 2) else ("", "", "")
    kinds = {"": (False, False), "log": (True, False), "int": (False, True), "logint": (True, True)}
    try:
        log, whole = kinds["".join(kind)]
        return name, Range(float(low), float(high), log, whole)
    except (KeyError, ValueError) as error:
        detail = f": {error}" if isinstance(error, SettingError) else ""
        raise SettingError(f"--range {text}: write NAME=LOW:HIGH, or log:, int: or logint: before LOW:HIGH{detail}") from error


def parse_value(name: str, text: str, source: str) -> Any:
    """A value of a setting, of the type that it has in a `Recipe`."""
    kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": _parse_bool, "tuple": _parse_layers, "str": str}
    declared = next(str(field.type) for field in fields(Recipe) if field.name == name)
    try:
        return next(parse for kind, parse in kinds.items() if declared.startswith(kind))(text)
    except ValueError:
        raise SettingError(f"{source}: {text!r} is no value of {name}, which is {declared}") from None


def _parse_assignment(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not values:
        raise SettingError(f"{option} {text!r}: write NAME=VALUES, for example {example}")
    check_choice(f"setting from {option}", name, NAMES)
    return name, values


def _parse_layers(text: str) -> tuple[int, ...]:
    return tuple(int(units) for units in text.split("-"))


def _parse_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"
