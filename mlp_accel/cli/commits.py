"""What ``trend --paired`` and ``bisect`` share: the options that say what is trained, and a folder of builds to measure."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlp_accel.backends.paths import AUTO
from mlp_accel.cli.options import (
    Activation,
    BatchSize,
    Data,
    DType,
    Hidden,
    check_counts,
    gate_threads,
    read_settings,
)
from mlp_accel.training.recipes import RECIPES

if TYPE_CHECKING:
    from mlp_accel.bench.history.pairs import Bench

SETTINGS = ("hidden", "activation", "gradient", "dtype", "batch_size", "seed")


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """What is trained by the builds that take turns, and how often."""

    threshold: Annotated[str, typer.Option(help="A slowdown up to this one does not matter")] = "3%"
    launches: Annotated[int, typer.Option(help="How often to start the workers of two commits; at least 7")] = 10
    rounds: Annotated[int, typer.Option(help="Epochs of each worker in a launch; at least 6")] = 60
    data: Data = None
    hidden: Hidden = None
    activation: Activation = None
    dtype: DType = None
    batch_size: BatchSize = None
    thread_option: Annotated[
        int | None,
        typer.Option("--threads", help="CPU threads  [default: $MLP_ACCEL_NUM_THREADS, else 1, the steadiest]", show_default=False),
    ] = None


def pair_config(options: PairOptions, path: str | None) -> dict[str, Any]:
    """What the workers are told, but for the backend and their inputs; everything is checked."""
    check_counts(options.launches, options.rounds)
    settings = read_settings(RECIPES["default"], options)
    return {
        **{name: getattr(settings, name) for name in SETTINGS},
        **settings.optimizer_settings(),
        "path": path or AUTO,
        "threads": gate_threads(options.thread_option),
        "data": options.data,
    }


@contextmanager
def benches(
    root: Path, config: dict[str, Any], options: PairOptions, listen: Callable[[str], object]
) -> Iterator[Mapping[str, Bench]]:
    """For each backend of ``config["backends"]`` a bench; the builds are shared, and gone afterwards."""
    from mlp_accel.bench.gate.launches import write_inputs
    from mlp_accel.bench.history.pairs import Bench, Builds

    with tempfile.TemporaryDirectory(prefix="mlp-accel-commits.") as temporary:
        folder = Path(temporary)
        inputs = folder / "inputs.npz"
        config["data"] = write_inputs(inputs, config)
        builds = Builds(root, folder)
        yield {
            name: Bench(builds, {**config, "backend": name, "inputs": str(inputs)}, options.launches, options.rounds, listen)
            for name in config["backends"]
        }
