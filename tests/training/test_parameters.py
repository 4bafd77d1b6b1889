"""Saved parameters: what `load_params` would refuse is never written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel import ParameterFileError, init_params, load_params, save_params

WEIGHTS, BIAS = init_params([3, 2])[0]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([(WEIGHTS.astype(object), BIAS)], "layer 1 is not floating: object"),
        ([(WEIGHTS, np.array([None, None]))], "layer 1 is not floating: float64, object"),
        ([(WEIGHTS.astype(np.int64), BIAS)], "layer 1 is not floating: int64"),
        ([(WEIGHTS, BIAS[:1])], "do not fit together"),
        ([(WEIGHTS, BIAS), (WEIGHTS, BIAS)], "do not follow the layer before"),
        ([], "at least one layer"),
    ],
    ids=str,
)
def test_what_could_not_be_read_again_is_refused_before_anything_is_written(tmp_path: Path, params: Any, words: str) -> None:
    path = tmp_path / "p.npz"
    path.write_text("precious")
    with pytest.raises(ParameterFileError, match=words) as caught:
        save_params(path, params)
    assert str(path) in str(caught.value)
    assert path.read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir()] == ["p.npz"]


def test_lists_of_numbers_are_arrays(tmp_path: Path) -> None:
    save_params(tmp_path / "p.npz", [([[1.0, 2.0]], [0.5, 0.25])])  # type: ignore[list-item]
    ((weights, bias),) = load_params(tmp_path / "p.npz")
    assert (weights.tolist(), bias.tolist()) == ([[1.0, 2.0]], [0.5, 0.25])
