"""Extracts a tree, and is killed on the way: `python -m tests.filesystem.killed_extraction OUT AT`.

At the middle of `AT`'s file it kills itself, when that is made, half written, or still without its
mode.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Final

from tests.filesystem.places import few_pools
from tests.nar.trees import File, Tree, memory, store
from tvixstore.filesystem import Extractor

TREE: Final[dict[bytes, Tree]] = {
    b"d%d" % folder: {
        b"f%d" % file: File(b"%d %d " % (folder, file) * 50, file % 2 == 1) for file in range(20)
    }
    for folder in range(10)
}
POINTS: Final = ("made", "half written", "without its mode")
_FILES: Final = 105


def main(out: str, point: str) -> None:
    os.umask(0o077)
    write, fchmod = os.write, os.fchmod
    written = 0

    def counting(descriptor: int, data: bytes) -> int:
        nonlocal written
        if not data.startswith(b"%d " % (written // 20)):
            # Not of the tree: what wakes the loop.
            return write(descriptor, data)
        written += 1
        if written == _FILES and point != POINTS[2]:
            if point == POINTS[1]:
                write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(descriptor, data)

    def killing(descriptor: int, mode: int) -> None:
        if written == _FILES:
            os.kill(os.getpid(), signal.SIGKILL)
        fchmod(descriptor, mode)

    async def extract() -> None:
        content = memory()
        with few_pools() as pools:
            await Extractor(content, pools).put(await store(content, TREE), out)

    os.write, os.fchmod = counting, killing  # type: ignore[assignment]
    asyncio.run(extract())


if __name__ == "__main__":
    main(*sys.argv[1:])
