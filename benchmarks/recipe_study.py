"""The study that chose the recipe ``fast``: which network, learning rate and number of epochs reach an accuracy soonest.

    python benchmarks/recipe_study.py [--seeds 30] [--first-seeds 3] [--threads 1]    # 3 minutes on one core

ReLU, minibatches of 32 and a rate that falls linearly to zero are given; hidden units, rate and epochs are chosen, for each of the
accuracies in `TARGETS`. The last 10,000 training images are put aside for validation, the networks are trained on the others.

1. Every cell of a grid is trained from a few seeds. Of the rates the best two are kept, for each width and number of epochs.
2. Those whose mean reaches the accuracy go on, the quickest first: the time of an epoch, measured with all training images, times
   the epochs. Each is trained from 10 seeds and, if all reach the accuracy, from 30. The first of which all 30 do is chosen, with
   the better of the rates of which that is so.
3. The test set is looked at once: the chosen ones, trained on all images, again from 30 seeds.

Writes ``results/recipe_study.json``; `FAST` in `mlp_accel.training.recipes` has what was chosen, and a test holds it to this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlp_accel import evaluate, get_backend, load, mini_batch_sgd, train_many
from mlp_accel.backends.base import Backend
from mlp_accel.datasets import Dataset
from mlp_accel.environment import environment
from mlp_accel.files import write_json
from mlp_accel.training.history import DONE
from mlp_accel.training.recipes import Recipe

RESULT = Path(__file__).parent / "results" / "recipe_study.json"
TARGETS = (0.955, 0.97, 0.98)
BASE = Recipe(activation="relu", batch_size=32, schedule="linear")
HIDDEN = (32, 48, 64, 128, 256)
RATES = (0.3, 0.4, 0.5, 0.6)
EPOCHS = (1, 2, 3, 4, 5, 6)
N_VALIDATION = 10_000
TIMED_EPOCHS = 9
SOME_SEEDS = 10


@dataclass(frozen=True)
class Split:
    """What networks are trained on, and what they are looked at with."""

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    x_seen: npt.NDArray[Any]
    y_seen: npt.NDArray[Any]

    @classmethod
    def validation(cls, data: Dataset) -> Split:
        """The last training samples are put aside: other people wrote them."""
        x, y, n = data.x_train, data.y_train, len(data.x_train) - N_VALIDATION
        return cls(x[:n], y[:n], x[n:], y[n:])

    @classmethod
    def test(cls, data: Dataset) -> Split:
        """All training samples, and the test set."""
        return cls(data.x_train, data.y_train, data.x_test, data.y_test)


@dataclass(frozen=True)
class Study:
    """How the networks are trained."""

    data: Dataset
    backend: Backend
    threads: int

    def accuracies(self, recipe: Recipe, rates: Sequence[float], seeds: int, split: Split) -> npt.NDArray[np.float64]:
        """Accuracies ``(rates, seeds)``; all networks are trained side by side. One that diverged has 0."""
        runs = [replace(recipe, learning_rate=rate, seed=seed) for rate in rates for seed in range(seeds)]
        histories = train_many(
            split.x,
            split.y,
            [run.initial_params(self.data.n_in, self.data.n_classes) for run in runs],
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rates=[run.find_rate() for run in runs],
            activation=recipe.activation,
            schedule=recipe.find_schedule(),
            seeds=[run.seed for run in runs],
            backend=self.backend,
            threads=self.threads,
        )
        found = [
            evaluate(self.backend, history.params, split.x_seen, split.y_seen, recipe.activation, threads=self.threads)[1]
            if history.status == DONE
            else 0.0
            for history in histories
        ]
        return np.array(found).reshape(len(rates), seeds)

    def epoch_seconds(self, hidden: int) -> float:
        """The shortest of some epochs of one network: the machine has other work too."""
        recipe = replace(BASE, hidden=(hidden,), learning_rate=0.1)
        history = mini_batch_sgd(
            self.data.x_train,
            self.data.y_train,
            recipe.initial_params(self.data.n_in, self.data.n_classes),
            epochs=TIMED_EPOCHS,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            activation=recipe.activation,
            schedule=recipe.find_schedule(),
            backend=self.backend,
            threads=self.threads,
        )
        return min(history.seconds)

    def grid(self, seeds: int) -> list[dict[str, Any]]:
        """Every width and number of epochs at its best rate, with the mean accuracies at all rates; the quickest first."""
        split, cells = Split.validation(self.data), []
        for hidden in HIDDEN:
            seconds = self.epoch_seconds(hidden)
            say(f"784-{hidden}-10: {seconds * 1e3:.1f} ms an epoch")
            for epochs in EPOCHS:
                recipe = replace(BASE, hidden=(hidden,), epochs=epochs)
                means = self.accuracies(recipe, RATES, seeds, split).mean(axis=1)
                cells.append(
                    {
                        "hidden": hidden,
                        "epochs": epochs,
                        "seconds": epochs * seconds,
                        "accuracy": float(means.max()),
                        "accuracies": means.tolist(),
                    }
                )
            say("  " + ", ".join(f"{cell['epochs']}: {cell['accuracy']:.2%}" for cell in cells[-len(EPOCHS) :]))
        return sorted(cells, key=lambda cell: float(cell["seconds"]))

    def choose(self, target: float, cells: list[dict[str, Any]], seeds: int) -> dict[str, Any]:
        """The quickest cell of which every seed reaches the accuracy, those that failed before it, and the test of it."""
        passed_over: list[dict[str, Any]] = []
        for cell in cells:
            if cell["accuracy"] < target:
                continue
            recipe = replace(BASE, hidden=(cell["hidden"],), epochs=cell["epochs"])
            row = {name: cell[name] for name in ("hidden", "epochs", "seconds")}
            trained = self.validate(recipe, best_rates(cell), target, seeds)
            best = max(trained, key=lambda found: float(found["mean"]))
            say(f"{target:.1%}: {row} {best}")
            if best["reached"] == seeds:
                recipe = replace(recipe, learning_rate=best["learning_rate"])
                test = describe(self.accuracies(recipe, (recipe.find_rate(),), seeds, Split.test(self.data)), target)
                say(f"{target:.1%}: chosen; on the test set {test}")
                return {"accuracy": target, **row, "validation": best, "test": test, "passed_over": passed_over}
            passed_over.append({**row, "validation": trained})
        raise SystemExit(f"nothing in the grid reaches {target:.1%} from all of {seeds} seeds")

    def validate(self, recipe: Recipe, rates: Sequence[float], target: float, seeds: int) -> list[dict[str, Any]]:
        """The rates of which every seed reaches the accuracy, or if there is none all, with as many seeds as they were given."""
        split, found = Split.validation(self.data), []
        for count in (min(SOME_SEEDS, seeds), seeds):
            accuracies = self.accuracies(recipe, rates, count, split)
            found = [{"learning_rate": rate, **describe(row, target)} for rate, row in zip(rates, accuracies, strict=True)]
            good = [row for row in found if row["reached"] == count]
            if not good:
                break
            found, rates = good, [row["learning_rate"] for row in good]
        return found


def best_rates(cell: dict[str, Any]) -> list[float]:
    """The two best rates of a cell of the grid: from a few seeds one cannot say which of them is better."""
    return [RATES[index] for index in np.argsort(cell["accuracies"])[-2:]]


def describe(accuracies: npt.NDArray[np.float64], target: float) -> dict[str, Any]:
    """Mean, standard deviation and extremes over the seeds, and how many of them reached the accuracy."""
    return {
        "seeds": accuracies.size,
        "mean": float(accuracies.mean()),
        "standard_deviation": float(accuracies.std(ddof=1)),
        "min": float(accuracies.min()),
        "max": float(accuracies.max()),
        "reached": int((accuracies >= target).sum()),
    }


def say(line: str) -> None:
    """A line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    before = environment()
    study = Study(load("mnist"), get_backend("numba"), options.threads)
    cells = study.grid(options.first_seeds)
    report = {
        "schema": 1,
        "environment": before | {"versions": study.backend.versions()},
        "config": {**BASE.to_dict(), "validation": N_VALIDATION, **vars(options)},
        "rates": RATES,
        "grid": cells,
        "chosen": [study.choose(target, cells, options.seeds) for target in TARGETS],
    }
    write_json(str(RESULT), report)


if __name__ == "__main__":
    main()
