"""A dataclass of options is a command with these options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from mlp_accel import SettingError
from mlp_accel.bench.gate.launches import LAUNCHES
from mlp_accel.bench.gate.measures import MEASURES, ROUNDS
from mlp_accel.cli.options import BatchSize, Hidden, check_counts, command, read_settings
from mlp_accel.training.recipes import RECIPES


@dataclass(frozen=True)
class SomeOptions:
    """Two that are shared, and one of its own that must be given."""

    base: Annotated[str, typer.Option(metavar="REF", help="One of its own")]
    hidden: Hidden = None
    batch_size: BatchSize = None


received: list[SomeOptions] = []


@command
def some(options: SomeOptions) -> None:
    """Note what was given."""
    received.append(options)


def test_every_field_is_an_option_and_the_command_gets_one_object() -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(some)
    result = CliRunner().invoke(app, ["--hidden", "8,4", "--base", "main"])
    assert result.exit_code == 0, result.output
    assert received == [SomeOptions("main", "8,4", None)]
    text = CliRunner().invoke(app, ["--help"]).output
    assert "Note what was given." in text
    assert -1 < text.index("--base REF") < text.index("--hidden") < text.index("--batch-size")
    assert "Samples in a minibatch" in text
    missing = CliRunner().invoke(app, [])
    assert (missing.exit_code, "--base" in missing.output) == (2, True)


def test_its_signature_has_the_defaults_of_the_fields() -> None:
    parameters = inspect.signature(some).parameters
    assert [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty] == ["base"]
    assert parameters["batch_size"].default is None


def test_what_was_given_goes_over_the_recipe_and_the_rest_stays() -> None:
    settings = read_settings(RECIPES["notebook"], SomeOptions("main", "8,4", None))
    assert (settings.hidden, settings.batch_size, settings.dtype) == ((8, 4), RECIPES["notebook"].batch_size, "float64")
    with pytest.raises(SettingError, match="--batch-size must be at least 1"):
        read_settings(RECIPES["default"], SomeOptions("main", None, 0))
    with pytest.raises(SettingError, match="layer sizes"):
        read_settings(RECIPES["default"], SomeOptions("main", "wide", 1))


def test_every_measure_of_the_gate_has_rounds_enough_by_default() -> None:
    for measure in MEASURES:
        check_counts(LAUNCHES, ROUNDS[measure], measure)
        with pytest.raises(SettingError, match="--rounds must be at least"):
            check_counts(LAUNCHES, min(5, ROUNDS[measure] - 1), measure)
