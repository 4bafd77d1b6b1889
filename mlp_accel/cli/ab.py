"""``mlp-accel ab``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mlp_accel import backends
from mlp_accel.backends.paths import AUTO
from mlp_accel.cli.console import FORMATS, MARKDOWN, TEXT, output_console, progress_console, show
from mlp_accel.cli.options import (
    Activation,
    BackendList,
    BatchSize,
    Data,
    DType,
    Format,
    Hidden,
    JsonFile,
    Momentum,
    Optimizer,
    PlotFile,
    WeightDecay,
    backends_to_measure,
    check_counts,
    check_outputs,
    command,
    find_path,
    gate_threads,
    parse_share,
    read_settings,
)
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.exit_codes import DIFFERENT, OK, UNAVAILABLE, UNDECIDED
from mlp_accel.files import write_json
from mlp_accel.training.recipes import RECIPES, Recipe

SETTINGS = ("hidden", "activation", "gradient", "dtype", "batch_size", "seed")
HARNESS = "mlp_accel/harness.py"
OLDER_ACTIVATIONS = ("tanh", "relu", "sigmoid")
"""Those of the commits that have no harness; they have plain SGD alone."""


@dataclass(frozen=True)
class AbOptions:
    """The options of ``ab``."""

    base: Annotated[str, typer.Option(metavar="REF", help="The commit to compare with: a branch, a tag or a hash")]
    backend_list: BackendList = None
    threshold: Annotated[str, typer.Option(help="A slowdown up to this one does not matter")] = "3%"
    launches: Annotated[int, typer.Option(help="How often to start the workers anew, unless it is clear before; at least 7")] = 10
    rounds: Annotated[
        int | None,
        typer.Option(help="Samples of each build in a launch; at least 6  [default: 100 epochs or calls]", show_default=False),
    ] = None
    measure: Annotated[
        str, typer.Option(help="epoch; import, transfer, start, first-start (compilation): seconds; memory: bytes at most")
    ] = "epoch"
    call: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Measure calls of this function, in any repository, in place of mlp_accel; it takes no arguments",
            show_default=False,
        ),
    ] = None
    data: Data = None
    hidden: Hidden = None
    activation: Activation = None
    dtype: DType = None
    batch_size: BatchSize = None
    optimizer: Optimizer = None
    momentum: Momentum = None
    weight_decay: WeightDecay = None
    path: Annotated[
        str | None,
        typer.Option(
            help="Train by this path in both builds; a base that is too old to know it takes its own  "
            "[default: $MLP_ACCEL_PATH, else the fastest of each backend]",
            show_default=False,
        ),
    ] = None
    thread_option: Annotated[
        int | None,
        typer.Option("--threads", help="CPU threads  [default: $MLP_ACCEL_NUM_THREADS, else 1, the steadiest]", show_default=False),
    ] = None
    form: Format = TEXT
    plot: PlotFile = None
    json_file: JsonFile = None


@command
def ab(options: AbOptions) -> None:
    """Is the working tree slower than a commit? Builds both and runs them in turns. Exit 0 no, 1 yes, 4 that cannot be said."""
    from mlp_accel.bench.gate import builds
    from mlp_accel.bench.gate.measures import ROUNDS
    from mlp_accel.environment import environment

    limit = parse_share(options.threshold, "--threshold", "slowdown")
    measure = _measure_of(options)
    rounds = options.rounds or ROUNDS[measure]
    check_counts(options.launches, rounds, measure)
    check_choice("format", options.form, FORMATS)
    settings = read_settings(RECIPES["default"], options)
    names, source = backends_to_measure(options.backend_list)
    named = bool(options.backend_list or source)
    path, names, note = find_path(options.path, names, named)
    if options.call:
        names, note = [options.call], None
    check_outputs(options.json_file, options.plot)
    config = {
        **{name: getattr(settings, name) for name in SETTINGS},
        **settings.optimizer_settings(),
        "path": path or AUTO,
        "threads": gate_threads(options.thread_option),
        "data": options.data,
        "base": options.base,
        "threshold": limit,
        "launches": options.launches,
        "rounds": rounds,
        "measure": measure,
        "call": options.call,
    }
    root = builds.repository_root(Path.cwd()) if options.call else builds.checkout_root(Path.cwd())
    commit = builds.resolve(root, options.base)
    if not options.call and not builds.has_file(root, commit, HARNESS):
        _check_older_base(options.base, settings)
    console = progress_console(options.json_file, options.form)
    console.print(f"is the working tree in {root} slower than {options.base} ({commit[:10]})?")
    if note:
        console.print(note)
    result = {"schema": 1, "environment": environment() | {"base_commit": commit}, "config": config}
    rows = result["results"] = _measure(root, commit, names, config, console.print)
    if options.plot:
        from mlp_accel.bench.gate.plot import plot_gate
        from mlp_accel.plots import save_figure

        save_figure(plot_gate(result), options.plot)
    if options.json_file:
        write_json(options.json_file, result)
    if options.form == MARKDOWN:
        from mlp_accel.bench.output.gate import gate_notes, gate_table

        show(output_console(options.json_file), MARKDOWN, gate_table(result), gate_notes(result))
    else:
        show(console, TEXT, [line for row in rows for line in _lines(row)])
    for written in (options.plot, None if options.json_file == "-" else options.json_file):
        if written:
            console.print(f"wrote {written}")
    raise typer.Exit(_exit_code(rows, named))


def _measure(
    root: Path, commit: str, names: Sequence[str], config: dict[str, Any], listen: Callable[[str], object]
) -> list[dict[str, Any]]:
    """The gate of every backend: a row of the result for each. The builds are in a temporary folder that is gone afterwards."""
    from mlp_accel.bench.gate import builds
    from mlp_accel.bench.gate.launches import GateSettings, run_gate, write_inputs
    from mlp_accel.bench.gate.paired import INCONCLUSIVE

    call = config["call"]
    missing = {} if call else {name: error for name in names if (error := backends.unavailable(name))}
    settings = GateSettings(config["threshold"], config["launches"], config["rounds"])
    rows = {
        name: {"backend": name, "verdict": "unavailable", "reason": error.reason, "runs": []} for name, error in missing.items()
    }
    with tempfile.TemporaryDirectory(prefix="mlp-accel-ab.") as temporary:
        folder = Path(temporary)
        inputs = folder / "inputs.npz"
        if not call:
            config["data"] = write_inputs(inputs, config)
        base, head = folder / "base-build", folder / "head-build"
        try:
            if len(missing) < len(names):
                builds.export_commit(root, commit, folder / "base")
                builds.export_working_tree(root, folder / "head")
                if call:  # it need not be a package
                    base, head = folder / "base", folder / "head"
                else:
                    builds.install(folder / "base", base)
                    builds.install(folder / "head", head)
                    listen("built both")
            for name in names:
                if name not in missing:
                    gate = {**config, "backend": name, "inputs": str(inputs)}
                    rows[name] = run_gate(base, head, gate, settings, listen)
        except builds.BuildError as error:
            rows |= {
                name: {"backend": name, "verdict": INCONCLUSIVE, "reason": f"a build failed: {error}", "runs": []}
                for name in names
                if name not in missing
            }
    return [rows[name] for name in names]


def _lines(row: dict[str, Any]) -> list[str]:
    """Verdict, paths, figures, and what could have been found."""
    from mlp_accel.bench.gate.paired import MIN_ROUNDS

    lines = [f"{row['backend']}: {row['verdict']}: {row['reason']}"]
    if row.get("paths"):
        lines.append(f"  trained by {', '.join(f'{name}: {path}' for name, path in row['paths'].items())}")
    for run in row["runs"]:
        low, high = run["change_interval"]
        of = "95% interval" if len(run["launches"]) >= MIN_ROUNDS else f"{len(run['launches'])} launches,"
        figures = f"change {run['change']:+.1%} ({of} {low:+.1%} to {high:+.1%}), control {run['control']:+.1%}"
        least = run["detectable"]
        found = f"a slowdown of {least:.1%} or more" if least else "no slowdown: the launches differ too much"
        lines.append(f"  {figures}; four times out of five it would find {found}")
        if "device_change" in run:
            low, high = run["device_interval"]
            lines.append(
                f"  by the GPU's own clock, around the launches: change {run['device_change']:+.1%} ({low:+.1%} to {high:+.1%})"
            )
    return lines


def _exit_code(rows: Sequence[dict[str, Any]], named: bool) -> int:
    from mlp_accel.bench.gate.paired import INCONCLUSIVE, SLOWER

    verdicts = [row["verdict"] for row in rows]
    if SLOWER in verdicts:
        return DIFFERENT
    if "unavailable" in verdicts and (named or set(verdicts) == {"unavailable"}):
        return UNAVAILABLE
    return UNDECIDED if INCONCLUSIVE in verdicts else OK


def _check_older_base(base: str, settings: Recipe) -> None:
    """Refuse what a base without a harness cannot train: it would cost two builds to find out."""
    rule = settings.optimizer_settings()
    if rule["optimizer"] != "sgd" or rule["weight_decay"]:
        raise SettingError(f"the base {base!r} knows plain SGD alone; leave out --optimizer, --momentum and --weight-decay")
    if settings.activation not in OLDER_ACTIVATIONS:
        known = ", ".join(OLDER_ACTIVATIONS)
        raise SettingError(f"the base {base!r} does not know the activation {settings.activation!r}; choose one of {known}")


def _measure_of(options: AbOptions) -> str:
    """What is measured, checked."""
    from mlp_accel.bench.gate.measures import CALL, EPOCH, MEASURES

    if options.call is None:
        return check_choice("measure", options.measure, MEASURES)
    module, _, function = options.call.partition(":")
    if options.measure != EPOCH or not all(part.isidentifier() for part in (*module.split("."), function)):
        raise SettingError(f"--call takes module:function, and no --measure beside it; got {options.call!r}")
    return CALL
