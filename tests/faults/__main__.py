"""`make fault-matrix`: lives through every cell several times, and writes docs/resilience.md.

Daemon and client are as somebody has them who has set nothing. Cells that mostly wait run beside
each other; those that are over in no time run two at a time.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.faults.checks import wrong
from tests.faults.document import DOCUMENT, place_table, rewritten, said_table
from tests.faults.matrix import BASELINES, CELLS, PLACES, Cell, expected
from tests.faults.scene import DEFAULTS, Paths, Seen, live_through

TIMES = 3
# Each time; they are the measure of all others, and so are spread over all of the run.
BASELINE_TIMES = 2
# How many cells wait at a time, and how many of the short ones run.
WAITING, SHORT = 20, 2
_WAITS = {"black hole", "stall", "slow first byte", "slow body"}


class Matrix:
    """The cells, each lived through several times."""

    def __init__(self, folder: Path) -> None:
        self.measured: defaultdict[Cell, list[Seen]] = defaultdict(list)
        self.wrong: list[str] = []
        self._folder = folder
        self._paths = Paths.make(folder / "paths")
        self._turns = {True: asyncio.Semaphore(WAITING), False: asyncio.Semaphore(SHORT)}
        self._starting = asyncio.Semaphore(2)
        self._number = 0

    async def run(self) -> None:
        long = sorted((cell for cell in CELLS if _mostly_waits(cell)), key=_first_come_the_longest)
        short = [cell for cell in CELLS if not _mostly_waits(cell)]
        async with asyncio.TaskGroup() as group:
            for cell in long * TIMES:
                group.create_task(self._live_through(cell))
            for cell in (BASELINES * BASELINE_TIMES + short) * TIMES:
                group.create_task(self._live_through(cell))

    async def _live_through(self, cell: Cell) -> None:
        async with self._turns[_mostly_waits(cell)]:
            self._number += 1
            folder = self._folder / str(self._number)
            seen = await live_through(cell, self._paths, folder, DEFAULTS, self._starting)
            await asyncio.to_thread(shutil.rmtree, folder)
        self.measured[cell].append(seen)
        self.wrong += wrong(cell, seen)
        _say(f"{cell}: {seen.first.result} in {seen.first.seconds:.2f} s")


def _mostly_waits(cell: Cell) -> bool:
    if cell.fault is None:
        return False
    return expected(cell).result == "failed" or (cell.fault in _WAITS and cell.place != "narinfo")


def _first_come_the_longest(cell: Cell) -> tuple[bool, bool]:
    return cell.fault != "stall", cell.beside > 0


def versions() -> str:
    nix = subprocess.run(("nix", "--version"), capture_output=True, text=True, check=True)
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Nix {nix.stdout.split()[-1]}, Python {python}, {TIMES} runs of each cell, 2 cores."


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fault-matrix-") as folder:
        matrix = Matrix(Path(folder))
        asyncio.run(matrix.run())
    for line in matrix.wrong:
        _say(f"WRONG: {line}")
    if matrix.wrong:
        return 1
    tables = {str(place): place_table(place, matrix.measured) for place in PLACES}
    blocks = {**tables, "said": said_table(matrix.measured), "versions": versions()}
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text(), blocks))
    _say(f"{DOCUMENT.name} written after {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
