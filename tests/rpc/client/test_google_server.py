"""Our client at a server by Google, which shares nothing with us but the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.rpc.client.support import peer_at
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Digest
from tvixstore.errors import InvalidData, ReadOnly, Unavailable, Unsupported
from tvixstore.rpc.client import GrpcBlobService, GrpcDirectoryService, Peer
from tvixstore.rpc.methods import PUT_BLOB, READ_BLOB, STAT_BLOB

# grpcio keeps threads and files for the process, and generators that cannot be looked into.
pytestmark = pytest.mark.may_leave("tasks", "threads", "files")

LARGE = b"0123456789abcdef" * (1 << 18)
PIECE = 200_000


class Blobs:
    """BlobService over a dict, with bytes for messages; every Put is refused with `refusal`."""

    def __init__(self, refusal: grpc.StatusCode | None = None) -> None:
        self.blobs = MemoryBlobService()
        self._refusal = refusal

    def handler(self, package: str) -> Any:
        methods = {
            "Stat": grpc.unary_unary_rpc_method_handler(self._stat),
            "Read": grpc.unary_stream_rpc_method_handler(self._read),
            "Put": grpc.stream_unary_rpc_method_handler(self._put),
        }
        return grpc.method_handlers_generic_handler(f"{package}.{STAT_BLOB.service}", methods)

    async def _stat(self, data: bytes, context: Any) -> bytes:
        if STAT_BLOB.request.decode(data).digest not in self.blobs.blobs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "absent")
        return STAT_BLOB.reply.encode([])

    async def _read(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        blob = self.blobs.blobs.get(READ_BLOB.request.decode(data))
        if blob is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "absent")
            return
        for begin in range(0, len(blob), PIECE):
            yield READ_BLOB.reply.encode(blob[begin : begin + PIECE])

    async def _put(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        data = b""
        async for request in requests:
            if self._refusal is not None:
                await context.abort(self._refusal, "as told")
            data += PUT_BLOB.request.decode(request)
        return PUT_BLOB.reply.encode(await self.blobs.put(data))


@asynccontextmanager
async def google(blobs: Blobs, package: str = "tvix", port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((blobs.handler(package),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def google_peer(blobs: Blobs, package: str = "tvix") -> AsyncIterator[Peer]:
    async with google(blobs, package) as port, peer_at(f"grpc+http://127.0.0.1:{port}") as peer:
        yield peer


@pytest.mark.parametrize("package", ["tvix", "snix"])
async def test_blobs_go_there_and_come_back(package: str) -> None:
    async with google_peer(Blobs(), package) as peer:
        service = GrpcBlobService(peer)
        for data in (b"", b"x", LARGE):
            digest = Digest.of(data)
            assert await service.has(digest) is (not data)
            assert await service.read(digest) == (None if data else b"")
            async with await service.open_write() as writer:
                await writer.write(data)
                assert await writer.close() == digest
            assert await service.read(digest) == data
            assert await service.read(digest, len(data)) == data
            stream = await service.open_read(digest, 1000, 1_000_000)
            assert stream is not None
            assert await stream.read_all() == data[1000:1_001_000]


async def test_a_stream_may_be_left_early() -> None:
    blobs = Blobs()
    digest = await blobs.blobs.put(LARGE * 8)
    async with google_peer(blobs) as peer:
        for _ in range(20):
            stream = await GrpcBlobService(peer).open_read(digest, size=1)
            assert stream is not None
            async with stream:
                assert LARGE.startswith((await anext(stream))[: len(LARGE)])
        assert await GrpcBlobService(peer).has(digest)


async def test_what_it_does_not_know_is_unsupported() -> None:
    async with google_peer(Blobs()) as peer:
        with pytest.raises(Unsupported):
            await GrpcDirectoryService(peer).get(Digest.of(b""))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidData),
        (grpc.StatusCode.PERMISSION_DENIED, ReadOnly),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Unavailable),
    ],
)
async def test_a_put_may_be_refused_while_it_is_sent(
    status: grpc.StatusCode, error: type[Exception]
) -> None:
    async with google_peer(Blobs(status)) as peer:
        with pytest.raises(error, match="as told"):
            async with await GrpcBlobService(peer).open_write() as writer:
                for _ in range(64):
                    await writer.write(LARGE)
                await writer.close()


async def test_a_server_that_says_good_bye_and_comes_back_is_reached_again() -> None:
    blobs = Blobs()
    digest = await blobs.blobs.put(LARGE)
    async with google(blobs) as port:
        pass
    async with peer_at(f"grpc+http://127.0.0.1:{port}") as peer:
        for _ in range(2):
            async with google(blobs, port=port):
                assert await GrpcBlobService(peer).read(digest) == LARGE
            with pytest.raises(Unavailable):
                await GrpcBlobService(peer).has(digest)
