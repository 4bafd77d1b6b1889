"""An Optuna study that says what is tried: what it is told, and how an ended search goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlp_accel import SettingError
from mlp_accel.tune import Range, tune
from mlp_accel.tune.study import NAME, OptunaMissingError, StudyError, open_study
from mlp_accel.tune.tuner import Progress

optuna: Any = pytest.importorskip("optuna", reason="needs the extra optuna")

RANGES: dict[str, Any] = {
    "learning_rate": Range(0.01, 1.0, log=True),
    "hidden": [4, (6, 5)],
    "batch_size": Range(16, 64, whole=True),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def search(clouds: Path) -> Iterator[Any]:
    with ThreadPoolExecutor(1) as executor:
        options: dict[str, Any] = {"backend": "numpy", "executor": executor, "threads": 1, "trials": 7, "at_once": 3}
        yield lambda sampler, ranges=RANGES, **more: tune(ranges, str(clouds), sampler=sampler, **(options | more))


def study(seed: int = 0) -> Any:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))


def test_a_study_is_told_the_mean_over_seeds_and_folds_of_what_it_has_asked_for(search: Any) -> None:
    asked, heard = study(), list[Progress]()
    found = search(asked, seeds=2, folds=2, listen=heard.append)
    assert (found.wanted, found.missing) == (28, 0)
    assert {progress.wanted for progress in heard} == {28}
    assert [trial.state.name for trial in asked.trials] == ["COMPLETE"] * 7
    for trial in asked.trials:
        hidden = {4: [4], "6-5": [6, 5]}[trial.params["hidden"]]
        settings = {**trial.params, "hidden": hidden}
        (ranked,) = [one for one in found.ranking() if {name: one.settings[name] for name in settings} == settings]
        assert trial.value == ranked.accuracy
        assert ranked.networks == 4
        assert 0.01 <= trial.params["learning_rate"] <= 1
        assert trial.params["batch_size"] in range(16, 65)


def test_settings_with_a_network_that_diverges_are_a_pruned_trial(search: Any) -> None:
    asked = study()
    found = search(asked, {"learning_rate": [1e30, 0.1], "activation": ["relu"]})
    states = {trial.params["learning_rate"]: trial.state.name for trial in asked.trials}
    assert states == {1e30: "PRUNED", 0.1: "COMPLETE"}
    assert found.missing == 0


def test_settings_with_a_network_that_cannot_be_trained_are_a_failed_trial(search: Any) -> None:
    asked = study()
    found = search(asked, path="nonsense")
    assert [trial.state.name for trial in asked.trials] == ["FAIL"] * 7
    assert len(found.failed) == found.missing == 7


def test_a_study_in_memory_with_a_seed_asks_for_the_same_again_and_trains_only_what_is_missing(search: Any, tmp_path: Path) -> None:
    file = tmp_path / "tune.jsonl"
    whole = search(study(), results=file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:4]))
    heard: list[Progress] = []
    again = search(study(), results=file, listen=heard.append)
    assert sum(len(progress.new) for progress in heard) == 3
    assert [row["settings"] for row in again.rows] == [row["settings"] for row in whole.rows]


@pytest.mark.parametrize("place", ["sqlite:///{}/tune.db", "{}/optuna.log"])
def test_a_study_that_is_kept_goes_on_where_it_was(search: Any, tmp_path: Path, place: str) -> None:
    file, text = tmp_path / "tune.jsonl", place.format(tmp_path)

    def ctrl_c(progress: Progress) -> None:
        if progress.done >= 4:
            raise KeyboardInterrupt

    ended = search(open_study(text), results=file, listen=ctrl_c)
    there = len(file.read_text().splitlines())
    assert 4 <= there < 7
    assert (ended.interrupted, ended.wanted, ended.missing) == ("Ctrl-C", 7, 7 - there)
    assert [trial.state.name for trial in open_study(text).trials].count("RUNNING") > 0
    heard: list[Progress] = []
    found = search(open_study(text), results=file, listen=heard.append)
    assert (found.wanted, found.missing) == (7, 0)
    assert sum(len(progress.new) for progress in heard) == 7 - there
    assert [trial.state.name for trial in open_study(text).trials] == ["COMPLETE"] * 7
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    told = sorted(trial.value for trial in open_study(text).trials)
    assert told == sorted(row["accuracy"] for row in rows)
    more = search(open_study(text), results=file, trials=9)
    assert (more.wanted, more.missing, len(open_study(text).trials)) == (9, 0, 9)


def test_of_several_studies_one_is_named(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/tune.db"
    assert open_study(place).study_name == NAME
    assert open_study(f"{place}#other").study_name == "other"
    with pytest.raises(StudyError, match=rf"has the studies {NAME}, other: name one of them"):
        open_study(place)


def test_a_place_where_no_study_can_be_is_named() -> None:
    with pytest.raises(StudyError, match="the study nonsense://x cannot be opened"):
        open_study("nonsense://x")


@pytest.mark.parametrize(
    ("ranges", "more", "error", "message"),
    [
        ({}, {}, SettingError, "there are no settings for the study to choose"),
        ({"speed": [1]}, {}, SettingError, "unknown setting 'speed'"),
        ({"hidden": object()}, {}, SettingError, "a study chooses from a Range or from values; hidden is"),
        (RANGES, {"trials": 0}, SettingError, "the number of trials must be at least 1; got 0"),
        ([{"hidden": 4}], {}, SettingError, "for a sampler, a mapping of ranges"),
    ],
)
def test_what_a_study_cannot_choose_from_is_an_error(
    search: Any, ranges: Any, more: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        search(study(), ranges, **more)


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "maximize"]])
def test_a_study_that_wants_something_else_is_an_error(search: Any, directions: list[str]) -> None:
    with pytest.raises(StudyError, match="must maximise one number: it is told accuracies"):
        search(optuna.create_study(directions=directions))


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(OptunaMissingError, match=r"pip install 'mlp-accel\[optuna\]'"):
        open_study("tune.log")
