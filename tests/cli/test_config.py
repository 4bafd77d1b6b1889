"""Options from a file, and the names by which options are understood."""

from __future__ import annotations

import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlp_accel import SettingError
from mlp_accel.cli.app import app

COMMANDS = [command.name or str(getattr(command.callback, "__name__", "")) for command in app.registered_commands]


def printed(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--print-config"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return tomllib.loads(result.stdout)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_the_file_goes_before_the_defaults_and_the_command_line_before_the_file(config: Path) -> None:
    config.write_text('hidden = [64, 32]\n[train]\nepochs = 2\nlearning-rate = 0.5\n[bench]\npeers = true\nbackend = "numpy"\n')
    ours = printed("train", "--config", config, "--epochs", 3)["train"]
    assert ours == {"recipe": "default", "hidden": "64,32", "epochs": 3, "learning-rate": 0.5}
    bench = printed("bench", "--config", config)["bench"]
    assert (bench["hidden"], bench["peers"], bench["backends"]) == ("64,32", True, "numpy")


@pytest.mark.parametrize("command", ["train", "bench", "doctor"])
def test_what_is_printed_is_a_file_that_means_the_same(config: Path, command: str) -> None:
    given = [] if command == "doctor" else ["--hidden", "8,4", "--backend", "numpy", "--dtype", "float64", "--data", 'a "quoted" ü']
    first = CliRunner().invoke(app, [command, *given, "--print-config"])
    config.write_text(first.stdout, encoding="utf-8")
    assert CliRunner().invoke(app, [command, "--config", str(config), "--print-config"]).stdout == first.stdout


def test_fleet_has_its_own_table_and_passes_that_of_bench_on_before_the_command_line(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlp_accel.bench import fleet
    from mlp_accel.tune import cluster

    passed: list[Any] = []

    def measure(client: object, options: list[str], _: object) -> list[Any]:
        passed.extend([client, options])
        return []

    monkeypatch.setattr(cluster, "connected", nullcontext)
    monkeypatch.setattr(cluster, "compare_versions", lambda _: None)
    monkeypatch.setattr(fleet, "measure_fleet", measure)
    config.write_text('[fleet]\nscheduler = "tcp://head:8786"\n[bench]\nepochs = 2\npeers = true\nplain = false\nhidden = [8, 4]\n')
    arguments = ["fleet", "--json", str(tmp_path / "fleet"), "--config", str(config), "--epochs", "3"]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert passed == ["tcp://head:8786", ["--epochs", "2", "--peers", "--hidden", "8,4", "--epochs", "3"]]


def test_what_a_command_must_be_given_may_stand_in_the_file(config: Path) -> None:
    config.write_text('base = "main"')
    assert printed("ab", "--config", config)["ab"]["base"] == "main"
    config.write_text('data = "new.csv"')
    assert printed("predict", "a.safetensors", "--config", config)["predict"] == {"model": "a.safetensors", "data": "new.csv"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('epochs = "many"', "epochs must be a whole number; got 'many'"),
        ("epochs = 2.5", "epochs must be a whole number; got 2.5"),
        ("epochs = true", "epochs must be a number, a string or a list; got True"),
        ("learning_rate = 'fast'", "learning_rate must be a number; got 'fast'"),
        ("epoch = 2", "train has no option epoch; it has backend, "),
        ("[train]\nprint-config = true", "train has no option print-config"),
        ("train = 3", "train has no option train"),
        ("epochs = 1979-05-27", "epochs must be a number"),
        ("epochs =", "is no TOML file"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(config: Path, content: str, words: str) -> None:
    config.write_text(content)
    with pytest.raises(SettingError) as caught:
        CliRunner().invoke(app, ["train", "--config", str(config)], catch_exceptions=False)
    assert words in str(caught.value)
    assert str(config) in str(caught.value)


def test_a_flag_in_the_file_is_true_or_false(config: Path) -> None:
    config.write_text("peers = 1")
    with pytest.raises(SettingError, match="peers must be true or false; got 1"):
        CliRunner().invoke(app, ["bench", "--config", str(config)], catch_exceptions=False)
    with pytest.raises(SettingError, match=r"cannot read .*nowhere"):
        CliRunner().invoke(app, ["bench", "--config", str(config.parent / "nowhere")], catch_exceptions=False)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_short_help_and_takes_a_file(command: str) -> None:
    short, long = (CliRunner().invoke(app, [command, flag]).stdout for flag in ("-h", "--help"))
    assert short == long
    for option in ("--config FILE", "--print-config"):
        assert option in long
    assert ("--backend" in long) == ("--backends" in long)
