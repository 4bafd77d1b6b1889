"""The pictures and the report show what they are given, and fetch nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from mlp_accel.bench.output.figures import REASON_WIDTH, panels, plot_bench, spread_out
from mlp_accel.bench.output.html import INK, report, write_report
from mlp_accel.bench.output.side_by_side import side_by_side
from mlp_accel.bench.result_files import result_of
from mlp_accel.plots import save_figure

SECONDS = {"median": 0.2, "min": 0.1, "q1": 0.15, "q3": 0.3, "samples": [0.1, 0.2, 0.4]}


def row(name: str, **changes: Any) -> dict[str, Any]:
    right = {
        "name": name,
        "path": "loop",
        "passed_over": [],
        "kind": "backend",
        "status": "ok",
        "reason": None,
        "epoch_seconds": SECONDS,
        "seconds": SECONDS,
        "samples_per_second": 1000.0,
        "cold_start_seconds": 1.5,
        "transfer_seconds": 0.1,
        "cores_used": 1.0,
        "loss": [0.5, 0.3],
        "accuracy": [0.8, 0.9],
        "test_accuracy": 0.91,
        "epochs": [3, 3, 4],
    }
    return right | changes


def result(**changes: Any) -> dict[str, Any]:
    missing: dict[str, Any] = {"status": "unavailable", "reason": "no <device>", "epoch_seconds": None, "seconds": None, "loss": []}
    rows = [row("numpy"), row("jax", kind="peer", path=None, accuracy=[None, None])]
    rows.append(row("cupy", path=None, samples_per_second=None, **missing))
    crossing = {"value": 60.0, "seconds": 0.2, "samples_per_second": 1000.0, "faster_below": "numpy loop", "faster_above": "jax"}
    ops = [
        {"op": "dense", "flops": 1e6, "bytes": 1e5, "seconds": 1e-4},
        {"op": "softmax", "flops": 1e3, "bytes": 1e4, "seconds": 1e-5},
    ]
    config = {"layer_sizes": [784, 32, 10], "activation": "tanh", "batch_size": 128, "dtype": "float32", "threads": 2}
    return {
        "config": {**config, "data": "mnist", "short": False},
        "environment": {"cpu": "a <CPU> & more", "cores": 2, "date": "2026-01-01", "gpu": [], "variables": {}},
        "results": rows,
        "sweeps": [
            {
                "parameter": "batch_size",
                "cells": [{"value": 32, "results": rows}, {"value": 128, "results": rows}],
                "crossovers": [{**crossing, "shown": True}],
            }
        ],
        "until": {"accuracy": 0.955, "seeds": [0, 1, 2], "max_epochs": 50, "results": rows},
        "roofline": [{"name": "numpy", "path": "loop", "peak_flops": 1e11, "bandwidth": 1e10, "ops": ops}],
    } | changes


def plain() -> dict[str, Any]:
    return {name: part for name, part in result().items() if name not in ("sweeps", "until", "roofline")}


def test_bars_have_quartiles_and_samples_and_a_reason_where_there_is_no_time() -> None:
    bars, *curves = plot_bench(result_of(plain())).axes
    assert [patch.get_width() for patch in bars.patches if isinstance(patch, Rectangle)] == [0.2, 0.2]
    points = [np.asarray(line.get_xdata()).tolist() for line in bars.lines if line.get_marker() == "o"]
    assert points == [SECONDS["samples"]] * 2
    whiskers: list[Any] = [container for container in bars.containers if hasattr(container, "has_xerr")]
    (quartiles,) = whiskers[0].lines[2][0].get_segments()
    assert [round(x, 6) for x, _ in quartiles] == [0.15, 0.3]
    assert any("no <device>" in text.get_text() for text in bars.texts)
    assert [label.get_text() for label in bars.get_yticklabels()] == ["numpy loop", "jax", "cupy"]
    assert [axes.get_title() for axes in curves] == ["loss", "accuracy"]
    assert [np.asarray(line.get_ydata()).tolist() for line in curves[0].lines] == [[0.5, 0.3]] * 2


def test_every_part_of_a_result_has_its_panel() -> None:
    assert len(panels(result_of(plain()))) == 2
    assert len(panels(result_of(result()))) == 5
    sweep = plot_bench(result_of(result())).axes[3]
    assert (sweep.get_xscale(), sweep.get_yscale()) == ("log", "log")
    rings = [line for line in sweep.lines if line.get_markerfacecolor() == "none"]
    assert [np.asarray(ring.get_xdata()).tolist() for ring in rings] == [[60.0]]


def test_an_engine_that_only_some_values_of_a_sweep_have_is_drawn_there_in_a_colour_of_its_own() -> None:
    changed = result()
    cells = changed["sweeps"][0]["cells"]
    cells[0] = {"value": 32, "results": [*cells[0]["results"], row("numpy", path="sparse")]}
    cells[1] = {**cells[1], "no_faster_path": [{"name": "numpy", "passed_over": [["sparse", "the data is <dense>"]]}]}
    sweep = plot_bench(result_of(changed)).axes[3]
    lines: dict[str, Any] = {str(line.get_label()): line for line in sweep.lines}
    assert np.asarray(lines["numpy sparse"].get_xdata()).tolist() == [32]
    assert np.asarray(lines["numpy loop"].get_xdata()).tolist() == [32, 128]
    assert lines["numpy sparse"].get_color() not in (lines["numpy loop"].get_color(), lines["jax"].get_color())
    assert "batch size 128: numpy: no faster path: sparse: the data is &lt;dense&gt;" in report(result_of(changed))


def test_the_report_says_which_paths_were_not_taken() -> None:
    changed = result(no_faster_path=[{"name": "numba", "passed_over": [["sparse", "the data is dense"]]}])
    changed["results"][0] = row("cupy", path="graph", passed_over=[["cluster", "no room"]])
    page = report(result_of(changed))
    assert "numba: no faster path: sparse: the data is dense" in page
    assert "cupy graph: not cluster: no room" in page


def test_a_benchmark_without_any_time_can_be_drawn(tmp_path: Path) -> None:
    empty = plain()
    empty["results"] = empty["results"][2:]
    save_figure(plot_bench(result_of(empty)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert "no &lt;device&gt;" in report(result_of(empty))


@pytest.mark.parametrize(
    ("seeds", "samples", "words"), [(3, (3, 3), "3 seeds"), (5, (3, 3), "3 of 5 seeds"), (5, (2, 3), "2 to 3 of 5 seeds")]
)
def test_the_race_says_from_how_many_seeds_its_times_are(seeds: int, samples: tuple[int, int], words: str) -> None:
    times = [0.1, 0.2, 0.4]
    rows = [row("numpy", seconds={"samples": times[:count]}) for count in samples]
    until = {"accuracy": 0.955, "seeds": list(range(seeds)), "max_epochs": 50, "results": rows}
    titles = [panel.title for panel in panels(result_of(result(until=until)))]
    assert f"Seconds of training to 95.50% on the test set, {words}" in titles


def test_every_accuracy_has_a_picture_and_a_table_with_and_without_the_preparation() -> None:
    total = {"samples": [0.41, 0.43, 0.45]}
    rows = [row("numpy", seconds_with_preparation=total), row("jax", kind="peer", path=None, seconds_with_preparation=total)]
    rows[1] |= {"remark": "at a <constant> rate"}
    trained = {"layer_sizes": [784, 64, 10], "learning_rate": 0.4, "schedule": "linear", "schedule_epochs": 3, "batch_size": 32}
    until = [
        {"accuracy": accuracy, "seeds": [0, 1, 2], "max_epochs": 3, "config": trained, "results": rows}
        for accuracy in (0.955, 0.97)
    ]
    shown = result_of(result(until=until))
    titles = [panel.title for panel in panels(shown)]
    assert {"Seconds to 95.50% on the test set, 3 seeds", "Seconds to 97.00% on the test set, 3 seeds"} < set(titles)
    page = report(shown)
    assert page.count("784-64-10 tanh, batch 32, rate 0.4, linear over 3 epochs") == 2
    assert "<td>0.4300</td><td>0.4100–0.4500</td><td>0.2000</td><td>0.1000–0.4000</td><td>3–4</td>" in page
    assert "jax to 97.00%: at a &lt;constant&gt; rate" in page


class Checker(HTMLParser):
    """Finds whatever the page would fetch or run, and whether its elements are closed in order."""

    VOID = ("meta", "link", "br", "hr", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("script", "link", "img", "iframe", "object"):
            self.fetched.append(tag)
        local = ("#", "data:")
        self.fetched += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith(local)]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    write_report(result_of(result()), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.fetched == []
    assert not re.search(r"@import|url\((?!#)", page)
    assert page.count("<svg") == 5
    assert "a &lt;CPU&gt; &amp; more" in page
    assert "<device>" not in page


def test_the_report_fits_a_phone() -> None:
    page = report(result_of(result()))
    assert 'name="viewport" content="width=device-width' in page
    for tag in re.findall(r"<table", page):
        assert f'<div class="wide" tabindex="0">{tag}' in page
    widths = [float(width) for width in re.findall(r'<svg[^>]*? width="([\d.]+)pt"', page)]
    assert len(widths) == 5
    assert max(widths) < 350, "wider, and the letters would be too small on a screen of 360 points"


def test_two_figures_of_a_page_never_share_a_name() -> None:
    ids = re.findall(r' id="(p[0-9a-f]+)"', report(result_of(result())))
    assert len(ids) == len(set(ids)) > 0


@pytest.mark.parametrize(("change", "words"), [({"interrupted": True}, "Interrupted"), ({}, "")])
def test_what_must_be_said_beside_the_figures_is_said(change: dict[str, Any], words: str) -> None:
    page = report(result_of(result(**change)))
    assert words in page
    assert ("Interrupted" in page) == bool(change)


def test_the_page_has_a_table_of_contents_and_follows_the_colours_of_the_reader() -> None:
    page = report(result_of(result()))
    titles = re.findall(r'<h2 id="(s\d+)">(.*?)</h2>', page)
    assert [f'<a href="#{name}">{title}</a>' in page for name, title in titles] == [True] * len(titles)
    assert {"Epoch times", "Settings", "Environment", "Engines"} < {title for _, title in titles}
    assert "prefers-color-scheme: dark" in page
    assert INK not in page
    assert "currentColor" in page


def test_the_whole_reason_stands_in_the_picture() -> None:
    changed = plain()
    changed["results"][2]["reason"] = "not installed (no module named cupy). To fix it: python -m pip install 'cupy-cuda13x[ctk]'"
    bars = plot_bench(result_of(changed)).axes[0]
    (text,) = (text.get_text() for text in bars.texts if "unavailable" in text.get_text())
    assert " ".join(text.split()) == f"unavailable: {changed['results'][2]['reason']}"
    assert max(map(len, text.splitlines())) <= REASON_WIDTH


def test_dollars_are_dollars(tmp_path: Path) -> None:
    """Two of them would begin and end a formula."""
    changed = result()
    changed["results"][2]["reason"] = "it costs $5 or $\\frac"
    changed["config"]["data"] = "/data/$HOME/$x_y.npz"
    save_figure(plot_bench(result_of(changed)), tmp_path / "a.png")
    page = report(result_of(changed))
    assert "it costs $5 or $\\frac" in page.partition("<svg")[2]


@pytest.mark.parametrize("positions", [[], [0.5], [0.5, 0.5, 0.5], [0.99, 1.0, 0.2, 0.21], [0.0, 0.0], [0.3, 0.1, 0.2]])
def test_names_in_the_roofline_do_not_lie_on_each_other(positions: list[float]) -> None:
    moved = spread_out(positions, 0.05)
    pairs = sorted(zip(positions, moved, strict=True))
    assert all(later >= sooner + 0.05 - 1e-9 for (_, sooner), (_, later) in pairwise(pairs))
    assert all(0 <= position <= 1 for position in moved)


def test_several_results_stand_side_by_side() -> None:
    other = result()
    other["results"][0] = row("numpy", epoch_seconds={"samples": [0.5, 0.6, 0.7]})
    other["results"].append(row("numba", path="sparse"))
    other["config"] = {**other["config"], "batch_size": 64}
    page = side_by_side([("a.json", result_of(result())), ("<b>.json", result_of(other))], "a and b")
    checker = Checker()
    checker.feed(page)
    assert (checker.open, checker.fetched) == ([], [])
    assert "<td>numpy loop</td><td>0.2000 (0.1500–0.3000)</td><td>0.6000 (0.5500–0.6500)</td>" in page
    assert "<td>numba sparse</td><td>–</td><td>0.2000" in page
    assert "<td>batch size</td><td>128</td><td>64</td>" in page
    assert "<dt>threads</dt><dd>2</dd>" in page
    assert "<b>.json" not in page
