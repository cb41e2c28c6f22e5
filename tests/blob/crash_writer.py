"""Writes blobs until it is killed: `python -m tests.blob.crash_writer STATE`.

It prints the digest of each blob once that is stored. The blobs follow from their numbers, so that
the test knows them as well.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from tests.blob.conformance import KIB, noise
from tvixstore.blob import LocalBlobService
from tvixstore.kv import LmdbEngine, StateDirectory
from tvixstore.pools import Pools

# Small ones in the index, one in a file, and some of several chunks, each group in its turn.
GROUPS = ((100, 5000), (100 * KIB,), (1_500_000,), (3_000_000, 10))


def group(number: int) -> list[bytes]:
    sizes = GROUPS[number % len(GROUPS)]
    return [noise(size, seed=1000 * number + size) for size in sizes]


async def main(path: Path) -> None:
    with StateDirectory(path) as state:
        engine = LmdbEngine(state.index)
        blobs = LocalBlobService(
            engine.table("blobs"), engine.table("chunks"), path, Pools(), durability="power"
        )
        for number in itertools.count():
            for digest in await blobs.put_many(group(number)):
                sys.stdout.write(f"{digest.hex()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
