"""NARs that are compressed as they go out: as a coding that a client takes, and as files."""

from __future__ import annotations

import asyncio
import random
import threading
import zlib
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.support import (
    DescribedPaths,
    ScriptedStream,
    Store,
    StoredPath,
    client_of,
    connected,
    counted,
    description_of,
    front_of,
    serving,
)
from tests.http.test_bodies import ENDS
from tests.nar.trees import Tree, cut, nar_of, trees
from tvixstore.compression import COMPRESSORS, decoder
from tvixstore.errors import CorruptData
from tvixstore.http.encoded import EncodedStream
from tvixstore.nix import NarInfo, nixbase32
from tvixstore.pools import Pools
from tvixstore.streams import BytesStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tvixstore.http import HttpFront

CODINGS = ["zstd", "gzip"]
FORMS = ["by_hash", "by_node"]


@pytest.fixture
def pools() -> Iterator[Pools]:
    pools = Pools(files=1, cpu=2, dns=1)
    yield pools
    pools.close()


def decoded(coding: str, body: bytes) -> bytes:
    """`body`, which has to be whole."""
    if coding == "gzip":
        decoder = zlib.decompressobj(31)
        data = decoder.decompress(body)
        assert decoder.eof and not decoder.unused_data
        return data
    frame = zstandard.ZstdDecompressor().decompressobj()
    data = frame.decompress(body)
    assert frame.eof and not frame.unused_data
    return data


def begun(coding: str, body: bytes) -> bytes:
    """What a client can make of a `body` that broke off."""
    if coding == "gzip":
        return zlib.decompressobj(31).decompress(body)
    return zstandard.ZstdDecompressor().decompressobj().decompress(body)


def zstd_form(path: StoredPath, form: str) -> str:
    """The URL of its NAR as a zstd file."""
    if form == "by_hash":
        return f"{path.by_hash}.zst"
    return path.by_node.replace("?", ".zst?")


def tag(path: StoredPath, coding: str = "") -> str:
    return f'"{nixbase32.encode(path.info.nar_sha256)}{coding and "-"}{coding}"'


@asynccontextmanager
async def filled(pools: Pools, **settings: Any) -> AsyncIterator[tuple[StoredPath, HttpFront]]:
    store = await Store.filled()
    yield store.path, front_of(store.path_infos, store.content, pools=pools, **settings)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("coding", CODINGS)
async def test_a_client_gets_the_coding_that_it_takes(pools: Pools, coding: str, form: str) -> None:
    async with filled(pools) as (path, front), client_of(front) as client:
        target = getattr(path, form)
        reply = await client.get(target, Accept_Encoding=f"br, {coding}")
        assert (reply.status, reply.whole) == (200, True)
        assert decoded(coding, reply.body) == path.nar
        assert len(reply.body) < len(path.nar)
        assert reply.headers["content-encoding"] == coding
        assert reply.headers["content-type"] == "application/x-nix-nar"
        assert reply.headers["etag"] == tag(path, coding)
        assert reply.headers["vary"] == "Accept-Encoding"
        assert reply.headers["transfer-encoding"] == "chunked"
        assert "immutable" in reply.headers["cache-control"]
        assert not {"accept-ranges", "content-length", "content-range"} & reply.headers.keys()
        # The connection is of further use.
        assert (await client.get("/healthz")).status == 200
    sent = counted(front, "response_bytes_total")
    assert sent == len(reply.body) + len(b"alive\n")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_a_nar_is_a_zstd_file_too_whatever_narinfos_say(
    pools: Pools, form: str, compression: str
) -> None:
    async with filled(pools, nar_compression=compression) as (path, front):
        async with client_of(front) as client:
            for headers in ({}, {"Accept_Encoding": "gzip"}, {"Accept_Encoding": "identity;q=0"}):
                reply = await client.get(zstd_form(path, form), **headers)
                assert (reply.status, reply.whole) == (200, True)
                assert decoded("zstd", reply.body) == path.nar
                assert reply.headers["etag"] == tag(path, "zstd")
                assert reply.headers["transfer-encoding"] == "chunked"
                told = {"accept-ranges", "content-length", "content-encoding", "vary"}
                assert not told & reply.headers.keys()
            plain = await client.get(getattr(path, form))
            assert plain.body == path.nar
            assert plain.headers["etag"] == tag(path)


