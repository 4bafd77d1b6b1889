"""What a search has found, for people: the table of the best settings, pictures, and a page with both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from mlp_accel.tune.ranking import Ranked, Tuning

OPTIONS = ("hidden", "activation", "gradient", "dtype", "epochs", "batch_size", "learning_rate", "optimizer", "momentum")
MORE_OPTIONS = ("weight_decay", "schedule", "warmup", "step_epochs", "gamma")


def text_of(value: Any) -> str:
    """A value of a setting as people write it."""
    if value is None:
        return "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def headings(found: Tuning) -> list[str]:
    """Of the columns of the table: what differs between the settings, then what came of them."""
    return [*(name.replace("_", " ") for name in found.varied()), "accuracy", "spread", "loss", "networks", "seconds"]


def cells(ranked: Ranked, varied: Sequence[str]) -> list[str]:
    """A row of the table."""
    diverged = f", {ranked.diverged} diverged" if ranked.diverged else ""
    return [
        *(text_of(ranked.settings[name]) for name in varied),
        f"{ranked.accuracy:.2%}",
        "–" if ranked.spread is None else f"± {ranked.spread:.2%}",
        "–" if ranked.loss is None else f"{ranked.loss:.4f}",
        f"{ranked.networks}{diverged}",
        f"{ranked.seconds:.3g}",
    ]


def title_of(found: Tuning) -> str:
    """What the accuracies are of."""
    row = found.rows[0]
    judged = f"{row['folds']} folds" if "folds" in row else f"{row['validation']:g} of the training samples, kept out"
    return f"{len(found.rows)} networks, {len(found.ranking())} settings: mean and spread, judged by {judged}"


def ranking_table(found: Tuning, best: int) -> Table:
    """The best settings, for a terminal."""
    varied = found.varied()
    table = Table(title=title_of(found), box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("", style="bold")
    for heading in headings(found):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, ranked in enumerate(found.ranking()[:best], start=1):
        table.add_row(str(place), *cells(ranked, varied))
    return table


def train_command(ranked: Ranked, data: str | None) -> str:
    """The command that trains a network with these settings on all training samples."""
    from mlp_accel.training.recipes import Recipe

    default = Recipe().to_dict()
    options = [f"--data {data}"] if data else []
    for name in (*OPTIONS, *MORE_OPTIONS):
        value = ranked.settings[name]
        if value is not None and value != default[name]:
            text = ",".join(map(str, value)) if name == "hidden" else text_of(value)
            options.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(["mlp-accel train", *options])
