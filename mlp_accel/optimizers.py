"""The optimisers: update rules. A new one is one function here, or in a file of yours.

A rule says what becomes of one parameter, as a function of numbers: the parameter, its gradient, its slots (what is remembered of
it from step to step, all zero at first), the learning rate, if wanted the number of the step (from 1) and the number of samples in
its minibatch (``size``), and settings with their defaults::

    def lion(p, g, m, rate=1e-4, beta1=0.9, beta2=0.99, weight_decay=0.0):
        p = p - rate * (sign(beta1 * m + (1.0 - beta1) * g) + weight_decay * p)
        return p, beta2 * m + (1.0 - beta2) * g

The arguments between the gradient and ``rate`` are the slots; it returns the parameter, then the slots. The rule is recorded (see
`mlp_accel.recording`), so every kernel of every backend has it. Conventions are those of PyTorch: momentum without dampening,
weight decay added to the gradient but for adamw, epsilon outside of the root.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel.elementwise import sqrt
from mlp_accel.errors import SettingError
from mlp_accel.recording import Record, record, scalar_values

UpdateFunction = Callable[..., Any]

OF_STEP = ("step", "size")
"""Arguments of a rule, after the rate, that differ from step to step."""


@dataclass(frozen=True, eq=False)
class Rule:
    """An update rule as it is recorded for a training run.

    Attributes
    ----------
    record : Record
        The recorded function of the parameter, its gradient and its slots, which returns the parameter, then the slots.
    n_slots : int
        Numbers that are remembered for each parameter.
    """

    record: Record
    n_slots: int

    @property
    def n_scalars(self) -> int:
        """How many scalars it takes at each step, which are those of the record."""
        return len(self.record.scalars)

    @cached_property
    def rate_index(self) -> int | None:
        """The index of the scalar ``u`` if the rule is just ``p - u * g``, of parameter and gradient; None for any other rule.

        Kernels subtract ``u`` times what makes up the gradient from the parameters at once; the gradient is then never stored.
        """
        lines, results = self.record.assignments, self.record.results
        if self.n_slots or len(lines) != 2 or results != (lines[1].name,) or lines[1].operands != ("a0", lines[0].name):
            return None
        factors = sorted(map(str, lines[0].operands))
        if (lines[0].op, lines[1].op, factors[0]) != ("*", "-", "a1") or factors[1] not in self.record.scalar_names:
            return None
        return self.record.scalar_names.index(factors[1])


@dataclass(frozen=True)
class Optimizer:
    """An update rule with its settings.

    Parameters
    ----------
    rule : callable
        The rule, as the top of this file describes it.
    settings : tuple of (str, float)
        Those that differ from their defaults; `with_settings` sets them.

    Raises
    ------
    SettingError
        If the function is no rule; says what a rule looks like.
    RecordingError
        If it does what cannot be recorded.
    """

    rule: UpdateFunction
    settings: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        form = "a rule is a function (parameter, gradient, *slots, rate[, step, size], **settings with defaults)"
        try:
            parameters = list(inspect.signature(self.rule).parameters.values())
        except (TypeError, ValueError):
            raise SettingError(f"{self.name} is no update rule: {form}") from None
        names = [parameter.name for parameter in parameters]
        if "rate" not in names[2:] or any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
            raise SettingError(f"{self.name} is no update rule: {form}")
        position = names.index("rate")
        before = parameters[:position]
        settings = [parameter for parameter in parameters[position + 1 :] if parameter.name not in OF_STEP]
        if any(p.default is not p.empty for p in before) or not all(isinstance(p.default, int | float) for p in settings):
            defaults = "no argument before rate has a default; each setting after it has one, which is a number"
            raise SettingError(f"{self.name} is no update rule: {form}; {defaults}")
        early = [name for name in OF_STEP if name in names[:position]]
        if early:
            raise SettingError(f"{self.name} is no update rule: {form}; {early[0]} comes after rate")
        unknown = [name for name, _ in self.settings if name not in self.defaults]
        if unknown:
            raise SettingError(
                f"the optimizer {self.name!r} has no setting {unknown[0]}; it has {', '.join(self.defaults) or 'none'}"
            )
        n_results, n_slots = len(self.record_for([self]).record.results), len(self.slots)
        if n_results != 1 + n_slots:
            raise SettingError(f"{self.name} must return the parameter and its {n_slots} slots; it returns {n_results} numbers")

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.rule, "__name__", repr(self.rule))

    def __str__(self) -> str:
        given = ", ".join(f"{name} {value:g}" for name, value in self.settings)
        return f"{self.name} ({given})" if given else self.name

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """Names of what is remembered for each parameter."""
        names = list(inspect.signature(self.rule).parameters)
        return tuple(names[2 : names.index("rate")])

    @cached_property
    def defaults(self) -> dict[str, float]:
        """All settings but the learning rate, with the values that the rule gives them."""
        parameters = inspect.signature(self.rule).parameters
        names = list(parameters)
        return {name: float(parameters[name].default) for name in names[names.index("rate") + 1 :] if name not in OF_STEP}

    @property
    def learning_rate(self) -> float | None:
        """The rule's own default, or None if it has none."""
        default = inspect.signature(self.rule).parameters["rate"].default
        return None if default is inspect.Parameter.empty else float(default)

    @property
    def values(self) -> dict[str, float]:
        """All settings but the learning rate, as they are."""
        return {**self.defaults, **dict(self.settings)}

    @property
    def zeros(self) -> frozenset[str]:
        """The settings that are 0."""
        return frozenset(name for name, value in self.values.items() if value == 0)

    def with_settings(self, **settings: float | None) -> Optimizer:
        """The same rule with other settings; one that is None stays as it is.

        Raises
        ------
        SettingError
            For a setting that the rule does not have, or a value that is not finite or is negative.
        """
        given = {name: float(value) for name, value in settings.items() if value is not None}
        for name, value in given.items():
            if name not in self.defaults:
                known = f"it has {', '.join(self.defaults)}" if self.defaults else "it has none"
                others = [other.name for other in OPTIMIZERS.values() if name in other.defaults]
                hint = f"; {', '.join(others)} would have it" if others else ""
                raise SettingError(f"the optimizer {self.name!r} has no setting {name}: {known}{hint}")
            if not (math.isfinite(value) and value >= 0):
                raise SettingError(f"{name} of the optimizer {self.name!r} must be a number, 0 or more; got {value}")
            if (name == "momentum" or name.startswith("beta")) and value >= 1:
                raise SettingError(f"{name} of the optimizer {self.name!r} must be below 1; got {value}")
        merged = {**dict(self.settings), **given}
        return replace(self, settings=tuple((name, merged[name]) for name in self.defaults if name in merged))

    @staticmethod
    def record_for(optimizers: Sequence[Optimizer]) -> Rule:
        """The rule that all of them share, recorded. What is multiplied by a setting that is 0 in all of them is left out.

        Raises
        ------
        SettingError
            If they have different rules.
        """
        first = optimizers[0]
        if any(other.rule is not first.rule for other in optimizers):
            names = ", ".join(dict.fromkeys(other.name for other in optimizers))
            raise SettingError(f"networks that are trained together must have one rule; these have {names}")
        zeros = frozenset.intersection(*(optimizer.zeros for optimizer in optimizers))
        return _record(first.rule, len(first.slots), zeros)

    def scalars(
        self, rule: Rule, rates: npt.NDArray[np.float64], first_step: int, sizes: npt.ArrayLike = 1
    ) -> npt.NDArray[np.float64]:
        """The scalars of several steps in a row.

        Parameters
        ----------
        rule : Rule
            As `record_for` returns it.
        rates : array (n_steps,)
            The learning rate at each step.
        first_step : int
            The number of the first of the steps; that of the training is 1.
        sizes : int or array (n_steps,)
            The number of samples in the minibatch of each step.

        Returns
        -------
        array (n_steps, n_scalars)
            float64.
        """
        steps = np.arange(first_step, first_step + len(rates), dtype=np.float64)
        return scalar_values(
            rule.record.scalars, {"rate": rates, "step": steps, "size": np.asarray(sizes, np.float64), **self.values}
        )