@pytest.mark.parametrize("part", ["bytes=0-9", "bytes=100-", "bytes=-5", "bytes=9999999-"])
async def test_ranges_are_of_the_nar_itself_and_of_no_coding(pools: Pools, part: str) -> None:
    async with filled(pools) as (path, front), client_of(front) as client:
        for coding in CODINGS:
            reply = await client.get(path.by_hash, Range=part, Accept_Encoding=coding)
            assert (reply.status, decoded(coding, reply.body)) == (200, path.nar)
            same = {"Range": part, "If_Range": tag(path, coding), "Accept_Encoding": coding}
            assert (await client.get(path.by_hash, **same)).status == 200
        reply = await client.get(zstd_form(path, "by_hash"), Range=part)
        assert (reply.status, decoded("zstd", reply.body)) == (200, path.nar)
        for accept in ({}, {"Accept_Encoding": "br"}, {"Accept_Encoding": "identity, zstd;q=0.5"}):
            reply = await client.get(path.by_hash, Range=part, **accept)
            assert reply.status == (416 if "9999999" in part else 206)
            assert reply.headers["accept-ranges"] == "bytes"
            assert reply.headers["vary"] == "Accept-Encoding"
        stale = {"Range": part, "If_Range": tag(path, "zstd")}
        reply = await client.get(path.by_hash, **stale)
        assert (reply.status, reply.body) == (200, path.nar)


async def test_a_client_that_has_any_form_that_it_takes_is_told_so(pools: Pools) -> None:
    store = await Store.filled()
    described = DescribedPaths(description_of(store.path))
    path = store.path
    plain, zstd, both = tag(path), tag(path, "zstd"), f"{tag(path)}, {tag(path, 'zstd')}"
    rows = [
        (path.by_hash, "zstd", zstd, zstd),
        (path.by_hash, "zstd", plain, plain),
        (path.by_hash, "zstd", both, zstd),
        (path.by_hash, "gzip", both, plain),
        (path.by_hash, None, both, plain),
        (path.by_hash, "zstd", "*", zstd),
        (path.by_hash, None, "*", plain),
        (zstd_form(path, "by_hash"), None, both, zstd),
        (zstd_form(path, "by_hash"), None, "*", zstd),
    ]
    async with client_of(front_of(described, pools=pools)) as client:
        for target, accept, known, told in rows:
            headers = {} if accept is None else {"Accept_Encoding": accept}
            for method in ("GET", "HEAD"):
                reply = await client.request(method, target, If_None_Match=known, **headers)
                assert (reply.status, reply.headers["etag"]) == (304, told)
                assert ("vary" in reply.headers) == (target == path.by_hash)
                assert not {"content-encoding", "content-type"} & reply.headers.keys()
    assert described.opened == []


@pytest.mark.parametrize(
    ("known", "accept"),
    [("", None), ("-zstd", None), ("-zstd", "gzip"), ("", "zstd, identity;q=0")],
)
async def test_a_form_that_the_client_does_not_take_is_none_that_it_has(
    pools: Pools, known: str, accept: str | None
) -> None:
    async with filled(pools) as (path, front), client_of(front) as client:
        headers = {"If_None_Match": f'{tag(path)[:-1]}{known}"'}
        headers |= {} if accept is None else {"Accept_Encoding": accept}
        expected = 304 if (known, accept) == ("", None) else 200
        assert (await client.get(path.by_hash, **headers)).status == expected


async def test_a_client_that_takes_none_of_ours_is_told_which_there_are(pools: Pools) -> None:
    async with filled(pools) as (path, front), client_of(front) as client:
        reply = await client.get(path.by_hash, Accept_Encoding="br, identity;q=0")
    assert reply.status == 406
    assert "zstd, gzip, identity" in reply.text
    assert reply.headers["vary"] == "Accept-Encoding"
    assert counted(front, "requests_total", route="nar", status="406", answer="invalid") == 1


async def test_head_says_what_get_would_and_opens_nothing(pools: Pools) -> None:
    store = await Store.filled()
    rows: list[tuple[str, dict[str, str]]] = [
        (zstd_form(store.path, "by_hash"), {}),
        (store.path.by_hash, {"Accept_Encoding": "gzip"}),
        (store.path.by_hash, {"Accept_Encoding": "zstd"}),
        (store.path.by_hash, {}),
    ]
    for target, headers in rows:
        described = DescribedPaths(description_of(store.path))
        async with client_of(front_of(described, pools=pools)) as client:
            head = await client.request("HEAD", target, **headers)
            assert described.opened == []
            described.stream = BytesStream(store.path.nar)
            get = await client.get(target, **headers)
        for told in (head.headers, get.headers):
            told.pop("date")
        # Of a body that is not there nothing is chunked.
        get.headers.pop("transfer-encoding", None)
        assert (head.status, head.headers) == (get.status, get.headers)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_body_that_cannot_be_completed_breaks_the_connection(
    pools: Pools, coding: str, end: list[bytes | Exception]
) -> None:
    store = await Store.filled()
    stream = ScriptedStream(store.path.nar[:50_000], store.path.nar[50_000:100_000], *end)
    front = front_of(DescribedPaths(description_of(store.path), stream), pools=pools)
    async with client_of(front) as client:
        reply = await client.get(store.path.by_hash, Accept_Encoding=coding)
    assert (reply.status, reply.whole) == (200, False)
    assert stream.closed.is_set()
    with pytest.raises(AssertionError):
        # Nor would anybody take it for whole who sees no chunks.
        decoded(coding, reply.body)
    assert counted(front, "requests_total", route="nar", status="200", answer="broken") == 1


