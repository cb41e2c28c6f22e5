"""NARs: parts of them, copies that clients have already, and bodies that cannot be completed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.support import (
    ABSENT,
    DescribedPaths,
    FailingPaths,
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
from tvixstore.errors import CorruptData, Incomplete, StorageFull, StoreError, Unavailable
from tvixstore.http.ranges import Part, Unsatisfiable, select
from tvixstore.pathinfo import MemoryPathInfoService

if TYPE_CHECKING:
    from tvixstore.castore import Node
    from tvixstore.pathinfo import PathInfo

NOBODYS = Digest(bytes(32))


async def test_both_forms_serve_the_same_immutable_nar() -> None:
    store = await Store.filled()
    etag = store.path.etag
    async with client_of(front_of(store.path_infos, store.content)) as client:
        for target in (
            store.path.by_hash,
            store.path.by_node,
            store.path.by_node.replace("tvix", "snix"),
        ):
            reply = await client.get(target)
            assert reply.status == 200
            assert reply.body == store.path.nar
            assert reply.headers["content-type"] == "application/x-nix-nar"
            assert reply.headers["accept-ranges"] == "bytes"
            assert reply.headers["etag"] == etag
            assert "immutable" in reply.headers["cache-control"]


async def test_a_node_needs_no_path_info() -> None:
    store = await Store.filled()
    target = link_of(store.path.info.node, len(store.path.nar))
    async with client_of(front_of(DescribedPaths(None), store.content)) as client:
        reply = await client.get(target)
        unknown_path = await client.get(f"{target}&path={ABSENT}")
    async with client_of(front_of(FailingPaths(Unavailable("down")), store.content)) as client:
        unknown = await client.get(f"{target}&path={ABSENT}")
    assert reply.body == unknown_path.body == unknown.body == store.path.nar
    assert reply.headers["etag"] == unknown.headers["etag"] != '""'


@pytest.mark.parametrize("path_known", [True, False])
async def test_another_narsize_than_the_nodes_is_400(path_known: bool) -> None:
    store = await Store.filled()
    path_infos = store.path_infos if path_known else DescribedPaths(None)
    target = link_of(store.path.info.node, len(store.path.nar) + 8, store.path.digits)
    async with client_of(front_of(path_infos, store.content)) as client:
        reply = await client.get(target)
    assert reply.status == 400
    assert str(len(store.path.nar)) in reply.text


async def test_a_client_that_has_the_nar_is_told_so() -> None:
    store = await Store.filled()
    described = DescribedPaths(description_of(store.path))
    etag = store.path.etag
    async with client_of(front_of(described)) as client:
        for tags in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            for method in ("GET", "HEAD"):
                reply = await client.request(method, store.path.by_hash, If_None_Match=tags)
                assert reply.status == 304
                assert reply.headers["etag"] == etag
    assert described.opened == []


@pytest.mark.parametrize("form", ["by_hash", "by_node"])
async def test_a_range_is_that_part(form: str) -> None:
    store = await Store.filled()
    target: str = getattr(store.path, form)
    nar, size = store.path.nar, len(store.path.nar)
    async with client_of(front_of(store.path_infos, store.content)) as client:
        for wanted, expected in (
            ("bytes=0-0", slice(0, 1)),
            ("bytes=100-", slice(100, size)),
            ("bytes=-100", slice(size - 100, size)),
            (f"bytes=-{size + 5}", slice(0, size)),
            (f"BYTES = {size - 1}-{size + 99} ", slice(size - 1, size)),
        ):
            reply = await client.get(target, Range=wanted)
            assert reply.status == 206
            assert reply.body == nar[expected]
            assert (
                reply.headers["content-range"]
                == f"bytes {expected.start}-{expected.stop - 1}/{size}"
            )
        for wanted in (f"bytes={size}-", f"bytes={size + 1}-{size + 2}", "bytes=-0"):
            reply = await client.get(target, Range=wanted)
            assert reply.status == 416
            assert reply.headers["content-range"] == f"bytes */{size}"
        for wanted in ("bytes=9-3", "bytes=-", "bytes=0-1,4-5", "lines=1-2", "bytes=x-", "b" * 99):
            reply = await client.get(target, Range=wanted)
            assert (reply.status, reply.body) == (200, nar)


async def test_a_range_of_another_nar_gets_everything() -> None:
    store = await Store.filled()
    etag = store.path.etag
    async with client_of(front_of(store.path_infos, store.content)) as client:
        same = await client.get(store.path.by_hash, Range="bytes=5-", If_Range=etag)
        for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
            reply = await client.get(store.path.by_hash, Range="bytes=5-", If_Range=other)
            assert reply.status == 200
    assert same.status == 206


@given(data=st.data(), size=st.integers(1, 10**6))
def test_a_selected_part_is_what_rfc_9110_says(data: st.DataObject, size: int) -> None:
    first = data.draw(st.integers(0, 2 * size))
    last = data.draw(st.none() | st.integers(0, 2 * size))
    header = f"bytes={first}-{'' if last is None else last}"
    try:
        part = select(header, None, '"tag"', size)
    except Unsatisfiable:
        assert first >= size
        return
    if last is not None and last < first:
        assert part is None
        return
    end = size if last is None else min(last + 1, size)
    assert part == Part(first, end - first)


async def test_random_parts_are_equal_to_the_same_part_of_the_whole() -> None:
    store = await Store.filled()
    size = len(store.path.nar)
    async with client_of(front_of(store.path_infos, store.content)) as client:
        for seed in range(60):
            first = seed * 7919 * 131 % size
            last = min(first + seed**4, size - 1)
            wanted = f"bytes={first}-{last}"
            for target in (store.path.by_hash, store.path.by_node):
                reply = await client.get(target, Range=wanted)
                assert reply.status == 206
                assert reply.body == store.path.nar[first : last + 1], wanted


async def test_a_part_is_opened_at_its_offset() -> None:
    store = await Store.filled()
    stream = ScriptedStream(store.path.nar[64:96])
    described = DescribedPaths(description_of(store.path), stream)
    async with client_of(front_of(described)) as client:
        reply = await client.get(store.path.by_hash, Range="bytes=64-95")
    assert reply.body == store.path.nar[64:96]
    assert described.opened == [(64, 32)]
    assert stream.closed.is_set()


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
    assert "body broken off" in [record.getMessage() for record in caplog.records]


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


class RefillingPaths(MemoryPathInfoService):
    """Knows a path whose content comes back when it is got."""

    def __init__(
        self, empty: Store, full: Store, *, described: bool = True, error: StoreError | None = None
    ) -> None:
        super().__init__(empty.content)
        self.infos = full.path_infos.infos
        self.empty, self.full = empty, full
        self.described = described
        self.error = error

    async def get(self, path_hash: bytes) -> PathInfo | None:
        if self.error is not None:
            raise self.error
        self.empty.blobs.blobs.update(self.full.blobs.blobs)
        self.empty.directories.directories.update(self.full.directories.directories)
        return await super().get(path_hash)

    async def describe(self, path_hash: bytes, nar_sha256: bytes | None = None) -> PathInfo | None:
        return self.infos.get(path_hash) if self.described else None


@pytest.mark.parametrize("described", [True, False], ids=["path info here", "path info gone too"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_gone_content_is_fetched_again_by_its_path(described: bool, method: str) -> None:
    empty, full = Store(), await Store.filled(f"{described} {method}")
    paths = RefillingPaths(empty, full, described=described)
    async with client_of(front_of(paths, empty.content)) as client:
        reply = await client.request(method, full.path.by_node)
    assert reply.status == 200
    assert int(reply.headers["content-length"]) == len(full.path.nar)
    assert reply.headers["etag"] == full.path.etag
    if method == "GET":
        assert reply.body == full.path.nar


async def test_gone_content_whose_path_has_another_node_by_now_is_404() -> None:
    empty, full = Store(), await Store.filled()
    other = DirectoryNode(NOBODYS, 1)
    async with client_of(front_of(RefillingPaths(empty, full), empty.content)) as client:
        reply = await client.get(link_of(other, len(full.path.nar), full.path.digits))
        absent = await client.get(link_of(other, len(full.path.nar), ABSENT))
    assert (reply.status, absent.status) == (404, 404)


@pytest.mark.parametrize("error", [StorageFull("no room"), Unavailable("upstream down")])
async def test_gone_content_that_cannot_come_back_now_is_503(error: StoreError) -> None:
    empty, full = Store(), await Store.filled()
    paths = RefillingPaths(empty, full, error=error)
    async with client_of(front_of(paths, empty.content)) as client:
        assert (await client.get(full.path.by_node)).status == 503


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
