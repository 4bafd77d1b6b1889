"""``mlp-accel compare``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from mlp_accel.cli.console import FORMATS, TEXT, output_console, show
from mlp_accel.cli.options import Format, JsonFile, check_outputs, parse_share
from mlp_accel.errors import SettingError, check_choice
from mlp_accel.exit_codes import DIFFERENT, OK, UNDECIDED
from mlp_accel.files import write_json

if TYPE_CHECKING:
    from mlp_accel.bench.comparison import Comparison

VERSUS = "\0"
"""What ``--`` becomes on its way through the parser, which would drop it; no file has this name."""


class SidesCommand(TyperCommand):
    """A command whose ``--`` stands between two lists of files."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Called with the arguments of the command line."""
        return super().parse_args(ctx, [VERSUS if argument == "--" else argument for argument in args])

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Called for the first line of ``--help``."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] A.json... [--] B.json...")


def compare(
    files: Annotated[list[str], typer.Argument(metavar="A.json... -- B.json...", help="Result files of bench, of the two sides")],
    fail_above: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Exit 1 if B is slower by more than this, such as 5%, beyond chance")
    ] = None,
    form: Format = TEXT,
    json_file: JsonFile = None,
) -> None:
    """Put result files of bench side by side: what differs around them, and the ratios of their times.

    `compare A.json B.json` shows two runs. Whether B is slower can only be said from several runs of each:
    `compare a*.json -- b*.json`, five or more on a side.
    """
    from mlp_accel.bench.comparison import compare as compare_results
    from mlp_accel.bench.output import comparison as output
    from mlp_accel.bench.result_files import read_result

    check_choice("format", form, FORMATS)
    threshold = None if fail_above is None else parse_share(fail_above, "--fail-above", "slowdown")
    paths = dict(zip("AB", _sides(files), strict=True))
    check_outputs(json_file)
    results = {side: [read_result(path) for path in found] for side, found in paths.items()}
    comparison = compare_results(results["A"], results["B"])
    console = output_console(json_file)
    differences = output.differences_table(comparison)
    slower = [ratio for ratio in comparison.results if threshold is not None and ratio.is_slower(threshold)]
    show(
        *(console, form),
        [
            f"{side}: {path}, {output.origin(result)}"
            for side in paths
            for path, result in zip(paths[side], results[side], strict=True)
        ],
        differences or ["environments and settings are the same"],
        output.not_ranked_lines(comparison),
        output.ratio_table(comparison),
        output.comparison_notes(comparison),
        output.slower_lines(slower, threshold or 0.0),
    )
    if json_file:
        write_json(json_file, {**{side.lower(): list(map(str, found)) for side, found in paths.items()}, **comparison.to_dict()})
        if json_file != "-":
            console.print(f"wrote {json_file}")
    raise typer.Exit(_exit_code(comparison, bool(slower), threshold is not None))


def _sides(files: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The files of A and of B."""
    if VERSUS not in files and len(files) == 2:
        files = [files[0], VERSUS, files[1]]
    middle = files.index(VERSUS) if VERSUS in files else 0
    a, b = files[:middle], files[middle + 1 :]
    if not a or not b or VERSUS in b:
        raise SettingError("name two files, or the files of A, then --, then the files of B: compare a*.json -- b*.json")
    for side in (a, b):
        if twice := [name for name, count in Counter(str(Path(name).resolve()) for name in side).items() if count > 1]:
            raise SettingError(
                f"{twice[0]} stands twice on one side: one run counted as two says nothing of the spread between runs"
            )
    return list(map(Path, a)), list(map(Path, b))


def _exit_code(comparison: Comparison, slower: bool, verdict_wanted: bool) -> int:
    if slower:
        return DIFFERENT
    timed = [ratio for ratio in comparison.results if any(ratio.seconds)]
    undecided = [ratio for ratio in timed if ratio.verdict is None]
    if verdict_wanted:
        return UNDECIDED if undecided or not timed else OK
    return OK if any(ratio.ratio for ratio in timed) else UNDECIDED