async def test_over_http_1_0_the_coding_says_what_is_missing(pools: Pools) -> None:
    store = await Store.filled()
    nar = store.path.nar
    for stream, whole in (
        (ScriptedStream(nar), True),
        (ScriptedStream(nar[:100_000], CorruptData("wrong")), False),
    ):
        front = front_of(DescribedPaths(description_of(store.path), stream), pools=pools)
        async with serving(front) as server, connected(server.addresses[0]) as client:
            client.writer.write(f"GET {store.path.by_hash}.zst HTTP/1.0\r\n\r\n".encode())
            _, headers = await client.read_head()
            assert "transfer-encoding" not in headers
            body = bytearray()
            try:
                while data := await client.reader.read(1 << 16):
                    body += data
            except ConnectionError:
                assert not whole
        if whole:
            assert decoded("zstd", bytes(body)) == nar
        else:
            with pytest.raises(AssertionError):
                decoded("zstd", bytes(body))


@pytest.mark.parametrize("coding", CODINGS)
async def test_what_is_there_goes_out_while_the_rest_is_on_its_way(
    pools: Pools, coding: str
) -> None:
    store = await Store.filled()
    gate = asyncio.Event()
    nar = store.path.nar
    stream = ScriptedStream(nar[:10], gate, nar[10:])
    front = front_of(DescribedPaths(description_of(store.path), stream), pools=pools)
    async with client_of(front) as client:
        client.send("GET", store.path.by_hash, Accept_Encoding=coding)
        await client.read_head()
        length = int(await client.reader.readuntil(b"\r\n"), 16)
        assert begun(coding, await client.reader.readexactly(length)) == nar[:10]
        gate.set()


@pytest.mark.parametrize("moment", ["before the first byte", "in mid body"])
async def test_a_client_that_leaves_closes_the_stream(pools: Pools, moment: str) -> None:
    store = await Store.filled()
    first = [] if moment == "before the first byte" else [store.path.nar[:10]]
    stream = ScriptedStream(*first, asyncio.Event())
    front = front_of(DescribedPaths(description_of(store.path), stream), pools=pools)
    async with serving(front) as server:
        async with connected(server.addresses[0]) as client:
            client.send("GET", store.path.by_hash, Accept_Encoding="zstd")
            await stream.waiting.wait()
        await asyncio.wait_for(stream.closed.wait(), 10)
    assert counted(front, "requests_total", route="nar", status="499", answer="cancelled") == 1


async def test_clients_that_come_at_once_have_a_frame_each(pools: Pools) -> None:
    async with filled(pools) as (path, front), serving(front) as server:

        async def fetch(coding: str) -> None:
            async with connected(server.addresses[0]) as client:
                reply = await client.get(path.by_node, Accept_Encoding=coding)
                assert decoded(coding, reply.body) == path.nar

        await asyncio.gather(*(fetch(coding) for coding in CODINGS * 8))


class Endless(ScriptedStream):
    """`count` times `piece`, given as it is asked for."""

    def __init__(self, count: int, piece: bytes) -> None:
        super().__init__()
        self.count, self.piece = count, piece
        self.given = 0

    async def __anext__(self) -> bytes:
        if self.given == self.count:
            raise StopAsyncIteration
        self.given += 1
        await asyncio.sleep(0)
        return self.piece


async def test_the_compressor_waits_for_its_client_and_stops_when_it_leaves(
    pools: Pools,
) -> None:
    store = await Store.filled()
    # Of what does not get smaller, as where content is compressed already.
    stream = Endless(2000, random.Random(1).randbytes(1 << 20))
    size = stream.count * len(stream.piece)
    described = DescribedPaths(replace(description_of(store.path), nar_size=size), stream)
    front = front_of(described, pools=pools)
    async with serving(front) as server:
        async with connected(server.addresses[0]) as client:
            client.send("GET", store.path.by_hash, Accept_Encoding="zstd")
            await client.read_head()
            before = -1
            while stream.given != before:
                before = stream.given
                for _ in range(300):
                    await asyncio.sleep(0.0005)
            assert stream.given < 100
        await asyncio.wait_for(stream.closed.wait(), 10)
        assert stream.given < 100


