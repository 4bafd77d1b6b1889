"""The estimator beside scikit-learn's own: whole calls of fit and predict_proba, and accuracies over seeds.

    python benchmarks/estimator_study.py speed       # about five minutes: fit and predict_proba, in turns
    python benchmarks/estimator_study.py accuracy    # about two minutes: 20 seeds of each on load_digits
    python benchmarks/estimator_study.py checkpoint  # about two minutes: trainings with and without a checkpoint, in turns

Both get the same arrays and the same settings. Each call is timed whole, validation of the data included; kernels have been
compiled before. Written to ``benchmarks/results/estimator_speed.json``, ``estimator_accuracy.json`` and
``estimator_checkpoint.json``. With ``--quick`` as the second argument everything is small, and nothing is written.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier as Reference

from mlp_accel import init_params, load, mini_batch_sgd
from mlp_accel.bench.evidence import ratio_interval
from mlp_accel.environment import environment
from mlp_accel.files import write_json
from mlp_accel.sklearn import MLPClassifier

RESULTS = Path(__file__).parent / "results"
QUICK = "--quick" in sys.argv
FITS, EPOCHS = (1, 1) if QUICK else (3, 4)
ROWS = 20 if QUICK else 500
SEEDS = 2 if QUICK else 20
TRAININGS, LONG = (2, 10) if QUICK else (10, 400)
"""Pairs of trainings with and without a checkpoint, and the epochs of each, which take several seconds."""

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sgd, no momentum, alpha 0": {"solver": "sgd", "momentum": 0, "alpha": 0, "learning_rate_init": 0.1},
}


def data_sets() -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """MNIST as floats, and 100,000 samples of 54 dense floats in 7 classes, as many as the forest cover types have."""
    mnist, rng = load("mnist"), np.random.default_rng(0)
    x = rng.normal(size=(100_000, 54)).astype(np.float32)
    y = (x @ rng.normal(size=(54, 7)) + rng.normal(size=(100_000, 7))).argmax(axis=1)
    return {"MNIST floats": ((mnist.x_train / 255).astype(np.float32), mnist.y_train), "54 floats x 100,000": (x, y)}


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, after one that does not count; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def one_by_one(classifier: Any, rows: list[npt.NDArray[Any]]) -> None:
    """Predict each row by itself."""
    for row in rows:
        classifier.predict_proba(row)


def speed() -> dict[str, Any]:
    """Seconds of whole calls, by what is called, then by whose it is."""
    found: dict[str, Any] = {}

    def measure(what: str, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> None:
        seconds = in_turns({"mlp_accel": ours, "scikit-learn": theirs}, rounds)
        found[what] = seconds
        medians = {name: float(np.median(values)) for name, values in seconds.items()}
        line = ", ".join(f"{name} {median * 1e3:.2f} ms" for name, median in medians.items())
        sys.stdout.write(f"{what}: {line}: {medians['scikit-learn'] / medians['mlp_accel']:.1f} x\n")
        sys.stdout.flush()

    for name, (x, y) in data_sets().items():
        ours: Any
        theirs: Any
        for what, settings in SETTINGS.items():
            ours, theirs = (kind(random_state=0, max_iter=EPOCHS, **settings) for kind in (MLPClassifier, Reference))
            measure(f"fit, {name}, {what}, {EPOCHS} epochs", partial(ours.fit, x, y), partial(theirs.fit, x, y), FITS)
        for dtype in ("float32", "float64"):
            few = x[:10_000].astype(dtype)
            rows = [few[i : i + 1] for i in range(ROWS)]
            if dtype == "float64":
                theirs = Reference(random_state=0, max_iter=1).fit(few, y[:10_000])
            what = f"predict_proba, {name}"
            measure(f"{what}, 10,000 rows of {dtype}", partial(ours.predict_proba, few), partial(theirs.predict_proba, few), 15)
            each = partial(one_by_one, ours, rows), partial(one_by_one, theirs, rows)
            measure(f"{what}, {ROWS} times one row of {dtype}", *each, 5)
    return found


def accuracy() -> dict[str, Any]:
    """Test accuracies on `load_digits`, by settings, then by whose estimator it is, for each seed."""
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16, y, test_size=0.4, random_state=0, stratify=y)
    found: dict[str, Any] = {}
    for what, settings in SETTINGS.items():
        scores: dict[str, list[float]] = {}
        for name, kind in (("mlp_accel", MLPClassifier), ("scikit-learn", Reference)):
            made = [kind(random_state=seed, max_iter=30, **settings).fit(x_train, y_train) for seed in range(SEEDS)]
            scores[name] = [float(classifier.score(x_test, y_test)) for classifier in made]
            line = f"mean {np.mean(scores[name]):.4f}, standard deviation {np.std(scores[name], ddof=1):.4f}"
            sys.stdout.write(f"{what}: {name}: {line}\n")
            sys.stdout.flush()
        ours, theirs = scores["mlp_accel"], scores["scikit-learn"]
        difference = float(np.mean(ours) - np.mean(theirs))
        error = float(np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / SEEDS))
        sys.stdout.write(f"{what}: difference {difference:+.4f}, its standard error {error:.4f}\n")
        found[what] = {**scores, "difference": difference, "standard_error": error}
    return found


def checkpoint() -> dict[str, Any]:
    """Seconds of whole trainings of 784-32-10 on MNIST that write a checkpoint once a second, and of others that write none."""
    mnist = load("mnist")

    def train(folder: str | None) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as made:  # a new file each time, or the training would go on with it
            given: dict[str, Any] = {} if folder is None else {"checkpoint": Path(made) / "run.ckpt"}
            mini_batch_sgd(mnist.x_train, mnist.y_train, init_params([784, 32, 10]), epochs=LONG, **given)

    seconds = in_turns({"without": partial(train, None), "with": partial(train, str(RESULTS))}, TRAININGS)
    ratio = float(np.median(seconds["with"]) / np.median(seconds["without"]))
    low, high = ratio_interval(seconds["without"], seconds["with"])
    sys.stdout.write(f"with a checkpoint {100 * (ratio - 1):+.1f} % ({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f})\n")
    return {"epochs": LONG, "seconds": seconds, "ratio": ratio, "interval": [low, high]}


def main() -> None:
    """Measure, print and write."""
    studies = {"speed": speed, "accuracy": accuracy, "checkpoint": checkpoint}
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in studies:
        sys.exit(__doc__)
    warnings.simplefilter("ignore", ConvergenceWarning)
    report = environment()
    result = {"schema": 1, "environment": report, name: studies[name]()}
    if not QUICK:
        write_json(str(RESULTS / f"estimator_{name}.json"), json.loads(json.dumps(result)))


if __name__ == "__main__":
    main()
