"""The matrix of faults as tests: what becomes of each cell, and not how long it takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.faults.checks import wrong
from tests.faults.matrix import CELLS, FAULTS, Cell, Fault
from tests.faults.scene import HURRIED, live_through

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.scene import Paths

pytestmark = pytest.mark.nix

# Every fault once beside a healthy member, in a place where it has something of its own, and what
# there is to be said of a member that is alone.
CHOSEN = [
    Cell("black hole", "narinfo", 1),
    Cell("refused", "NAR, start", 1),
    Cell("reset", "NAR, middle", 1),
    Cell("500", "narinfo", 1),
    Cell("503 + Retry-After", "NAR, start", 1),
    Cell("404", "NAR, middle", 1),
    Cell("403", "NAR, start", 1),
    Cell("slow first byte", "narinfo", 1),
    Cell("slow body", "NAR, middle", 1),
    Cell("stall", "NAR, middle", 1),
    Cell("truncation", "NAR, middle", 1),
    Cell("corruption", "NAR, middle", 1),
    Cell("wrong signature", "narinfo", 1),
    Cell("HTML", "NAR, middle", 1),
    Cell("redirect loop", "narinfo", 1),
    Cell("403", "narinfo", 0),
    Cell("404", "NAR, start", 0),
    Cell("corruption", "NAR, start", 0),
    Cell("refused", "narinfo", 0),
]


@pytest.mark.parametrize("cell", CHOSEN, ids=str)
async def test_a_fault_ends_as_the_matrix_says(cell: Cell, paths: Paths, tmp_path: Path) -> None:
    seen = await live_through(cell, paths, tmp_path, HURRIED, asyncio.Semaphore())
    assert wrong(cell, seen) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_ends_as_the_matrix_says_wherever_it_strikes(
    fault: Fault, paths: Paths, tmp_path: Path
) -> None:
    starting = asyncio.Semaphore(2)

    async def complaints(number: int, cell: Cell) -> list[str]:
        folder = tmp_path / str(number)
        return wrong(cell, await live_through(cell, paths, folder, HURRIED, starting))

    # All of them at a time: once the daemon runs, they mostly wait.
    cells = [cell for cell in CELLS if cell.fault == fault]
    found = await asyncio.gather(*(complaints(*numbered) for numbered in enumerate(cells)))
    assert [line for lines in found for line in lines] == []
