"""Result files with something wrong in them: refused by an error that names the file, or taken, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import pytest

from mlp_accel.bench.result_files import ResultFileError, parse_result
from mlp_accel.cli.console import printable

ROOT = Path(__file__).parents[2]


def study() -> ModuleType:
    """The study of 100,000 files, of which a few hundred are tried here."""
    path = ROOT / "benchmarks" / "result_file_study.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", study().SOURCES)
def test_a_file_that_was_changed_is_refused_or_taken(name: str) -> None:
    module, rng = study(), random.Random(1)
    content = module.shorter(json.loads((ROOT / name).read_text()))
    sound = parse_result(json.dumps(content).encode(), name)
    found = [module.check(module.mutated(rng, content), sound, number == 0, number == 0) for number in range(100)]
    assert {"refused", "taken"} == set(found)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("NaN", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("1e999", "1e999… is too large"),
        ("9" * 400, "is too large"),
        ('"\uff11"', "must be a number; got '\uff11'"),
        ("true", "must be a number; got True"),
        ("0", "must be a positive number"),
        ("1e-200", "must be a positive number"),
    ],
)
def test_a_time_is_a_number_that_can_be_a_time(number: str, words: str) -> None:
    row = '{"name": "numpy", "status": "ok", "epoch_seconds": {"samples": [NUMBER]}}'.replace("NUMBER", number)
    text = '{"schema": 2, "environment": {}, "config": {}, "results": [ROW]}'.replace("ROW", row)
    with pytest.raises(ResultFileError, match=r"^a\.json: ") as caught:
        parse_result(text.encode(), "a.json")
    assert words in str(caught.value)


@pytest.mark.parametrize("inner", ["[" * 60 + "]" * 60, '"\\ud800"', '{"\\ud800": 1}'])
def test_what_nothing_else_can_use_is_refused(inner: str) -> None:
    text = '{"schema": 2, "environment": {"a": INNER}, "config": {}, "results": []}'.replace("INNER", inner)
    with pytest.raises(ResultFileError, match=r"^a\.json: is not JSON"):
        parse_result(text.encode(), "a.json")


def test_text_is_shown_and_commands_nothing() -> None:
    assert printable("\x1b[2J\u202e\x07 é × 你\n\ta\ud800") == "\\x1b[2J\\u202e\\x07 é × 你\n\ta\\ud800"
