"""``mlp-accel export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mlp_accel.cli.console import output_console
from mlp_accel.cli.options import check_outputs, command
from mlp_accel.cli.predict import ModelActivation, ModelFile
from mlp_accel.errors import SettingError
from mlp_accel.onnx import export_onnx
from mlp_accel.training.model import load_model


@dataclass(frozen=True)
class ExportOptions:
    """The options of ``export``."""

    model: ModelFile
    output: Annotated[Path, typer.Argument(help="The ONNX file to write, such as model.onnx")]
    activation: ModelActivation = None
    pixels: Annotated[
        bool | None,
        typer.Option(
            help="The input is uint8, scaled by 1/255; otherwise float32  [default: as the model was trained]", show_default=False
        ),
    ] = None


@command
def export(options: ExportOptions) -> None:
    """Write a model as an ONNX file: scaling inside, outputs label and probabilities."""
    if options.output.suffix != ".onnx":
        raise SettingError(f"the file to write must end in .onnx; got {options.output}")
    check_outputs(None, None, options.output)
    model = load_model(options.model, options.activation)
    export_onnx(model, options.output, options.pixels)
    output_console(None).print(f"wrote {options.output}: {'-'.join(map(str, model.layer_sizes))} {model.activation}")
