"""What foreign result files do to `mlp-accel compare` and `trend`: 100,000 files with something wrong in each.

    python benchmarks/result_file_study.py    # stop it at any time, run it again to go on; the machine may be busy

A file that `bench` wrote is changed at random: a value, a field or some of its bytes. It must be refused by an error that names the
file, or else go all the way: written again, compared, and now and then drawn up in series, printed and plotted. Anything else is a
failure, and so is an escape sequence that reaches the output.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from records import continued, say, write_record

from mlp_accel.bench.comparison import compare
from mlp_accel.bench.history.trend import find_series
from mlp_accel.bench.output.comparison import comparison_notes, differences_table, origin, ratio_table
from mlp_accel.bench.output.history import change_lines, plot_trend, trend_table
from mlp_accel.bench.result_files import ResultFileError, parse_result
from mlp_accel.bench.results import Result
from mlp_accel.cli.console import FORMATS, OutputConsole, show

ROOT = Path(__file__).parent.parent
SOURCES = ("benchmarks/results/bench.json", "benchmarks/results/until.json", "tests/data/bench_schema_1.json")
PRINTED, PLOTTED = 100, 5000
"""Of so many files one is printed, as one of several of a side and in a series too, and one is plotted: that takes longest."""

WRITTEN = 500
"""After so many files more the record is written."""

ESCAPE = "\x1b]0;title\x07\x1b[2J"
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 5e-324, 1e-300, 1e300, 2**53 + 1, 2**63, 10**17, 10**400),
    *(float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "numpy",
        "ok",
        ESCAPE,
        "$x$ $",
        r"$\frac{",
        "\u202etxt",
        "\ud800",
        "a\nb\r\nc",
        "|<b>[l](u)`",
        "\0",
        "x" * 5000,
        "\uff11",
    ),
    *([], {}, [[]], [1], ["a"], [None], {"a": 1}, {"samples": [1]}, {"samples": []}, [1e308, 1e-308]),
)
TEXTS = (
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-",
    b"\xff",
    b"\x1b[2J",
    b"\\u001b[2J",
    b"\\ud800",
    b"{",
    b"]",
    b'"',
    b",",
    b"[" * 3000,
    b"9" * 500,
)


def shorter(content: Any, length: int = 4) -> Any:
    """The same with no more than so many items in each list: what can be wrong is there, and it takes less time."""
    if isinstance(content, dict):
        return {name: shorter(value) for name, value in content.items()}
    return [shorter(item) for item in content[:length]] if isinstance(content, list) else content


def mutated(rng: random.Random, content: Any) -> bytes:
    """A result file with one to three things wrong in it."""
    if rng.random() < 0.3:
        return _mutated_text(rng, json.dumps(content).encode())
    changed = copy.deepcopy(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        _change_one(rng, changed)
    return json.dumps(changed).encode()


def check(content: bytes, sound: Result, printed: bool, plotted: bool) -> str:
    """Take a file as far as it goes; ``"refused"`` or ``"taken"``. Raises whatever else happens."""
    try:
        result = parse_result(content, "foreign.json")
    except ResultFileError as error:
        if not str(error).startswith("foreign.json: "):
            raise AssertionError(f"the message names no file: {error}") from error
        return "refused"
    json.dumps(result.to_dict(), allow_nan=False)
    json.dumps(compare([sound], [result]).to_dict(), allow_nan=False)
    if printed:
        comparisons = [compare([sound], [result]), compare([result] * 5, [sound] * 5)]
        series = find_series([sound, result, *[result] * 6], None)
        for written in (*comparisons, *series):
            json.dumps(written.to_dict(), allow_nan=False)
        for form in FORMATS:
            console = OutputConsole(file=io.StringIO(), markup=False, highlight=False, width=120)
            for comparison in comparisons:
                parts = (differences_table(comparison), ratio_table(comparison), comparison_notes(comparison))
                show(console, form, [origin(result)], *parts)
            show(console, form, trend_table(series), change_lines(series))
            text = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
            if "\x1b" in text or "\u202e" in text:
                raise AssertionError("an escape sequence reached the output")
            text.encode()
        if plotted:
            plot_trend(series).savefig(io.BytesIO(), format="svg")
    return "taken"


def _change_one(rng: random.Random, content: Any) -> None:
    """Change a value, or remove or rename a field, at a random place."""
    parent, key = rng.choice(list(_places(content)))
    kind = rng.random()
    if kind < 0.15:
        del parent[key]
    elif kind < 0.25 and isinstance(parent, dict):
        parent[rng.choice([text for text in NASTY if isinstance(text, str)])] = parent.pop(key)
    elif kind < 0.3:
        deep: Any = parent[key]
        for _ in range(rng.choice([1, 30, 60, 200])):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        parent[key] = deep
    elif kind < 0.35 and isinstance(parent, list):
        parent.extend(parent[:100])
    else:
        parent[key] = copy.deepcopy(rng.choice(NASTY))


def _places(content: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every object and list with each of its keys."""
    if depth > 20:
        return
    for key in list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield content, key
        yield from _places(content[key], depth + 1)


def _mutated_text(rng: random.Random, text: bytes) -> bytes:
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        kind = rng.random()
        if kind < 0.4:
            text = text[:at] + rng.choice(TEXTS) + text[at + rng.choice([0, 0, 1, 5]) :]
        elif kind < 0.7:
            text = text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
        elif kind < 0.9:
            text = text[:at] + text[at + rng.randint(1, 40) :]
        else:
            text = text[:at]
    return text


def main() -> int:
    """Run the study; the exit code is 0 if every file was refused or taken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "results" / "result_file_study.json")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time, to be continued")
    options = parser.parse_args()
    warnings.simplefilter("error")
    sources = [shorter(json.loads((ROOT / name).read_text())) for name in SOURCES]
    sound = [parse_result(json.dumps(source).encode(), name) for name, source in zip(SOURCES, sources, strict=True)]
    settings = {"count": options.count, "seed": options.seed, "sources": SOURCES}
    empty = {"done": 0, "outcomes": {"refused": 0, "taken": 0, "failed": 0}, "failures": []}
    content = continued(options.result, settings, empty)
    deadline = monotonic() + 60 * options.minutes
    while content["done"] < options.count and monotonic() < deadline:
        number = content["done"]
        rng = random.Random(f"{options.seed} {number}")  # any of them can be made again
        which = rng.randrange(len(sources))
        try:
            outcome = check(mutated(rng, sources[which]), sound[which], number % PRINTED == 0, number % PLOTTED == 0)
        except Exception as error:
            outcome = "failed"
            content["failures"].append({"number": number, "error": f"{type(error).__name__}: {error}"[:300]})
            say(str(content["failures"][-1]))
        content["outcomes"][outcome] += 1
        content["done"] += 1
        if content["done"] % WRITTEN == 0:
            write_record(options.result, content)
    write_record(options.result, content)
    done = content["done"] >= options.count
    say(f"{content['outcomes']}; {options.result}: {'complete' if done else 'not complete; run this again'}")
    return 1 if content["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
