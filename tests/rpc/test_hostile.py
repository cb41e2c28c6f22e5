"""Clients that announce too much, stall, break the framing, or do not care about anybody else."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from grpclib.const import Status
from hyperframe.frame import DataFrame

from tests.http.support import Store
from tests.rpc.raw import RawClient, framed, raw_client
from tests.rpc.support import serving
from tests.rpc.test_server import EMPTY, GET, STAT, WANTED, Gate, ScopedPaths
from tests.support.until import until
from tvixstore.blob import BlobService, Chunk, MemoryBlobService
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode, SymlinkNode
from tvixstore.rpc import methods
from tvixstore.rpc.messages import BLOB_CHUNKS, BLOB_DATA, READ_BLOB, GetDirectory, StatBlob
from tvixstore.rpc.server import Limits
from tvixstore.tree import Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PUT_BLOB = methods.PUT_BLOB.path()
PUT_DIRECTORY = methods.PUT_DIRECTORY.path()
READ = methods.READ_BLOB.path()


@pytest.fixture
async def client() -> AsyncIterator[RawClient]:
    async with serving() as served, raw_client(served.address) as client:
        yield client


@pytest.mark.parametrize("path", [PUT_BLOB, PUT_DIRECTORY, STAT, methods.PUT_PATH_INFO.path()])
@pytest.mark.parametrize("announced", [4 * 1024 * 1024 + 1, 2**32 - 1])
async def test_a_message_that_is_announced_too_long_is_refused_unread(
    client: RawClient, path: str, announced: int
) -> None:
    number = client.begin(path)
    client.send(number, b"\0" + announced.to_bytes(4, "big"))
    call = await client.ended(number)
    assert call.status is Status.RESOURCE_EXHAUSTED
    assert str(announced) in call.headers["grpc-message"]


async def test_a_message_of_the_limit_is_taken(client: RawClient) -> None:
    number = client.begin(PUT_BLOB)
    data = framed(BLOB_DATA.encode(b"x" * (4 * 1024 * 1024 - 5)))
    await client.send_all(number, data)
    assert (await client.ended(number)).status is Status.OK


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", Status.INVALID_ARGUMENT),
        (b"\0\0", Status.INVALID_ARGUMENT),
        (b"\0\0\0\0\5abc", Status.INVALID_ARGUMENT),
        (b"\0\0\0\0\5", Status.INVALID_ARGUMENT),
        (b"\1\0\0\0\0", Status.UNIMPLEMENTED),
        (b"\7\0\0\0\0", Status.UNIMPLEMENTED),
    ],
    ids=["nothing", "half a prefix", "cut off", "a prefix alone", "compressed", "no such flag"],
)
async def test_broken_framing_ends_the_call_and_nothing_else(
    client: RawClient, sent: bytes, status: Status
) -> None:
    number = client.begin(STAT)
    client.send(number, sent, end=True)
    assert (await client.ended(number)).status is status
    assert (await client.call(STAT, EMPTY)).status is Status.OK


async def test_empty_frames_within_a_message_mean_nothing(client: RawClient) -> None:
    number = client.begin(STAT)
    whole = framed(EMPTY)
    for part in (whole[:3], whole[3:9], whole[9:]):
        client.send(number, part)
        client.writer.write(DataFrame(number).serialize())
        await client.heard()
    client.send(number, b"", end=True)
    assert (await client.ended(number)).status is Status.OK


async def test_frames_that_nobody_knows_mean_nothing(client: RawClient) -> None:
    # Of one byte, of kind 0xEE, without flags, for the connection.
    client.writer.write(b"\0\0\1\xee\0\0\0\0\0?")
    assert (await client.call(STAT, EMPTY)).status is Status.OK


async def test_what_is_not_http2_is_hung_up_on_and_hurts_nobody() -> None:
    async with serving() as served, raw_client(served.address) as client:
        host, port = served.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        assert (await client.call(STAT, EMPTY)).status is Status.OK


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "POST"), (":scheme", "http"), ("te", "trailers")],
        [(":method", "POST"), (":scheme", "http"), (":path", STAT), ("x", "\xe4")],
        [(":method", "POST"), (":scheme", "http"), (":path", STAT), ("connection", "close")],
        [(":method", "POST"), (":scheme", "http"), (":path", STAT), ("te", "gzip")],
    ],
    ids=["no path", "not ASCII", "not of HTTP/2", "trailers refused"],
)
async def test_headers_that_make_no_call_break_off_their_connection_alone(
    headers: list[tuple[str, str]],
) -> None:
    async with (
        serving() as served,
        raw_client(served.address) as hostile,
        raw_client(served.address) as client,
    ):
        hostile.h2.config.normalize_outbound_headers = False
        hostile.h2.send_headers(1, [(key, value.encode("latin-1")) for key, value in headers])
        hostile.flush()
        await hostile.hung_up()
        assert (await client.call(STAT, EMPTY)).status is Status.OK


@pytest.mark.parametrize("timeout", ["1n", "0S", "99999999H"])
async def test_a_deadline_beyond_reason_is_kept_within_it(timeout: str) -> None:
    scoped = ScopedPaths()
    async with serving(path_infos=scoped) as served, raw_client(served.address) as client:
        if timeout.endswith("H"):
            assert (await client.call(STAT, EMPTY, grpc_timeout=timeout)).status is Status.OK
        else:
            call = await client.call(GET, WANTED, grpc_timeout=timeout)
            assert call.status is Status.DEADLINE_EXCEEDED
            assert scoped.cleaned.is_set()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, Status.UNKNOWN),
        ({"grpc-timeout": "soon"}, Status.UNKNOWN),
    ],
)
async def test_headers_that_are_not_of_grpc_are_refused(
    headers: dict[str, str], status: Status
) -> None:
    async with serving() as served, raw_client(served.address) as client:
        assert (await client.call(STAT, EMPTY, **headers)).status is status


async def test_a_client_that_stalls_within_its_request_is_left() -> None:
    limits = Limits(stall=0.05)
    async with serving(limits=limits) as served, raw_client(served.address) as client:
        number = client.begin(PUT_BLOB)
        client.send(number, framed(BLOB_DATA.encode(b"data")) + b"\0\0")
        assert (await client.ended(number)).status is Status.DEADLINE_EXCEEDED


async def test_a_client_that_takes_nothing_is_left() -> None:
    store = Store()
    digest = await store.blobs.put(b"x" * 1_000_000)
    async with (
        serving(store, limits=Limits(stall=0.05)) as served,
        raw_client(served.address) as client,
    ):
        client.reads = False
        call = await client.call(READ, READ_BLOB.encode(digest))
        assert call.status is Status.DEADLINE_EXCEEDED


async def test_a_closure_that_is_too_large_is_refused_and_leaves_nothing() -> None:
    store = Store()
    directories = [
        Directory.of([(b"link", SymlinkNode(b"%d" % number))]).wire for number in range(100)
    ]
    async with (
        serving(store, limits=Limits(closure_bytes=5_000)) as served,
        raw_client(served.address) as client,
    ):
        call = await client.call(PUT_DIRECTORY, *directories)
        assert call.status is Status.RESOURCE_EXHAUSTED
        assert not store.directories.directories


async def test_an_answer_that_does_not_fit_into_a_message_is_refused() -> None:
    store = Store()
    entries = [(b"%04d" % number, SymlinkNode(b"target")) for number in range(1000)]
    large = Directory.of(entries)
    await store.directories.put(large)
    async with (
        serving(store, limits=Limits(message_bytes=1000)) as served,
        raw_client(served.address) as client,
    ):
        wanted = methods.GET_DIRECTORY.request.encode(GetDirectory(large.digest))
        call = await client.call(methods.GET_DIRECTORY.path(), wanted)
        assert call.status is Status.RESOURCE_EXHAUSTED


class ChunkedBlobs(MemoryBlobService):
    """Says that a blob consists of so many chunks."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return [Chunk(digest, 1)] * self.count