@lru_cache(maxsize=256)
def _record(rule: UpdateFunction, n_slots: int, zeros: frozenset[str]) -> Rule:
    scalars = list(inspect.signature(rule).parameters)[2 + n_slots :]
    return Rule(record(rule, 2 + n_slots, [0.0 if name in zeros else name for name in scalars]), n_slots)


def sgd(p: Any, g: Any, rate: Any = 0.5, weight_decay: Any = 0.0) -> Any:
    """One step down the gradient."""
    return p - rate * (g + weight_decay * p)


def momentum(p: Any, g: Any, velocity: Any, rate: Any = 0.05, momentum: Any = 0.9, weight_decay: Any = 0.0) -> Any:
    """Heavy-ball momentum without dampening (Polyak, 1964)."""
    velocity = momentum * velocity + (g + weight_decay * p)
    return p - rate * velocity, velocity


def nesterov(p: Any, g: Any, velocity: Any, rate: Any = 0.05, momentum: Any = 0.9, weight_decay: Any = 0.0) -> Any:
    """Momentum that looks ahead (Sutskever et al., 2013, in PyTorch's form)."""
    g = g + weight_decay * p
    velocity = momentum * velocity + g
    return p - rate * (g + momentum * velocity), velocity


def _adam_change(g: Any, m: Any, v: Any, rate: Any, step: Any, beta1: Any, beta2: Any, epsilon: Any) -> Any:
    """The change to subtract from the parameter, and the two moments (Kingma and Ba, 2015, algorithm 1)."""
    m = beta1 * m + (1.0 - beta1) * g
    v = beta2 * v + (1.0 - beta2) * (g * g)
    root = sqrt(v) * (1.0 / sqrt(1.0 - beta2**step)) + epsilon
    return (rate / (1.0 - beta1**step)) * (m / root), m, v


