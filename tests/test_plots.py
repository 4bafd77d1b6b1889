"""Pictures show what they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlp_accel import History, OutputError
from mlp_accel.plots import plot_history
from mlp_accel.training.notebook import printed_curve

HISTORY = History(loss=[0.9, 0.5, 0.4], accuracy=[0.7, 0.8, 0.9], seconds=[1.0, 1.0, 1.0])


def test_loss_and_accuracy_stand_side_by_side() -> None:
    figure = HISTORY.plot()
    loss, accuracy = figure.axes
    assert (loss.get_title(), accuracy.get_title()) == ("Loss", "Accuracy")
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), HISTORY.loss)
    np.testing.assert_array_equal(accuracy.lines[0].get_ydata(), HISTORY.accuracy)


def test_the_printed_curve_is_drawn_as_well() -> None:
    figure = plot_history(HISTORY, printed_curve())
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]


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
