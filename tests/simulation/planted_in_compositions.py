"""Bugs for the worlds of compositions, and a word of what is said of each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.simulation import blobs, infos, trees
from tests.simulation.planted import EachForHimself
from tvixstore.blob import BlobService, CachedBlobService
from tvixstore.blob.fill import BlobFill, BlobFills
from tvixstore.blob.limit import LimitBlobService
from tvixstore.blob.negative import NegativeBlobService
from tvixstore.blob.retry import RetryBlobService
from tvixstore.blob.service import BlobWriter
from tvixstore.blob.timeout import TimeoutBlobService
from tvixstore.castore import Digest, Directory
from tvixstore.directory import CachedDirectoryService, DirectoryService
from tvixstore.directory.fallback import FallbackDirectoryService
from tvixstore.directory.mirror import MirrorDirectoryService
from tvixstore.directory.negative import NegativeDirectoryService
from tvixstore.errors import Incomplete, StoreError, Unavailable
from tvixstore.pathinfo import CachedPathInfoService, Description, PathInfo, PathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.policy.limit import LimitedStream
from tvixstore.streams import ByteStream

if TYPE_CHECKING:
    from tests.simulation.compositions import Kit


def _alone(inner: Any, *_: Any) -> Any:
    """In place of a wrapper: nothing."""
    return inner


class DeafToBlobs(NegativeBlobService):
    """Does not hear of what is put."""

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await self.inner.open_write(boundaries)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self.inner.put_many(blobs)


class BeginsAgain(RetryBlobService):
    """Gives the whole blob where a part was asked for."""

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        return await super().open_read(digest, 0, length, size)


class NeverGivesUpOnHas(TimeoutBlobService):
    async def has(self, digest: Digest) -> bool:
        return await self.inner.has(digest)


class KeepsPermits(LimitBlobService):
    """Of what turns out to be absent."""

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        permit = await self.limit.acquire()
        stream = await self.inner.open_read(digest, offset, length, size)
        return None if stream is None else LimitedStream(stream, self.limit, permit)


class FillsForEach(BlobFills):
    def of(self, digest: Digest, size: int | None) -> BlobFill:
        fill = BlobFill(self, digest, size)
        self._filling.start(digest, fill)
        return fill


def _fills_for_each(near: BlobService, far: BlobService, metrics: Any) -> CachedBlobService:
    cache: CachedBlobService = blobs.KIT.cache(near, far, metrics)
    fills = cache._fills
    cache._fills = FillsForEach(
        near, far, fills.directory, fills.pools, fills.on_right, fills.metrics
    )
    return cache


PLANTED_IN_BLOBS: dict[str, tuple[Kit, str]] = {
    "absences outlive puts": (
        replace(blobs.KIT, announcing=_alone, negative=DeafToBlobs),
        "a false absent",
    ),
    "a part begins at the beginning": (
        replace(blobs.KIT, retry=BeginsAgain, verify=None),
        "wrong bytes",
    ),
    "nothing is verified": (replace(blobs.KIT, verify=None), "wrong bytes"),
    "a timeout is none": (replace(blobs.KIT, timeout=NeverGivesUpOnHas), "has took"),
    "permits are kept": (replace(blobs.KIT, limit=KeepsPermits), "permit was not given back"),
    "everybody fills": (replace(blobs.KIT, cache=_fills_for_each), "several at once"),
}


class TakesUnknownForAbsent(FallbackDirectoryService):
    async def get(self, digest: Digest) -> Directory | None:
        for member in self.members:
            try:
                if (directory := await member.get(digest)) is not None:
                    return directory
            except StoreError:
                continue
        return None


class StopsAtTheFirstFailure(FallbackDirectoryService):
    async def get(self, digest: Digest) -> Directory | None:
        for member in self.members:
            if (directory := await member.get(digest)) is not None:
                return directory
        return None


class StaysWithOne(FallbackDirectoryService):
    """Whoever began a closure has to bring all of it."""

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        for member in self.members:
            if await member.get(root) is not None:
                async with aclosing(member.get_closure(root)) as closure:
                    async for directory in closure:
                        yield directory
                return


class TakesAPartForTheWhole(CachedDirectoryService):
    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        try:
            async with aclosing(super().get_closure(root)) as closure:
                async for directory in closure:
                    yield directory
        except Incomplete:
            return


class MirrorStaysWithOne(MirrorDirectoryService):
    get_closure = StaysWithOne.get_closure


class SaysSoBefore(MirrorDirectoryService):
    """Tells of a write before it was done, or not."""

    async def put(self, directory: Directory) -> Digest:
        return directory.digest


class DeafToDirectories(NegativeDirectoryService):
    async def put(self, directory: Directory) -> Digest:
        return await self.inner.put(directory)

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self.inner.put_many(directories)


def _fetches_for_each(near: DirectoryService, far: DirectoryService, metrics: Any) -> Any:
    cache = CachedDirectoryService(near, far, metrics)
    cache._fetching = EachForHimself()
    return cache


PLANTED_IN_TREES: dict[str, tuple[Kit, str]] = {
    "nothing is verified": (replace(trees.KIT, verify=None), "wrong bytes"),
    "the end is believed": (
        # Groups go on where a closure ends too early, whoever believes it.
        replace(
            trees.KIT,
            verify=None,
            fallback=StaysWithOne,
            race=lambda members, names, _: StaysWithOne(members, names),
            mirror=MirrorStaysWithOne,
        ),
        "ends too early",
    ),
    "a part counts as whole": (replace(trees.KIT, cache=TakesAPartForTheWhole), "ends too early"),
    "unknown counts as absent": (
        replace(trees.KIT, fallback=TakesUnknownForAbsent),
        "a false absent",
    ),
    "one failure is enough": (replace(trees.KIT, fallback=StopsAtTheFirstFailure), "not delivered"),
    "a closure stays with one": (
        replace(trees.KIT, fallback=StaysWithOne),
        "not delivered: closure",
    ),
    "a mirror stays with one": (
        replace(trees.KIT, mirror=MirrorStaysWithOne),
        "not delivered: closure",
    ),
    "it says so before it was done": (replace(trees.KIT, mirror=SaysSoBefore), "and nowhere"),
    "absences outlive puts": (
        replace(trees.KIT, announcing=_alone, negative=DeafToDirectories),
        "a false absent",
    ),
    "everybody fetches": (replace(trees.KIT, cache=_fetches_for_each), "several at once"),
}


class GivesAnyNar(infos.Store):
    """What it has of the path, whichever NAR was promised."""

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        info = await self.get(description.store_path.hash)
        return None if info is None else await super().open_nar(info, offset, length)


class ListsTwice(FallbackPathInfoService):
    async def list(self) -> AsyncGenerator[PathInfo, None]:
        for member in self.members:
            async with aclosing(member.list()) as listed:
                async for info in listed:
                    yield info


class GivesUpOnOne(FallbackPathInfoService):
    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        for member in self.members:
            if (description := await member.describe(path_hash, nar_sha256)) is not None:
                return description
        raise Unavailable("nobody")


class DeafToPathInfos(NegativePathInfoService):
    async def put(self, info: PathInfo) -> PathInfo:
        return await self.inner.put(info)


def _gets_for_each(near: PathInfoService, far: PathInfoService, _: Any) -> Any:
    cache = CachedPathInfoService(near, far)
    cache._fetching = EachForHimself()
    return cache


PLANTED_IN_INFOS: dict[str, tuple[Kit, str]] = {
    "any NAR will do": (replace(infos.KIT, store=GivesAnyNar), "wrong bytes"),
    "a list repeats": (
        replace(infos.KIT, fallback=lambda members, names: ListsTwice(members, names)),
        "listed twice",
    ),
    "one failure is enough": (
        replace(infos.KIT, fallback=lambda members, names: GivesUpOnOne(members, names)),
        "not delivered",
    ),
    "absences outlive puts": (
        replace(infos.KIT, announcing=_alone, negative=DeafToPathInfos),
        "a false absent",
    ),
    "everybody fetches": (replace(infos.KIT, cache=_gets_for_each), "several at once"),
}


@dataclass(frozen=True)
class ByTurns:
    """Whose a key is depends on how many members there are: nearly all move when one comes."""

    names: Sequence[str]
    weights: Sequence[float]

    def order(self, key: bytes) -> list[int]:
        first = key[-1] % len(self.names)
        return [(first + place) % len(self.names) for place in range(len(self.names))]


class OnlyTheFirst(ByTurns):
    """Asks nobody but the one who should have it."""

    def order(self, key: bytes) -> list[int]:
        return super().order(key)[:1] * len(self.names)


PLANTED_IN_SHARDS: dict[str, tuple[type[ByTurns], str]] = {
    "everything moves": (ByTurns, "moved something"),
    "nobody else is asked": (OnlyTheFirst, "is not found"),
}
