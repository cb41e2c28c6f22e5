"""Removes chunk files that nothing names: left by a kill between two steps."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from tvixstore.log import Logger

if TYPE_CHECKING:
    from tvixstore.blob.chunk_store import ChunkStore

_log = Logger(__name__)

_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)


async def sweep(store: ChunkStore) -> int:
    """How many were removed. A call in a thread for each folder: others get their turn too."""
    removed = 0
    for byte in range(256):
        folder = f"{store.files.root}/{byte:02x}"
        digests = await store.pools.files.run(_chunks_in, folder)
        if lost := await _unnamed(store, digests):
            removed += await _remove(store, lost)
    if removed:
        _log.info("chunks.swept", path=store.files.root, files=removed)
    return removed


async def _remove(store: ChunkStore, digests: list[bytes]) -> int:
    # Nobody gives a new file that name meanwhile, nor has he just done it.
    await store.begin_commit(digests)
    try:
        paths = [store.files.path(digest) for digest in await _unnamed(store, digests)]
        return await store.pools.files.run(store.files.remove, paths)
    finally:
        store.end_commit(digests)


async def _unnamed(store: ChunkStore, digests: list[bytes]) -> list[bytes]:
    rows = await store.index.get_many(digests)
    return [digest for digest, row in zip(digests, rows, strict=True) if row is None]


def _chunks_in(folder: str) -> list[bytes]:
    # What is not called like a chunk is not ours.
    return [bytes.fromhex(name) for name in os.listdir(folder) if _NAME.fullmatch(name)]
