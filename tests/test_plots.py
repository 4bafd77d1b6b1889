"""Pictures show what they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from mlp_accel import History, OutputError
from mlp_accel.notebook import printed_curve
from mlp_accel.plots import plot_bench, plot_history, save_figure

HISTORY = History(loss=[0.9, 0.5, 0.4], accuracy=[0.7, 0.8, 0.9], seconds=[1.0, 1.0, 1.0])


def result() -> dict[str, Any]:
    seconds = {"median": 0.2, "min": 0.1, "q1": 0.15, "q3": 0.3, "samples": [0.1, 0.2, 0.4]}
    return {
        "config": {
            "layer_sizes": [784, 32, 10],
            "activation": "tanh",
            "batch_size": 128,
            "dtype": "float32",
            "threads": 2,
            "data": "mnist",
        },
        "environment": {"cpu": "a CPU", "cores": 2},
        "results": [
            {"name": "numpy", "status": "ok", "reason": None, "epoch_seconds": seconds},
            {"name": "cupy", "status": "unavailable", "reason": "no device", "epoch_seconds": None},
        ],
    }


def test_loss_and_accuracy_stand_side_by_side() -> None:
    figure = HISTORY.plot()
    loss, accuracy = figure.axes
    assert (loss.get_title(), accuracy.get_title()) == ("Loss", "Accuracy")
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), HISTORY.loss)
    np.testing.assert_array_equal(accuracy.lines[0].get_ydata(), HISTORY.accuracy)


def test_the_printed_curve_is_drawn_as_well() -> None:
    figure = plot_history(HISTORY, printed_curve())
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]


def test_a_benchmark_has_a_bar_for_a_time_and_a_reason_for_none() -> None:
    (axes,) = plot_bench(result()).axes
    assert [patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle)] == [0.2]
    assert any("no device" in text.get_text() for text in axes.texts)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["numpy", "cupy"]


def test_a_benchmark_without_any_time_can_be_drawn(tmp_path: Path) -> None:
    empty = result()
    empty["results"] = empty["results"][1:]
    save_figure(plot_bench(empty), tmp_path / "a.png")


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_ending_chooses_the_format(tmp_path: Path, ending: str, magic: bytes) -> None:
    path = tmp_path / f"a.{ending}"
    HISTORY.plot(path)
    assert path.read_bytes().startswith(magic)


def test_an_ending_that_is_no_format_is_an_error_and_keeps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("precious")
    with pytest.raises(OutputError, match=r"a\.txt.*\.png"):
        HISTORY.plot(path)
    assert path.read_text() == "precious"
