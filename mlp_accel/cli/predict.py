"""``mlp-accel predict``."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy.typing as npt
import typer

from mlp_accel.cli.console import output_console
from mlp_accel.cli.options import check_outputs, command
from mlp_accel.datasets import load_samples
from mlp_accel.errors import DatasetError
from mlp_accel.files import flush_output, write_text
from mlp_accel.training.model import Model, load_model

ModelFile = Annotated[Path, typer.Argument(help="A model file, as train --save writes it: model.safetensors")]
ModelActivation = Annotated[
    str | None, typer.Option("--activation", help="Of the hidden layers, where the file does not tell it", show_default=False)
]


@dataclass(frozen=True)
class PredictOptions:
    """The options of ``predict``."""

    model: ModelFile
    data: Annotated[
        str, typer.Argument(help="Samples: a table .csv, a .npz with x or x_test, a file of IDX images, or what --data takes")
    ]
    activation: ModelActivation = None
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write labels and probabilities as CSV  [default: standard output]", show_default=False),
    ] = None


@command
def predict(options: PredictOptions) -> None:
    """Predict labels and probabilities; and say how many are right, where the data have labels."""
    check_outputs(None, None, options.output)
    model = load_model(options.model, options.activation)
    features, target = model.settings.get("features"), model.settings.get("target")
    x, labels = load_samples(options.data, features, target)
    try:
        probabilities = model.predict_proba(x)
        score = None if labels is None else model.evaluate(x, labels)
    except ValueError as error:  # samples of another size, labels that the model does not know
        raise DatasetError(f"{options.data}: {error}") from error
    text = as_csv(model, probabilities)
    console = output_console("-" if options.output is None else None)
    if options.output is None:
        sys.stdout.write(text)
        flush_output()
    else:
        write_text(options.output, text)
        console.print(f"wrote {options.output}: {len(x)} samples")
    if score is not None:
        console.print(f"Loss: {score[0]:.4f} - Accuracy: {score[1]:.4f}")


def as_csv(model: Model, probabilities: npt.NDArray[Any]) -> str:
    """A line for each sample: its most probable label, then the probability of each class."""
    classes = list(range(model.layer_sizes[-1])) if model.classes is None else model.classes.tolist()
    best, file = probabilities.argmax(axis=1), io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["label", *(f"probability_{label}" for label in classes)])
    writer.writerows([classes[index], *(f"{p:.9g}" for p in row)] for index, row in zip(best, probabilities, strict=True))
    return file.getvalue()