@settings(max_examples=60, deadline=None)
@given(tree=trees, size=st.sampled_from([1, 7, 64, 1000, None]), coding=st.sampled_from(CODINGS))
async def test_what_is_decoded_is_the_nar(tree: Tree, size: int | None, coding: str) -> None:
    nar = nar_of(tree)
    stream = EncodedStream(BytesStream(*cut(nar, size)), len(nar), coding, None)
    assert decoded(coding, await stream.read_all()) == nar


@pytest.mark.parametrize("coding", CODINGS)
async def test_large_pieces_are_encoded_in_threads_and_small_ones_in_the_loop(
    pools: Pools, coding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvixstore.http import encoded

    threads: dict[int, str] = {}
    inner = encoded._encode

    def noting(compressor: Any, data: bytes, then: Any) -> bytes:
        threads[len(data)] = threading.current_thread().name
        return inner(compressor, data, then)

    monkeypatch.setattr(encoded, "_encode", noting)
    parts = [bytes(10_000), bytes(1 << 20)]
    size = sum(map(len, parts))
    body = await EncodedStream(BytesStream(*parts), size, coding, pools).read_all()
    assert decoded(coding, body) == bytes(size)
    assert threads[10_000] == "MainThread"
    assert threads[1 << 20].startswith("tvixstore-cpu")


@pytest.mark.parametrize("compression", COMPRESSORS)
async def test_every_compression_is_undone_to_the_nar(pools: Pools, compression: str) -> None:
    nar = random.Random(7).randbytes(700_000) + bytes(700_000)
    parts = [nar[start : start + 9_999] for start in range(0, len(nar), 9_999)]
    for sent in (parts, [nar], [nar[:1], nar[1:]]):
        stream = EncodedStream(BytesStream(*sent), len(nar), compression, pools)
        # What Nix calls lzma, and cannot read, goes out as xz.
        undo = decoder("xz" if compression == "lzma" else compression)
        pieces = [piece async for part in stream for piece in undo.feed(part)]
        undo.finish()
        assert b"".join(pieces) == nar


@pytest.mark.parametrize("length", [999, 1001])
async def test_a_nar_of_another_length_is_never_ended(length: int) -> None:
    stream = EncodedStream(BytesStream(bytes(length)), 1000, "zstd", None)
    with pytest.raises(CorruptData):
        await stream.read_all()


async def test_a_stream_that_was_closed_gives_nothing_more() -> None:
    inner = ScriptedStream(bytes(1000))
    stream = EncodedStream(inner, 2000, "gzip", None)
    await stream.__anext__()
    await stream.aclose()
    await stream.aclose()
    assert inner.closed.is_set()
    assert await anext(stream, None) is None


async def test_a_narinfo_says_zstd_and_neither_hash_nor_size_of_the_file(pools: Pools) -> None:
    store = await Store.filled()
    for paths in (store.path_infos, DescribedPaths(description_of(store.path))):
        front = front_of(paths, store.content, nar_compression="zstd", pools=pools)
        async with client_of(front) as client:
            text = (await client.get(f"/{store.path.digits}.narinfo")).text
            narinfo = NarInfo.parse(text)
            assert narinfo.compression == "zstd"
            assert "FileHash" not in text and "FileSize" not in text
            assert narinfo.nar_sha256 == store.path.info.nar_sha256
            form = "by_node" if paths is store.path_infos else "by_hash"
            assert f"/{narinfo.url}" == zstd_form(store.path, form)


async def test_what_is_malformed_is_told_of_both_forms(pools: Pools) -> None:
    async with filled(pools) as (_, front), client_of(front) as client:
        assert (await client.get("/nar/tvix-castore/EAA.zst")).status == 400
        assert (await client.get("/nar/tvix-castore/EAA.xz")).status == 404


async def test_a_client_that_decodes_by_itself_sees_the_nar(pools: Pools) -> None:
    async with filled(pools) as (path, front), serving(front) as server:
        async with aiohttp.ClientSession(f"http://{server.addresses[0]}") as session:
            # What aiohttp asks for by itself, less zstd, which not every version of it decodes.
            for coding in ("gzip", "gzip, deflate, br", "gzip, zstd;q=0.5"):
                asked = {"Accept-Encoding": coding}
                async with session.get(path.by_hash, headers=asked) as response:
                    assert response.headers["Content-Encoding"] == coding.partition(",")[0]
                    assert await response.read() == path.nar
