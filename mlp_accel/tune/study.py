"""An Optuna study that is asked which settings to try next, and told how good they were. Needs the extra ``optuna``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_accel.errors import MlpAccelError, SettingError
from mlp_accel.training.history import DIVERGED
from mlp_accel.tune.journal import Row
from mlp_accel.tune.ranking import ranked
from mlp_accel.tune.space import Distribution, Range, Settings, check_names

NAME = "mlp-accel tune"
"""Of a study that is made here."""

MARK = "mlp_accel_results"
"""The attribute of a trial that says which file its results go to."""

PLAIN = (bool, int, float, str)
"""What Optuna can choose from, beside None."""

Ranges = Mapping[str, Distribution | Sequence[Any]]


class OptunaMissingError(MlpAccelError, ImportError):
    """Optuna is not installed."""


class StudyError(MlpAccelError, ValueError):
    """A study cannot be opened, or is no study of accuracies."""


def optuna() -> Any:
    """The package; OptunaMissingError if it is not installed."""
    try:
        import optuna as package
    except ImportError as error:
        raise OptunaMissingError(f"a study needs Optuna ({error}): pip install 'mlp-accel[optuna]'") from error
    return package


def open_study(text: str, seed: int = 0) -> Any:
    """The study of a storage, which is made if there is none.

    Parameters
    ----------
    text : str
        The address of the storage as Optuna knows it, such as ``sqlite:///tune.db``, or a file to which Optuna appends its journal;
        behind ``#`` the name of the study, where there are several.
    seed : int
        Of the sampler (TPE).

    Raises
    ------
    StudyError
        If the storage cannot be opened, or it has several studies and none is named.
    """
    package = optuna()
    place, _, name = text.partition("#")
    try:
        storage: Any = place
        if "://" not in place:
            storage = package.storages.JournalStorage(package.storages.journal.JournalFileBackend(place))
        names = package.study.get_all_study_names(storage)
        if not name and len(names) > 1:
            raise StudyError(f"{place} has the studies {', '.join(names)}: name one of them, as {place}#{names[0]}")
        study = package.create_study(
            storage=storage, study_name=name or (names[0] if names else NAME), direction="maximize", load_if_exists=True
        )
        study.sampler = package.samplers.TPESampler(seed=seed + len(study.trials))  # the draws before are not made again
    except StudyError:
        raise
    except Exception as error:  # of a database, a file system or Optuna
        raise StudyError(f"the study {text} cannot be opened: {error}") from error
    return study


class Asked:
    """A study, and what it has said should be tried.

    Parameters
    ----------
    study : optuna.Study
        That maximises one number: it is told the mean accuracy over seeds and folds. Settings with a network that diverged are a
        pruned trial, those with one that could not be trained a failed one.
    ranges : mapping
        For each setting what it is chosen from: a `Range`, or a sequence of values.
    trials : int
        How many the study shall have in the end.
    at_once : int
        How many settings are asked for before the first of them are told: their networks can share launches.
    results : path, optional
        The file of results. Trials that a search with this file has left unfinished are gone on with.

    Raises
    ------
    StudyError
        If the study has several objectives, or minimises.
    SettingError
        If there is nothing to choose from, or a distribution that Optuna does not have.
    """

    def __init__(self, study: Any, ranges: Ranges, trials: int, at_once: int = 10, results: Path | None = None) -> None:
        package = optuna()
        if len(study.directions) != 1 or study.directions[0] != package.study.StudyDirection.MAXIMIZE:
            raise StudyError(f"the study {study.study_name!r} must maximise one number: it is told accuracies")
        for name, value in (("trials", trials), ("settings that are asked for at once", at_once)):
            if value < 1:
                raise SettingError(f"the number of {name} must be at least 1; got {value}")
        check_names(ranges)
        if not ranges:
            raise SettingError("there are no settings for the study to choose: give ranges or values")
        self.study, self.trials, self.at_once = study, trials, at_once
        self._states = package.trial.TrialState
        self._mark = None if results is None else str(results.resolve())
        self._values = {name: _by_label(values) for name, values in ranges.items() if isinstance(values, Sequence)}
        self._distributions = {name: self._distribution(package.distributions, name, values) for name, values in ranges.items()}

    def rounds(self) -> Iterator[list[tuple[int, Settings]]]:
        """Trials that are to be trained now, by number, a few at a time; the next ones are asked for when these have been told."""
        ours = self._unfinished()
        while ours or self._left() > 0:
            while len(ours) < min(self.at_once, self._left()):
                trial = self.study.ask(self._distributions)
                if self._mark is not None:
                    trial.set_user_attr(MARK, self._mark)
                ours.append((trial.number, trial.params))
            some, ours = ours[: self.at_once], ours[self.at_once :]
            yield [(number, self._settings(params)) for number, params in some]

    def finished(self) -> list[Settings]:
        """The settings of the trials that the study knew how good they are, before it is asked."""
        trials = self.study.get_trials(deepcopy=False)
        return [self._settings(trial.params) for trial in trials if trial.state.is_finished() and self._ours(trial)]

    def tell(self, number: int, rows: Sequence[Row], wanted: int) -> None:
        """Say what has become of the networks of a trial, `wanted` of them."""
        if any(row["status"] == DIVERGED for row in rows):
            self.study.tell(number, state=self._states.PRUNED)
        elif len(rows) < wanted:
            self.study.tell(number, state=self._states.FAIL)
        else:
            self.study.tell(number, ranked(rows)[0].accuracy)

    def _left(self) -> int:
        """How many trials the study has not begun."""
        ended = sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))
        return self.trials - int(ended)

    def _unfinished(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Trials that a search with the same file of results was at when it ended early."""
        if self._mark is None:
            return []
        running = self.study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
        return [(trial.number, trial.params) for trial in running if trial.user_attrs.get(MARK) == self._mark and self._ours(trial)]

    def _ours(self, trial: Any) -> bool:
        """Whether a trial has the settings that are chosen here, and values that are among those."""
        return trial.params.keys() == self._distributions.keys() and all(
            trial.params[name] in labels for name, labels in self._values.items()
        )

    def _settings(self, params: Mapping[str, Any]) -> Settings:
        return {name: self._values[name][value] if name in self._values else value for name, value in params.items()}

    def _distribution(self, kinds: Any, name: str, values: Distribution | Sequence[Any]) -> Any:
        if name in self._values:
            return kinds.CategoricalDistribution(list(self._values[name]))
        if not isinstance(values, Range):
            raise SettingError(f"a study chooses from a Range or from values; {name} is {values!r}")
        if values.whole:
            return kinds.IntDistribution(int(values.low), int(values.high), log=values.log)
        return kinds.FloatDistribution(values.low, values.high, log=values.log)


def _by_label(values: Sequence[Any]) -> dict[Any, Any]:
    """The values by what Optuna can keep: numbers and text as they are, hidden layers as ``"64-32"``."""
    return {value if isinstance(value, (*PLAIN, type(None))) else "-".join(map(str, value)): value for value in values}
