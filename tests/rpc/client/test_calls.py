"""How calls are made: connections lost and found, leaving, windows."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.blob.stores import local_store
from tests.directory.samples import CLOSURE
from tests.pathinfo.samples import add, memory_content
from tests.rpc.client.scripted import Script, breaks, says, scripted, stalls
from tests.rpc.client.support import fills_in, front, in_memory, over_socket, peer_at
from tvixstore.blob import Chunk, MemoryBlobService
from tvixstore.castore import Digest
from tvixstore.directory import MemoryDirectoryService
from tvixstore.errors import Unavailable
from tvixstore.rpc.client import GrpcBlobService, GrpcDirectoryService, GrpcPathInfoService, Peer
from tvixstore.rpc.client.link import PACED
from tvixstore.rpc.methods import (
    DESCRIBE,
    OPEN_NAR,
    PUT_BLOB,
    READ_BLOB,
    STAT_BLOB,
)
from tvixstore.rpc.server import serve

if TYPE_CHECKING:
    from grpclib.server import Stream

DATA = b"some data"
DIGEST = Digest.of(DATA)
LARGE = b"0123456789abcdef" * (1 << 20)


async def test_no_stat_is_made_for_a_blob_that_is_known_to_be_small() -> None:
    async with scripted({READ_BLOB: says(DATA)}) as (peer, daemon):
        service = GrpcBlobService(peer)
        assert await service.read(DIGEST, len(DATA)) == DATA
        stream = await service.open_read(DIGEST, size=len(DATA))
        assert stream is not None
        assert await stream.read_all() == DATA
        assert set(daemon.calls) == {READ_BLOB.path()}


async def test_chunks_are_asked_for_together_and_come_in_order() -> None:
    parts = [bytes([number]) * 1000 for number in range(8)]
    together = asyncio.Event()
    waiting = 0

    async def answer(stream: Stream[Any, Any]) -> None:
        nonlocal waiting
        digest = await stream.recv_message()
        waiting += 1
        if waiting == len(parts):
            together.set()
        await together.wait()
        await stream.send_message(next(part for part in parts if Digest.of(part) == digest))

    chunks = [Chunk(Digest.of(part), len(part)) for part in parts]
    async with scripted({STAT_BLOB: says(chunks), READ_BLOB: answer}) as (peer, _):
        assert await GrpcBlobService(peer).read(Digest.of(b"".join(parts))) == b"".join(parts)


async def test_puts_go_out_in_messages_that_are_neither_small_nor_large() -> None:
    sizes: list[int] = []

    async def take(stream: Stream[Any, Any]) -> None:
        data = b""
        async for message in stream:
            sizes.append(len(message))
            data += message
        await stream.send_message(Digest.of(data))

    async with scripted({STAT_BLOB: says([]), PUT_BLOB: take}) as (peer, _):
        async with await GrpcBlobService(peer).open_write() as writer:
            for begin in range(0, 1 << 20, 1000):
                await writer.write(LARGE[begin : begin + 1000])
            await writer.write(LARGE[: 1 << 20])
            await writer.close()
    assert all(64 << 10 <= size <= 256 << 10 for size in sizes[:-1])
    assert sizes[-1] <= 256 << 10


async def test_a_peer_that_comes_back_is_reached_again(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/socket"
    blobs = MemoryBlobService()
    await blobs.put(DATA)
    async with front(blobs) as door, peer_at(f"grpc+unix://{tmp_path}/socket") as peer:
        service = GrpcBlobService(peer)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await service.has(DIGEST)
        for _ in range(3):
            server = await serve(door, address, 5.0)
            assert await service.has(DIGEST)
            assert await service.read(DIGEST) == DATA
            await server.aclose()
            with pytest.raises(Unavailable, match="cannot be reached"):
                await service.has(DIGEST)


async def test_a_call_that_a_lost_connection_cut_off_is_made_again() -> None:
    script: Script = {STAT_BLOB: says([]), READ_BLOB: breaks(then=says(DATA))}
    async with scripted(script) as (peer, daemon):
        service = GrpcBlobService(peer)
        assert await service.has(DIGEST)
        assert await service.read(DIGEST, 1) == DATA
        assert daemon.calls.count(READ_BLOB.path()) == 2


async def test_a_connection_lost_in_mid_stream_breaks_the_stream_and_not_its_reader() -> None:
    script: Script = {STAT_BLOB: says([]), READ_BLOB: breaks(LARGE[: 1 << 20])}
    async with scripted(script) as (peer, _):
        service = GrpcBlobService(peer)
        stream = await service.open_read(Digest.of(LARGE), size=1)
        assert stream is not None
        async with stream:
            with pytest.raises(Unavailable, match="cannot be reached"):
                async for _part in stream:
                    pass
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        # Scopes of either kind work in the task that made the call.
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        assert await service.has(DIGEST)


async def test_a_nar_goes_on_over_a_new_connection_where_the_old_one_broke(tmp_path: Path) -> None:
    content = memory_content()
    sample = await add(content, "large", LARGE)
    half = len(sample.nar) // 2
    offsets: list[int] = []

    async def rest(stream: Stream[Any, Any]) -> None:
        request: Any = await stream.recv_message()
        offsets.append(request.offset)
        for begin in range(request.offset, len(sample.nar), 1 << 20):
            await stream.send_message(sample.nar[begin : begin + (1 << 20)])

    parts = [sample.nar[begin : begin + (1 << 18)] for begin in range(0, half, 1 << 18)]
    script: Script = {DESCRIBE: says(sample.info), OPEN_NAR: breaks(*parts, then=rest)}
    async with scripted(script) as (peer, _), fills_in(tmp_path) as fills:
        stream = await GrpcPathInfoService(peer, content, fills).open_nar(sample.info)
        assert stream is not None
        assert await stream.read_all() == sample.nar
    assert len(offsets) == 1
    assert offsets[0] > 0


async def test_leaving_a_stream_early_is_told_to_the_peer() -> None:
    left = asyncio.Event()
    async with scripted({READ_BLOB: stalls(LARGE[: 1 << 20], left=left)}) as (peer, _):
        stream = await GrpcBlobService(peer).open_read(Digest.of(LARGE), size=1)
        assert stream is not None
        assert LARGE.startswith(await anext(stream))
        await stream.aclose()
        await left.wait()
        await stream.aclose()


async def test_a_caller_who_is_cancelled_ends_the_call() -> None:
    began, left = asyncio.Event(), asyncio.Event()

    async def hang(stream: Stream[Any, Any]) -> None:
        began.set()
        await stalls(left=left)(stream)

    async with scripted({STAT_BLOB: hang, READ_BLOB: hang, PUT_BLOB: hang}) as (peer, _):
        service = GrpcBlobService(peer)
        for call in (service.has(DIGEST), service.read(DIGEST, 1), service.put(DATA)):
            task: asyncio.Task[object] = asyncio.create_task(call)
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await left.wait()
            began.clear()
            left.clear()


async def test_a_writer_that_is_left_stores_nothing_and_leaves_nothing() -> None:
    blobs = MemoryBlobService()
    async with front(blobs) as door, over_socket(door) as peer:
        async with await GrpcBlobService(peer).open_write() as writer:
            await writer.write(LARGE)
        assert not await blobs.has(Digest.of(LARGE))


async def test_paused_readers_hang_nobody_else() -> None:
    blobs = MemoryBlobService()
    large, small = await blobs.put(LARGE), await blobs.put(DATA)
    async with front(blobs) as door, over_socket(door) as peer, AsyncExitStack() as stack:
        service = GrpcBlobService(peer)
        for _ in range(2 * PACED + 1):
            stream = await service.open_read(large, size=1)
            assert stream is not None
            await stack.enter_async_context(stream)
            assert LARGE.startswith(await anext(stream))
        assert await service.read(small, len(DATA)) == DATA
        assert await service.has(small)
        other = await service.open_read(large, size=1)
        assert other is not None
        assert await other.read_all() == LARGE


async def test_more_paced_streams_than_there_are_places_are_unknown_in_time() -> None:
    script: Script = {READ_BLOB: stalls(LARGE[: 1 << 20]), STAT_BLOB: says([])}
    async with scripted(script, timeout=0.2) as (peer, _), AsyncExitStack() as stack:
        few = Peer("few", peer._links._dial, timeout=0.2, connections=1)
        stack.push_async_callback(few.aclose)
        service = GrpcBlobService(few)
        for _ in range(PACED):
            stream = await service.open_read(Digest.of(LARGE), size=1)
            assert stream is not None
            await stack.enter_async_context(stream)
        with pytest.raises(Unavailable):
            await service.open_read(Digest.of(LARGE), size=1)
        assert await service.has(DIGEST)


async def test_a_peer_may_have_to_be_there_at_start(tmp_path: Path) -> None:
    url = f"grpc+unix://{tmp_path}/socket?wait-connect=1"
    async with front() as door, peer_at(url) as peer:
        assert peer.wait_connect
        with pytest.raises(Unavailable):
            await peer.connect()
        server = await serve(door, f"unix:{tmp_path}/socket", 5.0)
        await peer.connect()
        await server.aclose()


async def test_names_are_resolved_in_threads_of_ours() -> None:
    async with front() as door, over_socket(door) as by_address:
        port = by_address.name.rpartition(":")[2]
        settings: Any = {"pools": door.pools}
        async with peer_at(f"grpc+http://localhost:{port}", **settings) as peer:
            assert not await GrpcBlobService(peer).has(DIGEST)
        async with peer_at("grpc+http://nowhere.invalid:1", **settings) as peer:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await GrpcBlobService(peer).has(DIGEST)


async def test_a_closed_peer_says_so() -> None:
    async with front() as door, over_socket(door) as peer:
        assert not await GrpcBlobService(peer).has(DIGEST)
        await peer.aclose()
        with pytest.raises(Unavailable, match="closed here"):
            await GrpcBlobService(peer).has(DIGEST)


async def test_many_clients_half_of_them_leaving_leave_nothing() -> None:
    blobs = MemoryBlobService()
    digest = await blobs.put(LARGE)

    async def read(service: GrpcBlobService, leaves: bool) -> None:
        stream = await service.open_read(digest)
        assert stream is not None
        async with stream:
            async for _part in stream:
                if leaves:
                    return

    async with front(blobs) as door, over_socket(door) as peer:
        service = GrpcBlobService(peer)
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(read(service, leaves=number % 10 != 0))
        assert await service.has(digest)


@pytest.mark.slow
async def test_a_blob_of_300_mb_goes_there_and_comes_back(tmp_path: Path) -> None:
    piece = bytes(range(256)) * (1 << 12)
    async with (
        local_store(tmp_path) as store,
        front(store.blobs) as door,
        over_socket(door) as peer,
    ):
        service = GrpcBlobService(peer)
        async with await service.open_write() as writer:
            for number in range(300):
                await writer.write(number.to_bytes(4, "big") + piece)
            digest = await writer.close()
        stream = await service.open_read(digest)
        assert stream is not None
        received = 0
        async with stream:
            async for part in stream:
                received += len(part)
        assert received == 300 * (4 + len(piece))


async def test_empty_frames_and_frames_that_nobody_knows_are_no_end() -> None:
    async def answer(stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        await stream.send_initial_metadata()
        raw = stream._stream
        for _ in range(2):
            assert raw.id is not None
            raw._h2_connection.send_data(raw.id, b"")
            raw._transport.write(raw._h2_connection.data_to_send())
            # Of no length, type 0x21, without flags, of the connection.
            raw._transport.write(b"\0\0\0\x21\0\0\0\0\0")
            await stream.send_message(DATA)

    async with scripted({READ_BLOB: answer}) as (peer, _):
        assert await GrpcBlobService(peer).read(Digest.of(DATA + DATA), 1) == DATA + DATA


async def test_directories_may_be_put_one_after_another() -> None:
    directories = MemoryDirectoryService()
    async with front(directories=directories) as door, in_memory(door) as peer:
        service = GrpcDirectoryService(peer)
        for each in CLOSURE:
            assert await service.put(each) == each.digest
        assert set(directories.directories) == {each.digest for each in CLOSURE}
