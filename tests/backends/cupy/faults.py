"""Leave out barriers and waits of an emulated kernel, one at a time, and see what notices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlp_accel.backends.cupy.source import source
from tests.backends.cupy.emulator import Emulation

KINDS = {1: "removed", 2: "within the block only"}


@dataclass
class Fault:
    """One barrier or wait that was left out, and for each order of the threads what noticed it, or None."""

    line: int
    text: str
    kind: str
    caught: dict[int, str | None]


@dataclass
class Faults:
    """All of them, for one kernel."""

    all: list[Fault]

    @classmethod
    def inject(
        cls, check: Callable[[Emulation], None], sites: Sequence[tuple[int, bool]], file: str, seeds: Sequence[int]
    ) -> Faults:
        """Run `check` with every fault at every site, for each seed; an AssertionError of it is a catch."""
        lines = source(file).splitlines()[1:]
        faults = []
        for line, of_cluster in sites:
            for kind in (1, 2) if of_cluster else (1,):
                caught = {seed: _what_notices(check, Emulation(seed, fault_line=line, fault=kind)) for seed in seeds}
                faults.append(Fault(line, lines[line - 1].strip(), KINDS[kind], caught))
        return cls(faults)

    def lines(self) -> list[int]:
        """Where a fault was put in."""
        return [fault.line for fault in self.all]

    def missed(self) -> list[str]:
        """Those that no seed has shown."""
        return [f"line {fault.line} {fault.kind}: {fault.text}" for fault in self.all if not any(fault.caught.values())]


def _what_notices(check: Callable[[Emulation], None], emulation: Emulation) -> str | None:
    try:
        check(emulation)
    except AssertionError as error:
        first = next(line.strip() for line in str(error).splitlines() if line.strip())
        return {"Arrays are not strictly ordered": "parameters", "Not equal to tolerance": "losses"}.get(
            first.partition(" `")[0].partition(" rtol")[0], first
        )
    return None


def table(faults: Faults) -> str:
    """One row for each fault: where, what, and which check caught it under which seeds."""
    rows = ["line  fault                  caught by (seeds)"]
    for fault in faults.all:
        checks = sorted({check for check in fault.caught.values() if check})
        by = "; ".join(f"{check} ({', '.join(str(s) for s, c in fault.caught.items() if c == check)})" for check in checks)
        rows.append(f"{fault.line:4}  {fault.kind:21}  {by or 'NOTHING'}  | {fault.text}")
    return "\n".join(["", *rows, ""])
