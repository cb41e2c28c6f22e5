"""What NARs are known by: rendered once, remembered durably, never taken from a damaged record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.http.support import Store
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Digest, FileNode, SymlinkNode
from tvixstore.errors import Incomplete, StorageFull
from tvixstore.kv.memory import MemoryKeyValue
from tvixstore.nar import NarIdentities, NarIdentity
from tvixstore.tree import Content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tvixstore.kv.service import Change
    from tvixstore.streams import ByteStream


async def identity_of(store: Store, table: MemoryKeyValue) -> NarIdentity:
    return await NarIdentities(store.content, table).of(store.path.info.node)


async def test_an_identity_is_found_out_once_and_outlives_the_process() -> None:
    store, table = await Store.filled(), MemoryKeyValue()
    expected = NarIdentity(len(store.path.nar), store.path.info.nar_sha256)
    assert await identity_of(store, table) == expected
    store.blobs.blobs.clear()
    assert await identity_of(store, table) == expected


async def test_a_damaged_record_is_found_out_again() -> None:
    store, table = await Store.filled(), MemoryKeyValue()
    expected = await identity_of(store, table)
    ((key, record),) = await table.scan()
    for damaged in (b"", record[:-1], record[:-1] + b"\0", b"\2" + record[1:], record + b"\0"):
        await table.apply([(key, damaged)])
        assert await identity_of(store, table) == expected
        assert await table.get(key) == record


async def test_the_longest_symlink_has_a_key_that_is_not_too_long() -> None:
    nars = NarIdentities(Store().content, MemoryKeyValue())
    identity = await nars.of(SymlinkNode(b"t" * 4095))
    assert identity.size > 4095


async def test_what_is_missing_is_named_and_nothing_is_remembered() -> None:
    table = MemoryKeyValue()
    node = FileNode(Digest.of(b"absent"), 3)
    with pytest.raises(Incomplete) as missing:
        await NarIdentities(Store().content, table).of(node)
    assert missing.value.digest == node.digest.raw
    assert await table.scan() == []


class FullTable(MemoryKeyValue):
    async def apply(self, changes: Sequence[Change]) -> None:
        raise StorageFull("no room")


async def test_a_full_disk_does_not_make_it_unknown() -> None:
    store = await Store.filled()
    nars = NarIdentities(store.content, FullTable())
    assert (await nars.of(store.path.info.node)).size == len(store.path.nar)
    assert nars.unkept == 1


class Turnstile(MemoryBlobService):
    """Counts those who read, and holds them until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.readers = 0
        self.left = 0
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def open_read(
        self, digest: Digest, offset: int = 0, length: int | None = None, size: int | None = None
    ) -> ByteStream | None:
        self.readers += 1
        self.reached.set()
        try:
            await self.opened.wait()
        finally:
            self.left += 1
        return await super().open_read(digest, offset, length, size)


async def test_those_who_ask_at_once_share_one_rendering() -> None:
    blobs = Turnstile()
    node = FileNode(await blobs.put(b"data"), 4)
    nars = NarIdentities(Content(blobs, Store().directories), MemoryKeyValue())
    asking = [asyncio.create_task(nars.of(node)) for _ in range(10)]
    await blobs.reached.wait()
    asking[0].cancel()
    blobs.opened.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert len(set(answers[1:])) == 1
    assert blobs.readers == 1


async def test_when_all_have_left_nothing_is_rendered_any_more() -> None:
    blobs = Turnstile()
    node = FileNode(await blobs.put(b"data"), 4)
    nars = NarIdentities(Content(blobs, Store().directories), MemoryKeyValue())
    asking = asyncio.create_task(nars.of(node))
    await blobs.reached.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert blobs.left == 1
