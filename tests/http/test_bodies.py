"""Bodies: what fails before the first byte, what breaks off, who leaves, who reads slowly."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.http.support import (
    DescribedPaths,
    ScriptedStream,
    Store,
    client_of,
    connected,
    counted,
    description_of,
    front_of,
    link_of,
    serving,
    store_path,
)
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode
from tvixstore.errors import CorruptData, Incomplete, StoreError, Unavailable

if TYPE_CHECKING:
    from tvixstore.castore import Node

NOBODYS = Digest(bytes(32))


async def test_a_nar_that_nobody_has_any_more_is_404() -> None:
    store = await Store.filled()
    async with client_of(front_of(DescribedPaths(description_of(store.path), None))) as client:
        reply = await client.get(store.path.by_hash)
    assert reply.status == 404
    assert "content-range" not in reply.headers
    assert "immutable" not in reply.headers.get("cache-control", "")


@pytest.mark.parametrize(
    "error", [Unavailable("reset"), CorruptData("wrong hash"), Incomplete("gone", bytes(32))]
)
async def test_a_stream_that_fails_before_its_first_byte_is_503(error: StoreError) -> None:
    store = await Store.filled()
    stream = ScriptedStream(error)
    async with client_of(front_of(DescribedPaths(description_of(store.path), stream))) as client:
        reply = await client.get(store.path.by_hash)
        after = await client.get("/healthz")
    assert reply.status == 503
    assert stream.closed.is_set()
    assert after.status == 200


async def test_a_stream_without_a_byte_is_503() -> None:
    store = await Store.filled()
    front = front_of(DescribedPaths(description_of(store.path), ScriptedStream()))
    async with client_of(front) as client:
        assert (await client.get(store.path.by_hash)).status == 503


ENDS: dict[str, list[bytes | Exception]] = {
    "failing": [Unavailable("upstream reset")],
    "corrupt": [CorruptData("wrong NAR hash")],
    "incomplete": [Incomplete("blob is missing", bytes(32))],
    "unexpected": [KeyError("bug")],
    "short": [],
    "one byte short": [b"x" * (300_000 - 100_001)],
    "long": [b"x" * 300_000],
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_body_that_cannot_be_completed_breaks_the_connection(
    end: list[bytes | Exception], caplog: pytest.LogCaptureFixture
) -> None:
    store = await Store.filled()
    assert len(store.path.nar) > 300_000
    stream = ScriptedStream(store.path.nar[:50_000], store.path.nar[50_000:100_000], *end)
    front = front_of(DescribedPaths(description_of(store.path), stream))
    async with client_of(front) as client:
        reply = await client.get(store.path.by_hash)
        rest = await client.reader.read()
    assert reply.status == 200
    assert not reply.whole
    assert rest == b""
    assert stream.closed.is_set()
    assert counted(front, "requests_total", route="nar", status="200", answer="broken") == 1
    assert "request.broken_off" in [record.getMessage() for record in caplog.records]


async def test_a_blob_missing_in_mid_body_breaks_the_connection() -> None:
    store = await Store.filled()
    first, second = bytes(500_000), bytes(500_001)
    directory = Directory.of(
        [
            (b"a", FileNode(await store.blobs.put(first), len(first))),
            (b"b", FileNode(await store.blobs.put(second), len(second))),
        ]
    )
    await store.directories.put(directory)
    node = DirectoryNode(directory.digest, directory.size)
    path = await store_path(store.path_infos, store.content, "two", node)
    del store.blobs.blobs[Digest.of(second)]
    async with client_of(front_of(store.path_infos, store.content)) as client:
        reply = await client.get(path.by_node)
    assert reply.status == 200
    assert not reply.whole
    assert path.nar.startswith(reply.body)


async def test_a_node_whose_content_is_not_here_is_404_without_a_path() -> None:
    store = await Store.filled()
    nobodys: list[Node] = [FileNode(NOBODYS, 5), DirectoryNode(NOBODYS, 5)]
    async with client_of(front_of(store.path_infos, store.content)) as client:
        for node in nobodys:
            assert (await client.get(link_of(node, 120))).status == 404


async def test_headers_and_first_bytes_go_out_as_soon_as_there_are_any() -> None:
    store = await Store.filled()
    gate = asyncio.Event()
    stream = ScriptedStream(store.path.nar[:10], gate, store.path.nar[10:])
    async with client_of(front_of(DescribedPaths(description_of(store.path), stream))) as client:
        client.send("GET", store.path.by_hash)
        status, _ = await client.read_head()
        assert status == 200
        assert await client.reader.readexactly(10) == store.path.nar[:10]
        gate.set()
        rest = await client.reader.readexactly(len(store.path.nar) - 10)
    assert rest == store.path.nar[10:]


@pytest.mark.parametrize("moment", ["before the first byte", "in mid body"])
async def test_a_client_that_leaves_closes_the_stream(moment: str) -> None:
    store = await Store.filled()
    never = asyncio.Event()
    first = [] if moment == "before the first byte" else [store.path.nar[:10]]
    stream = ScriptedStream(*first, never)
    front = front_of(DescribedPaths(description_of(store.path), stream))
    async with serving(front) as server:
        async with connected(server.addresses[0]) as client:
            client.send("GET", store.path.by_hash)
            await stream.waiting.wait()
        await asyncio.wait_for(stream.closed.wait(), 10)
        async with connected(server.addresses[0]) as client:
            assert (await client.get("/healthz")).status == 200
    assert counted(front, "requests_total", route="nar", status="499", answer="cancelled") == 1


async def test_a_client_that_reads_slowly_does_not_fill_the_memory() -> None:
    store = await Store.filled()
    size = 512 * 1024
    count = 200

    class Endless(ScriptedStream):
        given = 0

        async def __anext__(self) -> bytes:
            if self.given == count:
                raise StopAsyncIteration
            self.given += 1
            await asyncio.sleep(0)
            return bytes(size)

    stream = Endless()
    described = DescribedPaths(
        replace(description_of(store.path), nar_size=size * count),
        stream,
    )
    async with client_of(front_of(described)) as client:
        client.send("GET", store.path.by_hash)
        await client.read_head()
        before = -1
        while stream.given != before:
            before = stream.given
            for _ in range(100):
                await asyncio.sleep(0)
        assert stream.given < count / 2
        assert len(await client.reader.readexactly(size * count)) == size * count
