"""The options that the commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mlp_accel import backends
from mlp_accel.benchmarking.peers import PEERS
from mlp_accel.errors import OutputError, SettingError, check_choice
from mlp_accel.files import check_writable
from mlp_accel.recipes import RECIPES, Recipe
from mlp_accel.training import SGDStep

MAX_UNITS = 10_000_000
"""A wider layer is taken for a slip of the finger."""

Data = Annotated[
    str | None,
    typer.Option(
        help="mnist, a folder of IDX files, or a .npz file  [default: $MLP_ACCEL_DATA_DIR, else mnist]", show_default=False
    ),
]
Hidden = Annotated[str | None, typer.Option(help="Units of the hidden layers: 256,128  [default: 32]", show_default=False)]
Activation = Annotated[str | None, typer.Option(help="tanh, relu or sigmoid  [default: tanh]", show_default=False)]
Gradient = Annotated[str | None, typer.Option(help="exact, or the notebook's rule  [default: exact]", show_default=False)]
DType = Annotated[str | None, typer.Option("--dtype", help="float32 or float64  [default: float32]", show_default=False)]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads  [default: $MLP_ACCEL_NUM_THREADS, else the cores granted]", show_default=False)
]
BatchSize = Annotated[int | None, typer.Option(help="Samples in a minibatch  [default: 128]", show_default=False)]
LearningRate = Annotated[
    float | None, typer.Option(help="Step size of SGD  [default: 0.5; 0.01 for the notebook's gradient]", show_default=False)
]
Seed = Annotated[int | None, typer.Option(help="Of initial weights and sample order  [default: 0]", show_default=False)]
JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON; - is standard output")]
PlotFile = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw a picture: .png, .svg or .pdf")]


def read_settings(recipe: Recipe, hidden: str | None, **overrides: Any) -> Recipe:
    """The recipe with what was given on the command line, checked before anything slow happens."""
    given = {name: value for name, value in overrides.items() if value is not None}
    if hidden is not None:
        given["hidden"] = parse_numbers(hidden, "--hidden", "layer sizes")
    if given.get("gradient") == "notebook" and "learning_rate" not in given:
        given["learning_rate"] = RECIPES["notebook"].learning_rate  # its gradient is a sum over the batch, not a mean
    settings = replace(recipe, **given)
    for name in ("epochs", "batch_size"):
        if getattr(settings, name) < 1:
            raise SettingError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(settings, name)}")
    if settings.seed < 0:
        raise SettingError(f"--seed must not be negative; got {settings.seed}")
    SGDStep(settings.learning_rate, settings.activation, settings.gradient)
    check_choice("dtype", settings.dtype, backends.DTYPES)
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
    """Backends, and what restricted them other than the option itself."""
    if names is not None:
        return _chosen(names, ()), None
    name, source = backends.requested_backend()
    return (tuple(reversed(backends.BACKENDS)), None) if name == "auto" else ((name,), source)


def engines_to_measure(names: str | None, peers: bool) -> tuple[Sequence[str], str | None]:
    """Backends and peers, and what restricted the backends other than the option itself."""
    every_peer = PEERS if peers else ()
    if names is None:
        chosen, source = backends_to_measure(None)
        return (*chosen, *every_peer), source
    return list(dict.fromkeys([*_chosen(names, PEERS), *every_peer])), None


def _chosen(names: str, peers: Sequence[str]) -> list[str]:
    given = [name.strip() for name in names.split(",")]
    for name in given:
        if name in peers:
            continue
        if name == "auto" or not name:
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
