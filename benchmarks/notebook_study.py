"""A study of the notebook's recipe against the learning curve that the notebook printed.

    python benchmarks/notebook_study.py [--seeds 30] [--control-seeds 10] [--jobs 2]

Trains the notebook's recipe with many seeds and compares each loss and accuracy of the print-out with their mean and standard
deviation. The recipe is confirmed if at least 95 % of the printed numbers lie within 3 standard deviations and none beyond 5.
The same check must reject the controls: twice the learning rate, the exact gradient at the notebook's learning rate, and the
exact gradient at 128 times that rate, which makes up for the mean instead of the sum. Writes ``results/notebook_study.json``
and ``.png``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlp_accel import get_backend, load, mini_batch_sgd
from mlp_accel.environment import environment
from mlp_accel.files import write_text
from mlp_accel.plots import BLUE, GREY, ORANGE, save_figure
from mlp_accel.training.notebook import printed_curve
from mlp_accel.training.recipes import RECIPES, Recipe
from mlp_accel.training.trainer import NOTEBOOK_LEARNING_RATE

RESULTS = Path(__file__).parent / "results"
NOTEBOOK = RECIPES["notebook"]
CONTROLS = {
    "twice the learning rate": replace(NOTEBOOK, learning_rate=2 * NOTEBOOK_LEARNING_RATE),
    "exact gradient": replace(NOTEBOOK, gradient="exact"),
    "exact gradient, summed": replace(NOTEBOOK, gradient="exact", learning_rate=NOTEBOOK.batch_size * NOTEBOOK_LEARNING_RATE),
}


def learning_curve(recipe: Recipe) -> list[list[float]]:
    """Losses and accuracies of one training run, on one thread."""
    mnist = load("mnist")
    history = mini_batch_sgd(
        mnist.x_train,
        mnist.y_train,
        recipe.initial_params(mnist.n_in, mnist.n_classes),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        activation=recipe.activation,
        gradient=recipe.gradient,
        optimizer=recipe.optimizer,
        seed=recipe.seed,
        backend=get_backend("numpy", recipe.dtype),
        threads=1,
        loss_average=recipe.loss_average,
    )
    return [history.loss, history.accuracy]


def compare(curves: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Place the printed numbers among `curves` ``(seeds, 2, epochs)``."""
    epochs = [epoch for epoch in printed_curve() if epoch <= curves.shape[2]]
    printed = np.array([printed_curve()[epoch] for epoch in epochs]).T
    ours = curves[:, :, [epoch - 1 for epoch in epochs]]
    mean, deviation = ours.mean(axis=0), ours.std(axis=0, ddof=1)
    distance = np.abs(printed - mean) / deviation
    within, furthest = float((distance < 3).mean()), float(distance.max())
    return {
        "seeds": len(curves),
        "within_3_standard_deviations": within,
        "furthest_in_standard_deviations": furthest,
        "confirmed": within >= 0.95 and furthest <= 5,
        "epochs": epochs,
        "mean": {"loss": mean[0].tolist(), "accuracy": mean[1].tolist()},
        "standard_deviation": {"loss": deviation[0].tolist(), "accuracy": deviation[1].tolist()},
    }


def draw(curves: npt.NDArray[np.float64]) -> Figure:
    """The printed curve over those of all seeds."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    printed = printed_curve()
    epochs = np.arange(1, curves.shape[2] + 1)
    for index, (axes, title) in enumerate(zip(figure.subplots(1, 2), ("Loss", "Accuracy"), strict=True)):
        ours = curves[:, index]
        mean, deviation = ours.mean(axis=0), ours.std(axis=0, ddof=1)
        axes.fill_between(epochs, mean - 3 * deviation, mean + 3 * deviation, color=GREY, alpha=0.3, label="±3 standard deviations")
        axes.plot(epochs, mean, color=BLUE, label=f"mlp_accel, mean of {len(curves)} seeds")
        axes.plot(list(printed), [pair[index] for pair in printed.values()], ".", color=ORANGE, label="notebook, as printed")
        axes.set(title=title, xlabel="Epoch")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def main() -> int:
    """Run the study; the exit code is 0 if the recipe is confirmed and every control rejected, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--control-seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=NOTEBOOK.epochs)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    options = parser.parse_args()
    variants = {"notebook": (NOTEBOOK, options.seeds)} | {
        name: (recipe, options.control_seeds) for name, recipe in CONTROLS.items()
    }
    report: dict[str, Any] = {"schema": 1, "environment": environment(), "config": NOTEBOOK.to_dict(), "variants": {}}
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for name, (recipe, seeds) in variants.items():
            runs = [replace(recipe, seed=seed, epochs=options.epochs) for seed in range(seeds)]
            curves = np.array(pool.map(learning_curve, runs, chunksize=1))
            outcome = report["variants"][name] = compare(curves)
            verdict = "confirmed" if outcome["confirmed"] else "rejected"
            within, furthest = outcome["within_3_standard_deviations"], outcome["furthest_in_standard_deviations"]
            sys.stdout.write(
                f"{name}: {verdict}; {within:.1%} of the print-out within 3 standard deviations, furthest {furthest:.1f}\n"
            )
            sys.stdout.flush()
            if name == "notebook":
                save_figure(draw(curves), RESULTS / "notebook_study.png")
    write_text(RESULTS / "notebook_study.json", json.dumps(report, indent=1) + "\n")
    right = all(outcome["confirmed"] == (name == "notebook") for name, outcome in report["variants"].items())
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
