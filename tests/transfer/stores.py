"""Stores in memory to copy between, which note what is asked of them and fail when told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.pathinfo.samples import TRUSTED, Sample, Tree, add, store_path
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Digest
from tvixstore.directory import MemoryDirectoryService
from tvixstore.errors import StoreError
from tvixstore.kv import MemoryKeyValue
from tvixstore.nar import NarIdentities
from tvixstore.nix import KeyRing, SecretKey, StorePath
from tvixstore.pathinfo import MemoryPathInfoService, PathInfo
from tvixstore.pools import Pools
from tvixstore.transfer import Copy, Source, StoreTarget, Trust, Wanted, Watcher
from tvixstore.tree import Content


class NotingBlobs(MemoryBlobService):
    """Knows which blobs were put, and fails at those in `failing`."""

    def __init__(self) -> None:
        super().__init__()
        self.put_digests: list[Digest] = []
        self.failing: dict[Digest, StoreError] = {}

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        for data in blobs:
            if (error := self.failing.get(Digest.of(data))) is not None:
                raise error
        stored = await super().put_many(blobs)
        self.put_digests += stored
        return stored


class NotingPathInfos(MemoryPathInfoService):
    """Knows in which order paths were put, and fails at those in `failing`."""

    def __init__(self, content: Content) -> None:
        super().__init__(content)
        self.put_names: list[str] = []
        self.failing: dict[str, StoreError] = {}

    async def put(self, info: PathInfo) -> PathInfo:
        if (error := self.failing.get(info.store_path.name)) is not None:
            raise error
        self.put_names.append(info.store_path.name)
        return await super().put(info)


@dataclass
class Store:
    """One store, and how a copy sees it from either end."""

    name: str
    pools: Pools
    blobs: NotingBlobs = field(default_factory=NotingBlobs)
    content: Content = field(init=False)
    path_infos: NotingPathInfos = field(init=False)
    nars: NarIdentities = field(init=False)

    def __post_init__(self) -> None:
        self.content = Content(self.blobs, MemoryDirectoryService())
        self.path_infos = NotingPathInfos(self.content)
        self.nars = NarIdentities(self.content, MemoryKeyValue())

    async def add(
        self,
        name: str,
        tree: Tree,
        references: Sequence[Sample] = (),
        *,
        itself: bool = False,
        signers: Sequence[SecretKey] = (TRUSTED,),
    ) -> Sample:
        paths: list[StorePath] = [each.info.store_path for each in references]
        if itself:
            paths.append(store_path(name))
        sample = await add(self.content, name, tree, references=paths, signers=signers)
        await self.path_infos.put(sample.info)
        return sample

    @property
    def source(self) -> Source:
        return Source(self.name, self.path_infos, self.content)

    def target(self, keys: KeyRing | None = None) -> StoreTarget:
        return StoreTarget(
            *(self.name, self.path_infos, self.content, self.pools), Trust(keys), self.nars
        )

    async def is_closed(self) -> bool:
        """Whether all that its paths refer to is here, and all of their content."""
        async for info in self.path_infos.list():
            await self.nars.of(info.node)
            for reference in info.references:
                if await self.path_infos.get(reference.hash) is None:
                    return False
        return True


@dataclass
class Two:
    """Where it is copied from, and where to."""

    source: Store
    target: Store

    async def copy(
        self,
        *samples: Sample,
        keys: KeyRing | None = None,
        recursive: bool = True,
        jobs: int = 4,
        watcher: Watcher | None = None,
    ) -> Copy:
        copying = Copy(self.source.source, self.target.target(keys), jobs, watcher or Watcher())
        await copying.run(wanted(*samples), recursive=recursive)
        return copying


@asynccontextmanager
async def two_stores() -> AsyncIterator[Two]:
    pools = Pools(files=1, cpu=1, dns=1)
    two = Two(Store("the source", pools), Store("the target", pools))
    try:
        yield two
    finally:
        await two.source.nars.aclose()
        await two.target.nars.aclose()
        pools.close()


def wanted(*samples: Sample) -> list[Wanted]:
    return [Wanted.of(each.info.store_path) for each in samples]


def names_of(copying: Copy, outcome: str) -> list[str]:
    return [each.store_path.name for each, what in copying.report.paths if what == outcome]
