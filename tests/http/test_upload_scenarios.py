"""What has hurt other stores, of uploads over HTTP; docs/testing.md has the table of all of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.blob.filling_up import FillsUp
from tests.evict.stores import open_store
from tests.http.support import Store, client_of, front_of
from tests.http.test_uploads import TREE, cancelled
from tests.http.test_uploads_held import _is_whole, _put
from tests.http.uploading import Clock, taking
from tests.nar.trees import File
from tests.support.caches import make_path
from tvixstore.access import Access
from tvixstore.http import HttpFront, Inbox
from tvixstore.kv import MemoryKeyValue
from tvixstore.pathinfo.receiving import Receiver
from tvixstore.pathinfo.uploads import Uploads
from tvixstore.pools import Pools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.http.support import Client
    from tvixstore.pathinfo import PathInfoService
    from tvixstore.pathinfo.upload_rows import Upload
    from tvixstore.tree import Content

SHARED = File(bytes(range(256)) * 2000)


def begin(client: Client, target: str, body: bytes, **headers: str) -> None:
    """The headers of an upload, and the beginning of its body."""
    client.send("PUT", target, **headers)
    client.writer.write(body)


def front_for(
    path_infos: PathInfoService, content: Content, uploads: Uploads, pools: Pools, spool: Path
) -> HttpFront:
    inbox = Inbox(Receiver(content, pools, spool), uploads)
    return front_of(path_infos, content, access=Access.of("read", "write"), inbox=inbox)


async def read_so_far(front: HttpFront, size: int) -> None:
    """Returns once the one upload that is under way has read so much of its file."""
    assert front.inbox is not None
    activity = front.inbox.receiver.activity
    async with asyncio.timeout(10):
        while [work["bytes"] for work in activity.snapshot()["fills"]] != [size]:
            for _ in range(10):
                await asyncio.sleep(0)


@pytest.mark.parametrize("leaver", ["first", "second"])
async def test_an_uploader_who_leaves_does_not_hurt_another_one_of_the_same_nar(
    leaver: str, tmp_path: Path
) -> None:
    path = make_path(f"contended-{leaver}", None, TREE)
    half, length = len(path.nar) // 2, str(len(path.nar))
    async with taking(tmp_path) as here:
        async with client_of(here.front) as leaving:
            both = [leaving, here.client]
            for client in both if leaver == "first" else reversed(both):
                begin(client, path.nar_target, path.nar[:half], Content_Length=length)
                await client.writer.drain()
        await cancelled(here.front)
        here.client.writer.write(path.nar[half:])
        assert (await here.client.receive()).status == 201
        assert (await here.put(path.narinfo_target, path.text)).status == 201
        assert await here.fetch(path.nar_target) == path.nar


async def test_an_upload_in_chunks_that_breaks_off_is_not_at_its_end(tmp_path: Path) -> None:
    path = make_path("broken-off-in-chunks", None, TREE)
    async with taking(tmp_path) as here:
        # All of it has come, and not the word that this was all.
        body = b"%x\r\n%s\r\n" % (len(path.nar), path.nar)
        async with client_of(here.front) as leaving:
            begin(leaving, path.nar_target, body, Transfer_Encoding="chunked")
            await leaving.writer.drain()
        await cancelled(here.front)
        assert (await here.client.request("HEAD", path.nar_target)).status == 404
        reply = await here.put(
            path.nar_target, body + b"0\r\n\r\n", Transfer_Encoding="chunked", Content_Length="-"
        )
        assert reply.status == 201


async def test_an_upload_whose_next_chunk_is_none_is_not_at_its_end(tmp_path: Path) -> None:
    path = make_path("garbled", None, TREE)
    async with taking(tmp_path) as here:
        # Who sends it is still there, so nobody is cancelled: what reads has to tell.
        body = b"%x\r\n%s\r\n" % (len(path.nar), path.nar)
        async with client_of(here.front) as garbling:
            begin(garbling, path.nar_target, body, Transfer_Encoding="chunked")
            await garbling.writer.drain()
            await read_so_far(here.front, len(path.nar))
            garbling.writer.write(b"no length\r\n")
            assert (await garbling.receive()).status == 400
        assert (await here.client.request("HEAD", path.nar_target)).status == 404


async def test_a_store_that_fills_up_in_mid_upload_says_so_and_keeps_nothing(
    tmp_path: Path,
) -> None:
    path = make_path("large", None, {b"data": File(bytes(range(256)) * 20_000)})
    blobs, pools, uploads = FillsUp(), Pools(files=1, cpu=1, dns=1), Uploads(MemoryKeyValue())
    store = Store(blobs)
    try:
        before = dict(blobs.blobs)
        front = front_for(store.path_infos, store.content, uploads, pools, tmp_path)
        async with client_of(front) as client:
            reply = await _put(client, path.nar_target, path.nar)
        assert blobs.room < 0 and (reply.status, reply.text) == (507, "no space left\n")
        assert blobs.blobs == before and not store.directories.directories
        blobs.room = 1 << 30
        async with client_of(front) as client:
            assert (await client.request("HEAD", path.nar_target)).status == 404
            assert (await _put(client, path.nar_target, path.nar)).status == 201
    finally:
        await uploads.aclose()
        pools.close()


class LateUploads(Uploads):
    """Before the row of an upload is written, `meanwhile` happens, once."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def add(self, name: str, upload: Upload) -> None:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            await happens()
        await super().add(name, upload)


async def test_what_an_upload_shares_with_an_evicted_path_is_kept(tmp_path: Path) -> None:
    first = make_path("first", None, {b"a": SHARED})
    second = make_path("second", None, {b"a": SHARED, b"b": File(b"text")})
    clock = Clock()
    evicted: list[bytes] = []
    async with open_store(tmp_path / "state") as store:
        uploads = LateUploads(store.engine.table("uploads"), store.references, clock)
        front = front_for(store.path_infos, store.content, uploads, store.pools, tmp_path)

        async def the_first_is_evicted() -> None:
            await store.time_passes()
            gone = await store.freeing.evict([first.narinfo.store_path.hash])
            evicted.extend(gone.paths)
            await store.collector.collect()

        async with client_of(front) as client:
            assert (await _put(client, first.nar_target, first.nar)).status == 201
            assert (await _put(client, first.narinfo_target, first.text)).status == 201
            clock.seconds += 86_401
            await uploads.sweep()
            uploads.meanwhile = the_first_is_evicted
            assert (await _put(client, second.nar_target, second.nar)).status == 201
            assert evicted == [first.narinfo.store_path.hash]
            assert (await _put(client, second.narinfo_target, second.text)).status == 201
        assert await _is_whole(store, second)
        await uploads.aclose()
        assert await store.problems() == []
