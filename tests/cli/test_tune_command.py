"""``mlp-accel tune``, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import assert_clear_error, run

SEARCH = (
    "tune",
    "--backend",
    "numpy",
    "--grid",
    "learning_rate=0.05,0.2",
    "--grid",
    "hidden=4,6-5",
    "--epochs",
    "2",
    "--seeds",
    "2",
)


def test_a_search_shows_the_best_and_keeps_everything_and_goes_on_where_it_was(clouds: Path, tmp_path: Path) -> None:
    file, plot, html, found = (tmp_path / name for name in ("tune.jsonl", "tune.svg", "tune.html", "tune.json"))
    outputs = ("--results", file, "--plot", plot, "--html", html, "--json", found)
    first = run(*SEARCH, "--data", clouds, *outputs)
    assert first.returncode == 0, first.stderr
    assert "8 networks, 4 settings: mean and spread, judged by 0.1 of the training samples, kept out" in first.stdout
    assert "8 of 8 networks" in first.stdout
    result = json.loads(found.read_text())
    best = result["ranking"][0]
    assert f"{best['accuracy']:.2%}" in first.stdout
    assert len(result["results"]) == len(file.read_text().splitlines()) == 8
    assert "<svg" in html.read_text()
    assert plot.exists()
    (line,) = [line for line in first.stdout.splitlines() if "mlp-accel train" in line]
    arguments = line.partition("mlp-accel ")[2].split()
    trained = run(*arguments, "--backend", "numpy", "--json", "-")
    assert trained.returncode == 0, trained.stderr
    config = json.loads(trained.stdout)["config"]
    assert {name: config[name] for name in best["settings"]} == best["settings"]

    file.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    again = run(*SEARCH, "--data", clouds, "--results", file)
    assert again.returncode == 0, again.stderr
    assert "5 of 8 networks, starting" in again.stdout
    assert len(file.read_text().splitlines()) == 8


def test_a_study_is_asked_until_it_has_so_many_trials(clouds: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra optuna")
    study, file = tmp_path / "study.log", tmp_path / "tune.jsonl"
    space = ("--range", "learning_rate=log:0.01:1", "--grid", "hidden=4,6-5", "--epochs", "9", "--patience", "2")
    for trials in (3, 5):
        options = ("--optuna", study, "--sample", trials, "--at-once", 2, "--results", file)
        done = run("tune", "--backend", "numpy", "--data", clouds, *space, *options)
        assert done.returncode == 0, done.stderr
        assert f"{trials} of {trials} networks" in done.stdout
        assert len(file.read_text().splitlines()) == trials


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--range", "momentum=0:1"), ("--range needs --sample",)),
        (("--grid", "speed=1"), ("unknown setting from --grid 'speed'", "hidden, activation")),
        (("--grid", "epochs=1", "--grid", "epochs=2"), ("--grid gives epochs more than once",)),
        (("--sample", "3", "--grid", "epochs=1", "--range", "epochs=int:1:2"), ("by --grid and by --range",)),
        (("--validation", "0.1", "--folds", "3"), ("--validation and --folds exclude each other",)),
        (("--workers", "0"), ("--workers must be at least 1",)),
        (("--patience", "0"), ("patience must be at least 1 epoch; got 0",)),
        (("--min-delta", "0.1"), ("monitor and min_delta are those of early stopping: give patience",)),
        (("--at-once", "3"), ("--at-once needs --optuna",)),
        (("--optuna", "study.log"), ("--optuna needs --sample N",)),
        (("--data", "/nowhere"), ("/nowhere", "no such file")),
    ],
)
def test_a_wrong_option_is_a_clear_error(options: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_clear_error(run("tune", "--backend", "numpy", *options), 2, *words)
