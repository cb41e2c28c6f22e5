"""A gRPC front door that changes over: calls are of the one they began with, and channels stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from tests.http.support import ScriptedStream, Store
from tests.rpc.google import google_client, message
from tests.rpc.support import front_over, serving
from tvixstore.blob import MemoryBlobService

if TYPE_CHECKING:
    from tvixstore.castore import Digest
    from tvixstore.streams import ByteStream

# grpcio keeps threads and files for the process.
pytestmark = pytest.mark.may_leave("threads", "files")

READ, STAT = "tvix.castore.v1.BlobService/Read", "tvix.castore.v1.BlobService/Stat"


class Slow(MemoryBlobService):
    """Gives a blob in two halves."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def open_read(self, digest: Digest, *_: Any, **__: Any) -> ByteStream | None:
        return ScriptedStream(b"one", self.gate, b"two")


async def test_a_call_goes_on_of_the_front_that_it_began_with() -> None:
    slow, other = Slow(), MemoryBlobService()
    digest = await other.put(b"x")
    async with (
        serving(Store(blobs=slow)) as served,
        front_over(Store(blobs=other)) as new,
        google_client(served.target) as client,
    ):
        old = served.front
        reading = client.begin(READ, [message("tvix.castore.v1.ReadBlobRequest", digest=bytes(32))])
        assert (await asyncio.to_thread(next, reading)).data == b"one"
        watching = client.begin(
            "grpc.health.v1.Health/Watch", [message("grpc.health.v1.HealthCheckRequest")]
        )
        assert (await asyncio.to_thread(next, watching)).status == 1
        asked = message("tvix.castore.v1.StatBlobRequest", digest=digest.raw)
        assert (await client.call(STAT, asked)).status is StatusCode.NOT_FOUND
        served.server.change(new, 5.0)
        # The same channel, whose handlers were made before.
        assert (await client.call(STAT, asked)).status is StatusCode.OK
        # Who watches health holds up nothing.
        assert (old.uses.count, new.uses.count) == (1, 0)
        slow.gate.set()
        rest = await asyncio.to_thread(list, reading)
        assert b"".join(reply.data for reply in rest) == b"two"
        await old.uses.over()
        watching.cancel()