@pytest.mark.parametrize(("count", "listed"), [(0, 0), (1, 0), (2, 2), (20, 20), (21, 0)])
async def test_chunks_are_listed_if_there_are_several_and_they_fit(count: int, listed: int) -> None:
    blobs: BlobService = ChunkedBlobs(count)
    content = Content(blobs, Store().directories)
    async with (
        serving(content=content, limits=Limits(message_bytes=1000)) as served,
        raw_client(served.address) as client,
    ):
        wanted = methods.STAT_BLOB.request.encode(StatBlob(Digest.of(b""), send_chunks=True))
        (reply,) = (await client.call(STAT, wanted)).messages
        assert len(BLOB_CHUNKS.decode(reply)) == listed


async def test_a_put_that_stands_still_does_not_hold_up_others() -> None:
    # With a connection's window as large as a stream's, one writer that waits stops them all.
    gate = Gate()
    async with (
        serving(content=Content(gate, Store().directories)) as served,
        raw_client(served.address) as client,
    ):
        stuck = client.begin(PUT_BLOB)
        message = framed(BLOB_DATA.encode(b"x" * 60_000))
        client.send(stuck, message)
        await gate.reached.wait()
        sent = len(message)
        while client.h2.local_flow_control_window(stuck) >= len(message):
            client.send(stuck, message)
            sent += len(message)
        assert sent > 900_000
        assert (await client.call(STAT, EMPTY)).status is Status.OK
        other = client.begin(PUT_BLOB)
        assert client.h2.local_flow_control_window(other) > 900_000
        gate.opened.set()
        client.h2.end_stream(stuck)
        client.flush()
        assert (await client.ended(stuck)).status is Status.OK