def adam(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    rate: Any = 0.001,
    step: Any = 1.0,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    epsilon: Any = 1e-8,
    weight_decay: Any = 0.0,
) -> Any:
    """Adam; weight decay is added to the gradient."""
    change, m, v = _adam_change(g + weight_decay * p, m, v, rate, step, beta1, beta2, epsilon)
    return p - change, m, v


def adamw(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    rate: Any = 0.001,
    step: Any = 1.0,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    epsilon: Any = 1e-8,
    weight_decay: Any = 0.01,
) -> Any:
    """Adam with weight decay apart from the gradient, times the learning rate (Loshchilov and Hutter, 2019)."""
    change, m, v = _adam_change(g, m, v, rate, step, beta1, beta2, epsilon)
    return (1.0 - rate * weight_decay) * p - change, m, v


OPTIMIZERS: dict[str, Optimizer] = {}
"""The rules above, by name."""

OPTIMIZERS |= {rule.__name__: Optimizer(rule) for rule in (sgd, momentum, nesterov, adam, adamw)}


def find_optimizer(value: str | Optimizer | UpdateFunction, **settings: float | None) -> Optimizer:
    """The optimiser of that name, or the one or the rule that is given, with settings such as ``momentum=0.9``.

    Raises
    ------
    SettingError
        For an unknown name, which lists the choices, or a setting that the rule does not have.
    """
    if isinstance(value, str):
        if value not in OPTIMIZERS:
            raise SettingError(f"unknown optimizer {value!r}; choose one of {', '.join(OPTIMIZERS)}, or give a rule of your own")
        value = OPTIMIZERS[value]
    optimizer = value if isinstance(value, Optimizer) else Optimizer(value)
    return optimizer.with_settings(**settings)
