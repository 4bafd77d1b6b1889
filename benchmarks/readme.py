"""Write the figures of the README and of docs/ from the result files.

    python benchmarks/readme.py

Each figure stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; charts are SVG files in ``docs/charts``. A test fails if one of
them is not what this would write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from charts import draw

from mlp_accel.bench.output.columns import Output, cells, columns_of
from mlp_accel.bench.output.columns import seconds as in_digits
from mlp_accel.bench.output.until import training
from mlp_accel.bench.result_files import result_of
from mlp_accel.bench.results import Result, Run, TimeToAccuracy
from mlp_accel.bench.until import SEEDS
from mlp_accel.files import write_text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CHARTS = ROOT / "docs" / "charts"

KINDS = {
    "mnist": "MNIST, uint8",
    "mnist-float32": "MNIST as floats",
    "half": "images, half of the values not zero",
    "table": "100,000 × 54 floats",
    "wide": "20,000 × 2,000 floats",
}
"""Kinds of data of the CPU study, in words."""

CHARTED = "32 tanh/128/2"
"""The network, batch size and threads of the cells that are drawn."""


def epoch_times() -> str:
    """The table of epoch times, with the machine named."""
    result = result_of(_read("bench.json"))
    config, environment = result.config, result.environment
    versions = {name: version for run in result.results for name, version in (run.versions or {}).items()}
    software = ", ".join(f"{name.replace('_', ' ')} {version}" for name, version in versions.items())
    peers = any(run.kind == "peer" for run in result.results)
    titles = ["engine" if peers else "backend and path", *(column.long_title(config) for column in columns_of(Output.MARKDOWN))]
    lines = [
        f"MNIST, {config.network} {config.activation}, batch {config.batch_size}, {config.dtype}, {config.threads} threads on "
        f"{environment['cpu']} ({environment['cores']} cores, shared with other work);",
        f"Python {environment['python']}, {software}; commit {environment['commit'][:10]}; {environment['date'][:10]}. Seconds:",
        "",
        _line(titles),
        "|---" * len(titles) + "|",
        *(_row(run, result) for run in result.results),
        *_remarks(result.results),
        "",
        f"Made by `mlp-accel bench{' --peers' if peers else ''} --epochs {config.epochs} --json benchmarks/results/bench.json`.",
    ]
    return "\n".join(lines)


def notebook_study() -> str:
    """What the study of the notebook's recipe found."""
    variants = _read("notebook_study.json")["variants"]
    lines = [
        "| recipe | seeds | printed numbers within 3 standard deviations | the furthest, in standard deviations | verdict |",
        "|---|---|---|---|---|",
    ]
    for name, found in variants.items():
        within, furthest = found["within_3_standard_deviations"], found["furthest_in_standard_deviations"]
        verdict = "confirmed" if found["confirmed"] else "rejected"
        lines.append(f"| {name} | {found['seeds']} | {within:.0%} | {furthest:.1f} | {verdict} |")
    return "\n".join(lines)


