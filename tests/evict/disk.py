"""The state of a daemon that does not run, looked at by what counts it; and what `du` sees."""

from __future__ import annotations

import os
from pathlib import Path

from tvixstore.evict import StoredEdges, check
from tvixstore.kv import Holds, LmdbEngine, References
from tvixstore.pools import Pools


async def problems_of(state: Path) -> list[str]:
    """What does not add up in it."""
    engine = LmdbEngine(state / "index")
    pools = Pools()
    try:
        return await check(References(engine, Holds(), StoredEdges()), state / "chunks", pools)
    finally:
        await engine.aclose()
        pools.close()


def du(state: Path) -> dict[str, int]:
    """The bytes of the files below `index` and `chunks`."""
    return {
        name: sum(
            os.path.getsize(os.path.join(folder, file))
            for folder, _, files in os.walk(state / name)
            for file in files
            if file != "lock.mdb"
        )
        for name in ("index", "chunks")
    }
