"""A whole local store, with all that counts and frees, and a check that it adds up."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.nar.trees import Tree, nar_of
from tests.pathinfo.samples import store_path
from tvixstore import nar
from tvixstore.blob import LocalBlobService
from tvixstore.castore import Node
from tvixstore.directory import LocalDirectoryService
from tvixstore.evict import Collector, StoredEdges, check
from tvixstore.kv import DiskGuard, Freeing, Holds, LmdbEngine, References, StateDirectory
from tvixstore.kv.freeing import GRACE
from tvixstore.pathinfo import LastAccess, LocalPathInfoService, PathInfo
from tvixstore.pools import Pools
from tvixstore.streams import BytesStream
from tvixstore.tree import Content


@dataclass
class LocalStore:
    state: StateDirectory
    engine: LmdbEngine
    holds: Holds
    references: References
    blobs: LocalBlobService
    directories: LocalDirectoryService
    content: Content
    path_infos: LocalPathInfoService
    access: LastAccess
    guard: DiskGuard
    freeing: Freeing
    collector: Collector
    pools: Pools

    async def add(self, name: str, tree: Tree) -> PathInfo:
        """Stores `tree` as the path `name`, as a fill does."""
        data = nar_of(tree)
        with self.content.session():
            node = await nar.ingest(self.content, BytesStream(data), pools=self.pools)
            return await self.path_infos.put(info_of(name, data, node))

    async def evict(self, *names: str) -> int:
        """Evicts those that can go, with all that only they needed; how many went."""
        evicted = await self.freeing.evict([store_path(name).hash for name in names])
        await self.collector.collect()
        return len(evicted.paths)

    async def time_passes(self) -> None:
        """So much that nothing is kept any more but what is referred to, and what sessions that are
        still open hold."""
        self.holds._recent.clear()
        self.holds._older.clear()
        now = self.references.now
        self.references.now = lambda: now() + 2 * GRACE
        await self.freeing.ripen()
        self.references.now = now

    async def problems(self) -> list[str]:
        """What does not add up."""
        found = await check(self.references, self.state.chunks, self.pools)
        files = sum(file.stat().st_size for file in self.state.chunks.rglob("*") if file.is_file())
        if files != self.guard.used()["chunks"]:
            found.append(f"{files} bytes of chunk files, and {self.guard.used()} counted")
        return found

    def rows(self) -> dict[str, int]:
        """How many objects there are."""
        with self.engine.begin() as txn:
            return {
                name: txn.stat(self.engine.table(name).database)["entries"]
                for name in ("blobs", "chunks", "directories", "pathinfos")
            }


def info_of(name: str, data: bytes, node: Node) -> PathInfo:
    return PathInfo(
        store_path=store_path(name),
        nar_sha256=hashlib.sha256(data).digest(),
        nar_size=len(data),
        references=(),
        node=node,
    )


@asynccontextmanager
async def open_store(
    path: Path, *, max_size: int | None = None, now: Callable[[], float] | None = None
) -> AsyncIterator[LocalStore]:
    pools = Pools()
    state = StateDirectory(path)
    engine = LmdbEngine(state.index, durability="process")
    try:
        holds = Holds()
        references = (
            References(engine, holds, StoredEdges())
            if now is None
            else References(engine, holds, StoredEdges(), now)
        )
        guard = DiskGuard(
            path,
            max_size=max_size,
            measured={
                "chunks": lambda: references.chunk_file_bytes,
                "index": lambda: references.index_bytes,
            },
            reusable={"index_free": lambda: references.index_free_bytes},
        )
        blobs = LocalBlobService(
            engine.table("blobs"),
            engine.table("chunks"),
            path,
            pools,
            chunk_size=128 << 10,
            durability="process",
            guard=guard,
            references=references,
        )
        directories = LocalDirectoryService(engine.table("directories"), references=references)
        content = Content(blobs, directories, holds)
        access = LastAccess(engine.table("access"))
        path_infos = LocalPathInfoService(
            engine.table("pathinfos"), content, access=access, references=references
        )
        freeing = Freeing(references)
        collector = Collector(freeing, state.chunks, pools)
        collector.on_freed(directories.forget)
        await blobs.sweep()
        try:
            yield LocalStore(
                state,
                engine,
                holds,
                references,
                blobs,
                directories,
                content,
                path_infos,
                access,
                guard,
                freeing,
                collector,
                pools,
            )
        finally:
            await path_infos.aclose()
    finally:
        await engine.aclose()
        state.close()
        pools.close()