def recipe_study() -> str:
    """What the study of the recipe for speed chose."""
    found = _read("recipe_study.json")
    lines = [
        "| accuracy | network | epochs | learning rate | validation: mean (lowest) | test set: mean (lowest) | seeds there |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["chosen"]:
        validation, test = row["validation"], row["test"]
        accuracies = [f"{split['mean']:.2%} ({split['min']:.2%})" for split in (validation, test)]
        settings = [f"{row['accuracy']:.1%}", f"784-{row['hidden']}-10", str(row["epochs"]), f"{validation['learning_rate']:g}"]
        lines.append(_line([*settings, *accuracies, f"{test['reached']} of {test['seeds']}"]))
    return "\n".join(lines)


def time_to_accuracy() -> str:
    """How long each engine takes to each accuracy."""
    if not (RESULTS / "until.json").exists():
        return "Not recorded yet."
    result = result_of(_read("until.json"))
    environment = result.environment
    titles = (f"{until.accuracy:.1%}: {training(until.config or result.config)}" for until in result.until)
    lines = [
        f"{environment['cpu']} ({environment['cores']} cores, shared with other work), {result.config.threads} threads; commit "
        f"{environment['commit'][:10]}; {environment['date'][:10]}. Seconds, medians of {SEEDS} seeds, and in brackets without the "
        "preparation:",
        "",
        _line(["engine", *titles]),
        "|---" * (1 + len(result.until)) + "|",
    ]
    for engine in zip(*(until.results for until in result.until), strict=True):
        name = f"*{engine[0].name}*" if engine[0].kind == "peer" else engine[0].label
        remark = f" ({engine[0].remark})" if engine[0].remark else ""
        lines.append(_line([f"{name}{remark}", *map(_time_to, engine)]))
    return "\n".join(lines)


def _time_to(found: TimeToAccuracy) -> str:
    if not (found.seconds and found.time):
        return f"{found.status}: {(found.reason or '').partition('. To fix')[0]}"
    return f"{in_digits(found.time.median)} ({in_digits(found.seconds.median)})"


def gate_study() -> str:
    """False alarms and power of the gate."""
    if not (RESULTS / "gate_study" / "summary.json").exists():
        return "Not recorded yet."
    lines = [
        "| head | machine | backend | gates | no slowdown found | slower | inconclusive |",
        "|---|---|---|---|---|---|---|",
    ]
    heads = {"itself": "the base itself", "slowed": "the base with 5 % more work"}
    for row in _read("gate_study/summary.json")["rows"]:
        rates = " | ".join(f"{rate:.1%}" for rate in row["rates"].values())
        resampled = "median_change" in row
        change = f" ({row['median_change']:+.1%})" if resampled else ""
        backend, gates = (row["backend"], f"{row['gates']} resampled") if resampled else ("both", f"{row['gates']} by the command")
        lines.append(f"| {heads[row['kind']]}{change} | {row['condition']} | {backend} | {gates} | {rates} |")
    lines += [
        "",
        "In brackets the median change of the epoch times. A resampled gate draws its launches from a record of many launches.",
    ]
    return "\n".join(lines)


def compare_study() -> str:
    """False alarms and power of comparing files."""
    if not (RESULTS / "compare_study" / "summary.json").exists():
        return "Not recorded yet."
    found = _read("compare_study/summary.json")
    spread = ", ".join(f"{label} {share:.1%}" for label, share in found["spread_from_run_to_run"].items())
    files, slowdown = found["files_a_side"], found["settings"]["slowdown"]
    kinds = {"same": "the same commit", "slowed": f"the commit with epochs that take {slowdown:.0%} longer"}
    lines = [
        "| B | comparisons | an engine called slower | every engine called slower | an engine called faster |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        rates = (f"{row['rates'][name]:.1%}" for name in ("slower", "each engine slower", "faster"))
        lines.append(_line([kinds[row["kind"]], str(row["draws"]), *rates]))
    lines += [
        "",
        f"{files} files a side, drawn from {found['runs']['same']} runs of A's commit and {found['runs']['slowed']} of the slowed "
        f"one. Medians of one commit differ from run to run by (standard deviation): {spread}.",
    ]
    return "\n".join(lines)


def history_study() -> str:
    """Sums of commits, and bisections."""
    lines = []
    if (RESULTS / "history_study" / "trend.json").exists():
        lines += [
            "| 10 commits of +1 % each | truth | sum of the steps | 95 % interval | first and last directly |",
            "|---|---|---|---|---|",
        ]
        for run in _read("history_study/trend.json")["runs"]:
            low, high = run["interval"]
            shares = (f"{run['truth']:+.1%}", f"{run['total']:+.1%}", f"{low:+.1%} to {high:+.1%}", f"{run['direct']:+.1%}")
            lines.append(_line([run["backend"], *shares]))
    if (RESULTS / "history_study" / "bisect.json").exists():
        found = _read("history_study/bisect.json")
        runs, settings = found["runs"], found["settings"]
        right, seconds = sum(run["right"] for run in runs), np.median([run["seconds"] for run in runs])
        lines += [
            *([""] if lines else []),
            f"`bisect` over {settings['commits']} commits, one of which costs {settings['slowdown']:.0%} and another cannot "
            f"be built: right in {right} of {len(runs)}, in {seconds:.0f} s (median).",
        ]
    return "\n".join(lines) or "Not recorded yet."


def result_file_study() -> str:
    """What mutated files did."""
    if not (RESULTS / "result_file_study.json").exists():
        return "Not recorded yet."
    found = _read("result_file_study.json")
    refused, taken, failed = (found["outcomes"][name] for name in ("refused", "taken", "failed"))
    return (
        f"Of {found['done']:,} result files with something wrong in each, {refused:,} were refused by an error that names the "
        f"file, {taken:,} were taken, and {failed:,} did anything else (`python benchmarks/result_file_study.py`)."
    )


def kill_study() -> str:
    """What became of trainings that were killed."""
    found = _read("kills.json")
    return (
        f"Of {found['kills']} trainings {found['equal']} ended with the bits of one that was not killed. Of them "
        f"{found['in the middle']} went on from a checkpoint in the middle, and {found['while writing']} were killed while they "
        "wrote one (`results/kills.json`)."
    )


def cpu_study() -> str:
    """Ours against the peers by network."""
    return _cells("cpu_study.json")


def cpu_study_avx2() -> str:
    """The same on a CPU with vectors of half the width, and with other optimisers."""
    return _cells("cpu_study_avx2.json")


def _cells(file: str) -> str:
    if not (RESULTS / file).exists():
        return "Not recorded yet."
    cells = _read(file)["cells"]
    lines = [
        "| data, network / batch size / threads | path | numba, s | fastest peer, s | time of that peer / numba "
        "| time of numpy / numba "
        "| time of numpy-handwritten / numpy |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cell in cells.items():
        times = [(run, run.epoch_seconds.median) for run in result_of(cell).results if run.epoch_seconds]
        seconds = {run.label: median for run, median in times}
        numba = min(median for run, median in times if run.name == "numba")
        keys = ("numba_against_fastest_peer", "numba_against_numpy", "numpy_against_numpy_by_hand")
        found = [_ratio(cell[key]) if key in cell else "–" for key in keys]
        fastest = cell["fastest_peer"]
        lines.append(f"| {name} | {cell['path']} | {numba:.4f} | {fastest} {seconds[fastest]:.4f} | {' | '.join(found)} |")
    machine = next(iter(cells.values()))["environment"]
    commits = dict.fromkeys(cell["environment"]["commit"][:10] for cell in cells.values())
    lines += [
        "",
        f"{machine['cpu']} ({machine['simd'][-1]}), {machine['cores']} cores shared with other work, commit {', '.join(commits)}. "
        "Seconds per epoch, medians. The last three columns are ratios of such times, with their 95 % intervals within the run; "
        "above 1 the engine that is named last is the faster one.",
    ]
    return "\n".join(lines)


def _ratio(found: dict[str, Any]) -> str:
    return f"{found['ratio']:.2f} ({found['interval'][0]:.2f}–{found['interval'][1]:.2f})"


def epoch_profile() -> str:
    """Where the time of an epoch goes."""
    if not (RESULTS / "epoch_profile.json").exists():
        return "Not recorded yet."
    profile = _read("epoch_profile.json")
    cases = profile["cases"]
    names = {"epoch": "whole epoch, {}", "parts": "{}", "floors": "floor: {}"}
    heads = " | ".join(f"{case} ({found['path']})" for case, found in cases.items())
    lines = [f"| ms | {heads} |", "|---" * (1 + len(cases)) + "|"]
    for kind, name in names.items():
        for part in next(iter(cases.values()))[kind]:
            figures = (f"{found[kind][part] * 1e3:.1f}" for found in cases.values())
            lines.append(f"| {name.format(part)} | {' | '.join(figures)} |")
    return "\n".join(lines)


def kinds_of_data() -> str:
    """How many times faster than the fastest peer, by kind of data, for one network."""
    if not (RESULTS / "cpu_study.json").exists():
        return "Not recorded yet."
    cells = _read("cpu_study.json")["cells"]
    lines = ["| data, batch 128 | 32 units | 128 units | 512 units |", "|---|---|---|---|"]
    for kind, name in KINDS.items():
        found = [cells.get(f"{kind} {hidden} tanh/128/2") for hidden in (32, 128, 512)]
        lines.append(f"| {name} | {' | '.join(_against_peer(cell) for cell in found)} |")
    return "\n".join([*lines, "", "Time of that library / time of the path that is named; by `python benchmarks/cpu_study.py`."])


def _against_peer(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    return f"{cell['numba_against_fastest_peer']['ratio']:.1f} ({cell['fastest_peer']} / {cell['path']})"


def neighbours_study() -> str:
    """Epochs beside busy neighbours."""
    if not (RESULTS / "neighbours_study.json").exists():
        return "Not recorded yet."
    study = _read("neighbours_study.json")
    lines = ["| engine | alone, ms | beside one: median, longest | beside two: median, longest |", "|---|---|---|---|"]
    for engine, found in study["seconds"].items():
        alone = float(np.median(found["0"]))
        beside = (f"{np.median(found[n]) / alone:.1f}, {max(found[n]) / alone:.1f} times" for n in ("1", "2"))
        lines.append(f"| {engine} | {alone * 1e3:.1f} | {' | '.join(beside)} |")
    return "\n".join([*lines, "", f"Of 784-32-10 on MNIST; {_machine(study['environment'], study['threads'])}."])


def estimator_speed() -> str:
    """The estimator beside scikit-learn's."""
    study = _read("estimator_speed.json")
    lines = ["| what | scikit-learn, ms | ours, ms | time of scikit-learn / ours |", "|---|---|---|---|"]
    for what, seconds in study["speed"].items():
        ours, theirs = (float(np.median(seconds[name])) * 1e3 for name in ("mlp_accel", "scikit-learn"))
        lines.append(_line([what, f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f}"]))
    environment = study["environment"]
    return "\n".join([*lines, "", f"Medians; {_machine(environment, environment['cores'])}."])


def tune_study() -> str:
    """What a search costs."""
    parts = _read("tune_study.json")["parts"]
    lines = ["| time of one over that of the other | ratio (lowest and highest of the rounds) |", "|---|---|"]
    for name in ("scikit-learn", "optuna", "overhead", "dask"):
        first, second = parts[name]["engines"]
        found = parts[name]["search"]
        lines.append(_line([f"{second} / {first}", f"{found['ratio']:.2f} ({found['lowest']:.2f}–{found['highest']:.2f})"]))
    environment, networks = parts["scikit-learn"]["environment"], parts["scikit-learn"]["networks"]
    return "\n".join([*lines, "", f"{networks} networks 784-32-10, 5 epochs; {_machine(environment, environment['cores'])}."])


def many_study() -> str:
    """Several networks at once."""
    study = _read("many_study.json")
    kinds = study["kinds"]
    lines = [_line(["s", *(KINDS[kind] for kind in kinds)]), "|---" * (1 + len(kinds)) + "|"]
    for engine in next(iter(kinds.values()))["seconds"]:
        lines.append(_line([engine, *(f"{found['seconds'][engine]['median']:.2f}" for found in kinds.values())]))
    return "\n".join([*lines, "", f"{study['networks']} networks. {_machine(study['environment'], study['threads'])}."])


def epoch_chart() -> str:
    """Where the chart of the README was measured."""
    cell = result_of(_read("cpu_study.json")["cells"][f"mnist {CHARTED}"])
    config = cell.config
    setting = f"a hidden layer of {config.layer_sizes[1]} {config.activation}, batch {config.batch_size}, {config.dtype}"
    return f"Milliseconds per epoch, medians: {setting}; {_machine(cell.environment, config.threads)}."


def where_it_was_measured() -> str:
    """What runs where, and what of it has been measured."""
    results = [_read(file.name) for file in sorted(RESULTS.glob("*.json"))]
    environments = [found["environment"] for found in results if "environment" in found]
    cpus = ", ".join(dict.fromkeys(f"{found['cpu']}, {found['cores']} cores" for found in environments))
    gpus = ", ".join(dict.fromkeys(gpu.split(",")[0] for found in environments for gpu in found["gpu"]))
    rows = [
        ("x86-64 CPU", "`numpy`, `numba`: vectors as wide as the CPU has them, as many threads as cores are granted", cpus),
        ("other CPU", "`numpy`, `numba`", ""),
        ("NVIDIA GPU, compute capability 9.0", "`cupy`: all paths", gpus),
        ("NVIDIA GPU, compute capability 7.5 and newer", "`cupy`: `graph`, `steps`, `loop`", ""),
        ("older NVIDIA GPU that CuPy knows", "`cupy`: `loop`", ""),
        ("other GPU", "nothing: it runs on the CPU", "–"),
    ]
    lines = ["| machine | what runs | measured on |", "|---|---|---|"]
    return "\n".join([*lines, *(_line([machine, what, where or "not measured"]) for machine, what, where in rows)])


def _machine(environment: Mapping[str, Any], threads: int) -> str:
    where = f"{threads} threads on {environment['cpu']} ({environment['cores']} cores, shared with other work)"
    return f"{where}; commit {environment['commit'][:10]}; {environment['date'][:10]}"


def charts() -> dict[Path, str]:
    """Every chart, by its file."""
    cells = {kind: _read("cpu_study.json")["cells"][f"{kind} {CHARTED}"] for kind in KINDS if kind != "mnist-float32"}
    results = {KINDS[kind]: result_of(cell) for kind, cell in cells.items()}
    return {CHARTS / name: text for name, text in draw(results, result_of(_read("until.json"))).items()}


DOCUMENTS = (ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("**/*.md") if "_build" not in page.parts))
FIGURES = (
    epoch_times,
    notebook_study,
    recipe_study,
    time_to_accuracy,
    gate_study,
    compare_study,
    history_study,
    result_file_study,
    kill_study,
    cpu_study,
    cpu_study_avx2,
    epoch_profile,
    kinds_of_data,
    neighbours_study,
    many_study,
    estimator_speed,
    tune_study,
    epoch_chart,
    where_it_was_measured,
)


def fill(text: str) -> str:
    """A document with every figure as the result files have it."""
    for write in FIGURES:
        name = write.__name__.replace("_", "-")
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if start and not end:
            raise ValueError(f"the place for {name} has no end")
        text = f"{before}{start}{write()}\n{end}{after}" if start else text
    return text


def _remarks(runs: Sequence[Run]) -> list[str]:
    """What a reader of the table cannot find elsewhere."""
    gone = any(run.path == "fused" for run in runs)
    return ["", "`fused` was a loop of NumPy's own, which later commits do not have."] if gone else []


def _row(run: Run, result: Result) -> str:
    reason = (run.reason or "").partition(". To fix")[0].replace("|", "/")
    name = f"*{run.name}*" if run.kind == "peer" and run.epoch_seconds else run.label
    return _line([name, *cells(run, result, Output.MARKDOWN, f"{run.status}: {reason}")])


def _line(cells_of_line: Sequence[str]) -> str:
    return f"| {' | '.join(cells_of_line)} |"


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return content


if __name__ == "__main__":
    for document in DOCUMENTS:
        write_text(document, fill(document.read_text()))
    CHARTS.mkdir(exist_ok=True)
    for file, drawing in charts().items():
        write_text(file, drawing)
