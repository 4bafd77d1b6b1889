"""Results of many machines: engines within each, never ranked across, and where a GPU overtakes a CPU."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mlp_accel.bench import fleet
from mlp_accel.bench.config import Config
from mlp_accel.bench.output.fleet import NOT_RANKED, Machine, crossover_lines, fleet_table, notes, read_machines, write_fleet_report
from mlp_accel.bench.results import Crossover, Result, Run, Summary, Sweep

ENVIRONMENT = {"cpu": "a CPU", "cores": 2, "gpu": [], "date": "2026-01-01"}


def row(name: str, path: str, seconds: float, device: str | None = None) -> Run:
    return Run(name=name, path=path, status="ok", epoch_seconds=Summary.of([seconds] * 5), device=device)


def machine(label: str, *runs: Run, **others: Any) -> Machine:
    return Machine(label, Result(environment=ENVIRONMENT, config=Config(), results=runs, **others))


CPU = machine("cpu-host", row("numpy", "loop", 0.06), row("numba", "sparse", 0.0125, "cpu"))
GPU = machine("gpu-host", row("numba", "sparse", 0.02), row("cupy", "cluster", 0.005, "cuda:0 H"))


def shown(machines: list[Machine]) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(fleet_table(machines))
    return console.export_text()


def test_engines_stand_by_machine_with_the_fastest_of_each() -> None:
    text = shown([CPU, GPU])
    assert "0.0125 *" in text
    assert "0.0050 *" in text
    assert "0.0600 *" not in text
    lines = notes([CPU, GPU])
    assert NOT_RANKED in lines
    assert "cpu-host: no GPU was measured, so there is no crossover" in lines
    assert any("gpu-host: cupy cluster is 4.00 times as fast as numba sparse for 784-32-10" in line for line in lines)


def test_the_crossover_of_cpu_and_gpu_is_that_of_the_sweep() -> None:
    crossing = Crossover(
        value=96.0, seconds=0.01, faster_below="numba sparse", faster_above="cupy cluster", shown=True, samples_per_second=1.0
    )
    among_cpus = replace(crossing, faster_above="numpy loop")
    swept = machine(
        "gpu-host", *GPU.result.results, sweeps=(Sweep(parameter="hidden", cells=(), crossovers=(among_cpus, crossing)),)
    )
    assert crossover_lines(swept) == ["cupy cluster is faster than numba sparse from about 96 hidden units on"]


def test_other_work_is_said() -> None:
    other = Machine("other", replace(CPU.result, config=Config(layer_sizes=(784, 64, 10))))
    assert "other: other work than cpu-host (layer_sizes): not the same benchmark" in notes([CPU, other])


def test_files_keep_their_labels_and_no_two_have_the_same(tmp_path: Path) -> None:
    paths = []
    for name, label in (("a", "host"), ("b", "host"), ("c", None)):
        content = CPU.result.to_dict() | ({"label": label} if label else {})
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(content))
    machines = read_machines(paths)
    assert [found.label for found in machines] == ["host", "host (2)", "c"]
    write_fleet_report(machines, tmp_path / "fleet.html")
    assert "host (2)" in (tmp_path / "fleet.html").read_text()


class Cluster:
    """A client of Dask with three workers on two hosts, one of which is lost."""

    def __init__(self, places: dict[str, tuple[str, str]], lost: str = "") -> None:
        self.places, self.lost = places, lost

    def run(self, function: Any) -> Any:
        return self.places

    def nthreads(self) -> list[str]:
        return [address for address in self.places if address != self.lost]

    def submit(self, function: Any, options: Any, workers: list[str], **_: Any) -> Any:
        cluster, address = self, workers[0]

        class Task:
            status = "finished"

            def done(self) -> bool:
                return address != cluster.lost

            def cancel(self) -> None: ...

            def result(self) -> tuple[int, str | None, str]:
                return (2, None, "no such data") if "bad" in address else (0, json.dumps({"schema": 2, "options": options}), "")

        return Task()


def test_each_host_and_each_gpu_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "LOOK", 0.0)
    places = {
        "tcp://a": ("one", "0"),
        "tcp://b": ("one", "1"),
        "tcp://c": ("one", "1"),
        "tcp://bad": ("two", ""),
        "tcp://d": ("three", ""),
    }
    found = fleet.measure_fleet(Cluster(places, lost="tcp://d"), ["--epochs", "5"], lambda _: None)
    results = {measured.label: measured.result or measured.problem for measured in found}
    options = {"schema": 2, "options": ["--epochs", "5"]}
    assert results == {
        "one-gpu0": {**options, "label": "one-gpu0"},
        "one-gpu1": {**options, "label": "one-gpu1"},
        "two": "bench ended with exit code 2: no such data",
        "three": "its worker tcp://d was lost",
    }
