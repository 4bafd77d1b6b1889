"""The options that the commands share, each declared once, and what they mean.

A command is a function of one frozen dataclass, whose fields are its options in the order of ``--help``. `command` makes of it what
typer wants: a function with a parameter for each option.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from mlp_accel import activations, backends
from mlp_accel.backends import threads
from mlp_accel.backends.paths import AUTO, LOOP, requested_path
from mlp_accel.bench.engines.peers import PEERS
from mlp_accel.errors import OutputError, SettingError, check_choice
from mlp_accel.files import check_writable
from mlp_accel.optimizers import OPTIMIZERS
from mlp_accel.training.recipes import Recipe

MAX_UNITS = 10_000_000
"""A wider layer is taken for a typing error."""

Data = Annotated[
    str | None,
    typer.Option(
        help="mnist, a folder of IDX files, a .npz file or a table .csv  [default: $MLP_ACCEL_DATA_DIR, else mnist]",
        show_default=False,
    ),
]


def _one_backend(*others: str) -> Any:
    choices = ", ".join((*others, *reversed(backends.BACKENDS)))
    return typer.Option(
        "--backend", "--backends", help=f"{choices}  [default: $MLP_ACCEL_BACKEND, else {backends.AUTO}]", show_default=False
    )


OneBackend = Annotated[str | None, _one_backend(backends.AUTO)]
TrainingBackend = Annotated[str | None, _one_backend(backends.AUTO, f"{backends.FASTEST} (measured for this network, once)")]
BackendList = Annotated[
    str | None,
    typer.Option(
        "--backends",
        "--backend",
        help=f"Which to measure: some of {','.join(reversed(backends.BACKENDS))}  [default: $MLP_ACCEL_BACKEND, else all]",
        show_default=False,
    ),
]
Hidden = Annotated[str | None, typer.Option(help="Units of the hidden layers: 256,128  [default: 32]", show_default=False)]
Activation = Annotated[str | None, typer.Option(help=f"{', '.join(activations.ACTIVATIONS)}  [default: tanh]", show_default=False)]
Gradient = Annotated[str | None, typer.Option(help="exact, or the notebook's rule  [default: exact]", show_default=False)]
DType = Annotated[str | None, typer.Option("--dtype", help="float32 or float64  [default: float32]", show_default=False)]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads  [default: $MLP_ACCEL_NUM_THREADS, else the cores granted]", show_default=False)
]
BatchSize = Annotated[int | None, typer.Option(help="Samples in a minibatch  [default: 128]", show_default=False)]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="Step size  [default: the optimiser's, 0.5 for sgd; 0.01 for sgd by the notebook's gradient]", show_default=False
    ),
]
Optimizer = Annotated[str | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}  [default: sgd]", show_default=False)]
Momentum = Annotated[float | None, typer.Option(help="Of momentum and nesterov  [default: 0.9]", show_default=False)]
WeightDecay = Annotated[
    float | None, typer.Option(help="How much it pulls to zero  [default: 0; 0.01 for adamw]", show_default=False)
]
Seed = Annotated[int | None, typer.Option(help="Of initial weights and sample order  [default: 0]", show_default=False)]
JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON; - is standard output")]
PlotFile = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw a picture: .png, .svg or .pdf")]
Format = Annotated[str, typer.Option("--format", help="text, or markdown for a pull request or a job summary")]


Options = TypeVar("Options")


def command(function: Callable[[Options], None]) -> Callable[..., None]:
    """`function`, which takes a dataclass of options, as one that takes each of its fields by name."""
    (argument,) = inspect.signature(function, eval_str=True).parameters.values()
    options: Any = argument.annotation
    annotations = get_type_hints(options, include_extras=True)

    @wraps(function)
    def with_parameters(**given: Any) -> None:
        function(options(**given))

    vars(with_parameters).pop("__wrapped__")  # or its signature would be looked at
    parameters = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if option.default is MISSING else option.default,
            annotation=annotations[option.name],
        )
        for option in fields(options)
    ]
    vars(with_parameters)["__signature__"] = inspect.Signature(parameters)
    with_parameters.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_parameters


def read_settings(recipe: Recipe, options: object) -> Recipe:
    """The recipe with those fields that `options` has too and that were given, checked before anything slow happens."""
    named = {setting.name: getattr(options, setting.name, None) for setting in fields(recipe)}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if "hidden" in given:
        given["hidden"] = parse_numbers(given["hidden"], "--hidden", "layer sizes")
    settings = replace(recipe, **given)
    for name in ("epochs", "batch_size"):
        if getattr(settings, name) < 1:
            raise SettingError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(settings, name)}")
    if settings.seed < 0:
        raise SettingError(f"--seed must not be negative; got {settings.seed}")
    activations.find_activation(settings.activation)
    check_choice("gradient", settings.gradient, backends.GRADIENTS)
    check_choice("dtype", settings.dtype, backends.DTYPES)
    settings.optimizer_settings()
    settings.find_schedule()
    return settings


def parse_numbers(text: str, option: str, what: str = "numbers") -> tuple[int, ...]:
    """The numbers of a list such as ``256,128``.

    Raises
    ------
    SettingError
        For anything else; names the option.
    """
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = (0,)
    if not 1 <= min(sizes) <= max(sizes) <= MAX_UNITS:
        raise SettingError(f"{text!r} from {option} is no list of {what} from 1 to {MAX_UNITS}; write for example 256,128")
    return sizes


def backends_to_measure(names: str | None) -> tuple[Sequence[str], str | None]:
    """Names of backends; and what restricted them if it was not the option: the environment variable, or None."""
    if names is not None:
        return _chosen(names, ()), None
    name, source = backends.requested_backend()
    backends.refuse_fastest(name, source)
    return (tuple(reversed(backends.BACKENDS)), None) if name == backends.AUTO else ((name,), source)


def engines_to_measure(names: str | None, peers: bool) -> tuple[Sequence[str], str | None]:
    """Names of backends and peers; and what restricted the backends, as for `backends_to_measure`."""
    every_peer = PEERS if peers else ()
    if names is None:
        chosen, source = backends_to_measure(None)
        return (*chosen, *every_peer), source
    return list(dict.fromkeys([*_chosen(names, PEERS), *every_peer])), None


def find_path(option: str | None, names: Sequence[str], named: bool) -> tuple[str | None, Sequence[str], str | None]:
    """The path that backends are restricted to, those of `names` that have it, and what must be said of the others.

    Parameters
    ----------
    option : str or None
        What ``--path`` was given; without it ``MLP_ACCEL_PATH`` counts.
    names : sequence of str
        Backends, and peers, which have no paths.
    named : bool
        Whether the user has asked for these backends by name. Then one that has no such path is an error; else it is left out.

    Raises
    ------
    SettingError
        If one that was named has no such path, or none has; lists the paths.
    """
    path, source = requested_path(option, "--path")
    if path == AUTO:
        return None, names, None
    paths = {name: (LOOP, *backends.backend_class(name).path_names) for name in names if name not in PEERS}
    lacking = [name for name, known in paths.items() if path.partition(":")[0] not in known]
    if lacking and (named or len(lacking) == len(paths)):
        choices = "; ".join(f"{name} has {', '.join(paths[name])}" for name in lacking)
        raise SettingError(f"no path {path!r} of {', '.join(lacking)}, asked for by {source}: {choices}")
    note = f"without {', '.join(lacking)}: no path {path!r} there, which {source} asks for" if lacking else None
    return path, [name for name in names if name not in lacking], note


def parse_share(text: str, option: str, what: str) -> float:
    """The number of a text such as ``3%`` or ``0.03``.

    Raises
    ------
    SettingError
        If it is no share between 0 and 1; names the option.
    """
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 < value < 1:
        raise SettingError(f"{text!r} from {option} is no {what} between 0% and 100%; write for example 3% or 0.03")
    return value


def check_counts(launches: int, rounds: int, measure: str = "epoch") -> None:
    """Raise `SettingError` for so few launches or rounds that nothing could come of them, unless a measure has so few by itself."""
    from mlp_accel.bench.gate.measures import ROUNDS
    from mlp_accel.bench.gate.paired import ALPHA, MIN_LAUNCHES, MIN_ROUNDS

    if launches < MIN_LAUNCHES:
        least = f"{MIN_LAUNCHES - 1} or fewer can never reach p < {ALPHA}, whatever they measure"
        raise SettingError(f"--launches must be at least {MIN_LAUNCHES}; got {launches}: {least}")
    if rounds < min(MIN_ROUNDS, ROUNDS[measure]):
        raise SettingError(f"--rounds must be at least {MIN_ROUNDS}; got {rounds}: fewer give no 95 % interval for their median")


def gate_threads(option: int | None) -> int:
    """Threads of builds that take turns: one, unless somebody says otherwise; several wait for each other and for others."""
    if option is None and not os.environ.get(threads.ENVIRONMENT_VARIABLE, "").strip():
        option = 1
    return threads.thread_count(option, "--threads")


def _chosen(names: str, peers: Sequence[str]) -> list[str]:
    given = [name.strip() for name in names.split(",")]
    for name in given:
        if name in peers:
            continue
        backends.refuse_fastest(name, "--backends")
        if name == backends.AUTO or not name:
            choices = ", ".join((*backends.BACKENDS, *peers))
            raise SettingError(f"unknown backend {name!r} from --backends; choose some of {choices}, separated by commas")
        backends.requested_backend(name, "--backends")
    return list(dict.fromkeys(given))


def check_outputs(json_file: str | None, plot: Path | None = None, *others: Path | None) -> None:
    """Every file that is asked for can be written, and no two are one: said before the work, not after it."""
    if plot:
        from mlp_accel.plots import check_format

        check_format(plot)
    seen: dict[Path, Path] = {}
    for path in (None if json_file in (None, "-") else Path(str(json_file)), plot, *others):
        if path is None:
            continue
        check_writable(path)
        target = path.resolve()
        if target in seen and (target.is_file() or not target.exists()):
            raise OutputError(f"{path} is asked for twice: one result would overwrite the other; name two files")
        seen[target] = path