async def test_a_reader_that_stands_still_does_not_hold_up_others() -> None:
    store = Store()
    digest = await store.blobs.put(b"x" * 1_000_000)
    async with serving(store) as served, raw_client(served.address) as client:
        # The client has room for more than one stream's worth.
        client.h2.increment_flow_control_window(1 << 24)
        client.flush()
        client.reads = False
        paused = client.begin(READ)
        client.send(paused, framed(READ_BLOB.encode(digest)), end=True)
        await client.until(lambda: len(client.calls[paused].data) == 65535)
        assert (await client.call(STAT, EMPTY)).status is Status.OK
        assert client.calls[paused].status is None


async def test_streams_beyond_the_advertised_number_are_borne_until_that_is_known() -> None:
    scoped = ScopedPaths()
    async with serving(path_infos=scoped) as served, raw_client(served.address) as client:
        assert client.h2.remote_settings.max_concurrent_streams == 100
        client.h2.remote_settings.max_concurrent_streams = 1000
        client.h2.remote_settings.acknowledge()
        numbers = [client.begin(GET) for _ in range(200)]
        for number in numbers:
            client.send(number, framed(WANTED), end=True)
        await scoped.asked.wait()
        assert (await client.call(STAT, EMPTY)).status is Status.OK
        for number in numbers:
            client.h2.reset_stream(number)
        client.flush()
        await scoped.cleaned.wait()


async def test_a_flood_of_streams_costs_the_client_its_connection() -> None:
    scoped = ScopedPaths()
    async with serving(path_infos=scoped) as served, raw_client(served.address) as client:
        client.h2.remote_settings.max_concurrent_streams = 5000
        client.h2.remote_settings.acknowledge()
        for _ in range(1100):
            client.begin(GET)
        await client.hung_up()
        async with raw_client(served.address) as other:
            assert (await other.call(STAT, EMPTY)).status is Status.OK


async def test_of_200_clients_half_leave_in_mid_transfer_and_nothing_stays() -> None:
    store = Store()
    blob = bytes(range(256)) * 4096
    digest = await store.blobs.put(blob)
    async with serving(store) as served:

        async def read(leaves: bool) -> bool:
            async with raw_client(served.address) as client:
                number = client.begin(READ)
                call = client.calls[number]
                client.send(number, framed(READ_BLOB.encode(digest)), end=True)
                if leaves:
                    await client.until(lambda: len(call.data) > 10_000)
                    return True
                await client.ended(number)
                return b"".join(map(BLOB_DATA.decode, call.messages)) == blob

        assert all(await asyncio.gather(*(read(number % 2 == 0) for number in range(200))))
        # What is left, if anything, the leak check of every test finds.
        await served.server.drain()


async def test_a_file_whose_size_is_not_its_blobs_is_no_path() -> None:
    store = Store()
    digest = await store.blobs.put(b"three")
    async with serving(store) as served, raw_client(served.address) as client:
        for size in (0, 4, 6, 2**64 - 1):
            node = methods.CALCULATE_NAR.request.encode(FileNode(digest, size))
            call = await client.call(methods.CALCULATE_NAR.path(), node)
            assert call.status not in (Status.OK, None)


async def test_directories_of_10000_entries_travel() -> None:
    store = Store()
    names = [b"\xff\xfe %05d" % number for number in range(10_000)]
    child = Directory.of([(name, FileNode(Digest.of(name), 7)) for name in names])
    root = Directory.of([(b"large", DirectoryNode(child.digest, child.size))])
    async with serving(store) as served, raw_client(served.address) as client:
        number = client.begin(PUT_DIRECTORY)
        data = framed(child.wire) + framed(root.wire)
        await client.send_all(number, data)
        assert (await client.ended(number)).status is Status.OK
        wanted = methods.GET_DIRECTORY.request.encode(GetDirectory(root.digest, recursive=True))
        call = await client.call(methods.GET_DIRECTORY.path(), wanted)
        assert call.messages == [root.wire, child.wire]


async def test_who_stops_reading_and_leaves_takes_his_calls_with_him(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    digest = await store.blobs.put(os.urandom(8 << 20))
    async with serving(store) as served:
        async with raw_client(served.address) as client:
            # Nothing but the socket holds it back, and nobody reads that.
            client.h2.increment_flow_control_window(1 << 30)
            client.flush()
            numbers = [client.begin(READ) for _ in range(8)]
            for number in numbers:
                client.h2.increment_flow_control_window(1 << 30, number)
                client.send(number, framed(READ_BLOB.encode(digest)), end=True)
            (connection,) = served.server._connections.open
            await until(lambda: not connection.connection.write_ready.is_set())
            calls = connection.calls()
            assert len(calls) == len(numbers)
            for number in numbers:
                client.h2.reset_stream(number)
            client.flush()
            # They are over, and wait until they may say so.
            route = ("castore.v1.BlobService/Read", "CANCELLED", "cancelled")
            await until(lambda: served.counted(*route) == len(numbers))
        done, left = await asyncio.wait(calls, timeout=20)
        assert len(done) == len(calls) and not left
    assert "Traceback" not in caplog.text
