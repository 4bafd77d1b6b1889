"""Results of many machines side by side, for people. Machines differ, so engines are compared within each and never across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from mlp_accel.bench.comparison import WORK, differences
from mlp_accel.bench.output.columns import NOTHING, seconds
from mlp_accel.bench.output.side_by_side import side_by_side
from mlp_accel.bench.result_files import read_result
from mlp_accel.bench.results import Result, Run
from mlp_accel.bench.sweeps import PARAMETERS
from mlp_accel.files import write_text

NOT_RANKED = "machines differ: compare engines within a column; across columns the figures tell of the machines"


@dataclass(frozen=True)
class Machine:
    """The result file of one machine, and what to call it."""

    label: str
    result: Result

    @property
    def gpu_names(self) -> set[str]:
        """The backends that ran on a GPU."""
        return {run.name for run in self.result.results if run.device and run.device.startswith("cuda")}

    def fastest(self) -> Run | None:
        """The fastest engine here."""
        timed = [(run.epoch_seconds.median, run) for run in self.result.results if run.epoch_seconds]
        return min(timed, key=lambda entry: entry[0])[1] if timed else None


def read_machines(paths: Sequence[Path]) -> list[Machine]:
    """Result files of ``fleet`` or ``bench``; one without a label is called as its file, and no two are called the same.

    Raises
    ------
    ResultFileError
        If one of them is no result file.
    """
    found: dict[str, Machine] = {}
    for path in paths:
        result = read_result(path)
        label = name = str(result.others.get("label") or path.stem)
        number = 2
        while label in found:
            label, number = f"{name} ({number})", number + 1
        found[label] = Machine(label, result)
    return list(found.values())


def engines_of(machines: Sequence[Machine]) -> list[str]:
    """Every engine that was measured on one of them."""
    return list(dict.fromkeys(run.label for machine in machines for run in machine.result.results))


def cell(machine: Machine, engine: str) -> str:
    """Seconds of an epoch, with a star for the fastest of the machine; or what became of it."""
    run = next((run for run in machine.result.results if run.label == engine), None)
    if run is None:
        return NOTHING
    if run.epoch_seconds is None:
        return run.status
    return f"{seconds(run.epoch_seconds.median)}{' *' if run is machine.fastest() else ''}"


def fleet_table(machines: Sequence[Machine]) -> Table:
    """A row for each engine and a column for each machine."""
    title = "Median seconds per epoch; * the fastest of its machine"
    found = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    found.add_column("engine", style="bold", no_wrap=True)
    for machine in machines:
        found.add_column(machine.label, justify="right")
    for engine in engines_of(machines):
        found.add_row(engine, *(cell(machine, engine) for machine in machines))
    return found


def notes(machines: Sequence[Machine]) -> list[str]:
    """What each machine is, where its GPU overtakes its CPU, and what must be said beside the table."""
    lines = [NOT_RANKED] if len(machines) > 1 else []
    for machine in machines:
        environment = machine.result.environment
        gpus = ", ".join(environment.get("gpu") or []) or "no GPU"
        lines.append(
            f"{machine.label}: {environment.get('cpu')}, {environment.get('cores')} cores, {gpus}; {environment.get('date')}"
        )
        lines += [f"{machine.label}: {line}" for line in crossover_lines(machine)]
        first = machines[0]
        ours, theirs = ([result.config.to_dict()] for result in (first.result, machine.result))
        other = [name for name, *_ in differences(ours, theirs) if name in WORK]
        if other:
            lines.append(f"{machine.label}: other work than {first.label} ({', '.join(other)}): not the same benchmark")
        if machine.result.config.short:
            lines.append(f"{machine.label}: a short run: too few epochs to quote")
    return lines


def crossover_lines(machine: Machine) -> list[str]:
    """Where the GPU of a machine overtakes its CPU, by its sweeps; else how much faster one of them is for this one network."""
    gpus = machine.gpu_names
    if not gpus:
        return ["no GPU was measured, so there is no crossover"]
    lines = []
    for sweep in machine.result.sweeps:
        for crossing in sweep.crossovers:
            above, below = crossing.faster_above, crossing.faster_below
            if (above.split()[0] in gpus) != (below.split()[0] in gpus):
                lines.append(f"{above} is faster than {below} from about {crossing.value:.0f} {PARAMETERS[sweep.parameter]} on")
    if lines:
        return lines
    sides: dict[bool, tuple[float, str]] = {}
    for run in machine.result.results:
        if run.kind == "backend" and run.epoch_seconds:
            on_gpu, mine = run.name in gpus, (run.epoch_seconds.median, run.label)
            sides[on_gpu] = min(sides.get(on_gpu, mine), mine)
    if len(sides) < 2:
        return ["GPU and CPU were not both measured, so there is no crossover"]
    (fast, winner), (slow, loser) = sorted(sides.values())
    swept = "in what was swept there is no crossover" if machine.result.sweeps else "--sweep-hidden would show the crossover"
    return [f"{winner} is {slow / fast:.2f} times as fast as {loser} for {machine.result.config.network}; {swept}"]


def write_fleet_report(machines: Sequence[Machine], path: Path) -> None:
    """The times side by side with the notes, a picture, and in what the machines differ, as one HTML file; whole or not at all."""
    title = f"mlp_accel benchmark on {len(machines)} machine{'' if len(machines) == 1 else 's'}"
    write_text(path, side_by_side([(machine.label, machine.result) for machine in machines], title, notes(machines)))
