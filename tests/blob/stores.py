"""A local blob service with everything below it, as the tests need it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tvixstore.blob import LocalBlobService
from tvixstore.blob.local import Compression
from tvixstore.kv import DiskGuard, Durability, KeyValue, LmdbEngine
from tvixstore.pools import Pools


@dataclass
class Store:
    """A service, and what it keeps its blobs in."""

    blobs: LocalBlobService
    engine: LmdbEngine
    table_blobs: KeyValue
    table_chunks: KeyValue
    guard: DiskGuard
    path: Path

    def files(self) -> list[Path]:
        """Every file below `chunks/`, unfinished ones too."""
        return [path for path in (self.path / "chunks").rglob("*") if path.is_file()]


@asynccontextmanager
async def local_store(
    path: Path,
    *,
    chunk_size: int = 256 << 10,
    compression: Compression = "auto",
    durability: Durability = "process",
    min_free: int = 0,
    max_size: int | None = None,
    map_bytes: int = 1 << 40,
) -> AsyncIterator[Store]:
    pools = Pools()
    engine = LmdbEngine(path / "index", durability=durability, map_bytes=map_bytes)
    try:
        blobs, chunks = engine.table("blobs"), engine.table("chunks")
        guard = DiskGuard(path, min_free=min_free, max_size=max_size)
        service = LocalBlobService(
            blobs,
            chunks,
            path,
            pools,
            chunk_size=chunk_size,
            compression=compression,
            durability=durability,
            guard=guard,
        )
        yield Store(service, engine, blobs, chunks, guard, path)
    finally:
        await engine.aclose()
        pools.close()
