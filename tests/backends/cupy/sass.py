"""Machine instructions of a kernel, counted by the phase of its source that they belong to: nvdisasm, which needs no GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from mlp_accel.backends.cupy.source import source
from tests.backends.cupy.nvrtc import compiled

PLACE = re.compile(r'//## File "([^"]*)", line (\d+)(?: inlined at)?')
INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")


@dataclass(frozen=True)
class Instruction:
    """One instruction, and the line of the kernel's own file that it was inlined into.

    Attributes
    ----------
    name : str
        With its modifiers: ``"HMMA.16816.F32"``.
    line : int
        0 if the compiler does not say.
    """

    name: str
    line: int


@cache
def need_nvdisasm() -> str:
    """The disassembler, or a skipped test that says what is missing."""
    try:
        files = metadata.files("nvidia-cuda-nvdisasm") or []
    except metadata.PackageNotFoundError:
        files = []
    found = [str(file.locate()) for file in files if Path(file.name).stem == "nvdisasm"]
    if not found:
        pytest.skip("no nvdisasm: instructions are not counted here (python -m pip install nvidia-cuda-nvdisasm)")
    return found[0]


def disassembled(architecture: str, code: str, options: Sequence[str], file: str) -> list[Instruction]:
    """The instructions of the kernels in `code`, with the lines of `file` that they belong to."""
    nvdisasm = need_nvdisasm()
    _, cubin = compiled(architecture, code, [*options, "-lineinfo"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = subprocess.run([nvdisasm, "-gi", "-c", str(path)], check=True, capture_output=True, text=True).stdout
    return _parsed(text, file)


def _parsed(text: str, file: str) -> list[Instruction]:
    """A place is a stack of calls, innermost first; the line that counts is that of `file` within its outermost function but one.

    The outermost one is the macro that defines the kernel.
    """
    instructions: list[Instruction] = []
    places: list[int] = []
    before = True  # the last line was an instruction: the next place starts anew
    for line in text.splitlines():
        place = PLACE.search(line)
        if place:
            if before:
                places = []
            before = False
            if Path(place[1]).name == file:
                places.append(int(place[2]))
            continue
        found = INSTRUCTION.match(line)
        if found:
            before = True
            instructions.append(Instruction(found[1], places[-2] if len(places) > 1 else 0))
    # Behind the last EXIT is what only runs where the lanes of a warp have parted before they exchange values.
    last = max((i for i, instruction in enumerate(instructions) if instruction.name == "EXIT"), default=len(instructions))
    return instructions[: last + 1]


def lines_of(file: str, phases: dict[str, str], start: str, end: str) -> dict[int, str]:
    """Which of the `phases` each line of `file` belongs to, by a pattern: those from `start` to `end`, beginnings of lines."""
    lines = source(file).splitlines()[1:]
    first = next(i for i, line in enumerate(lines, start=1) if line.startswith(start))
    last = next(i for i, line in enumerate(lines, start=1) if i > first and line.startswith(end))
    return {
        i: next((phase for phase, pattern in phases.items() if re.search(pattern, lines[i - 1])), "other")
        for i in range(first, last)
    }


def counted(instructions: Sequence[Instruction], phases: dict[int, str]) -> dict[str, Counter[str]]:
    """For each phase how many there are of each kind of instruction: ``HMMA``, ``LDSM``."""
    counts: dict[str, Counter[str]] = {phase: Counter() for phase in phases.values()}
    for instruction in instructions:
        phase = phases.get(instruction.line)
        if phase:
            counts[phase][instruction.name.partition(".")[0]] += 1
    return counts
