"""Blobs of awkward sizes between an independent client and the local store."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from grpc import StatusCode

from tests.blob.stores import local_store
from tests.http.support import Store
from tests.rpc.google import GoogleClient, google_client, message
from tests.rpc.support import serving
from tvixstore.access import Access
from tvixstore.tree import Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.may_leave("threads", "files")

KIB = 1024
PUT, READ, STAT = (f"snix.castore.v1.BlobService/{name}" for name in ("Put", "Read", "Stat"))


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[GoogleClient]:
    async with local_store(tmp_path) as store:
        content = Content(store.blobs, Store().directories)
        async with serving(content=content) as served, google_client(served.target) as client:
            yield client


def pseudo_random(size: int) -> Iterator[bytes]:
    """The same bytes each time, that no compression shrinks, in parts of 1 MiB."""
    for start in range(0, size, KIB * KIB):
        seed = hashlib.sha256(b"%d" % start).digest()
        yield hashlib.shake_128(seed).digest(min(KIB * KIB, size - start))


def chunk(data: bytes) -> bytes:
    wire: bytes = message("snix.castore.v1.BlobChunk", data=data).SerializeToString()
    return wire


async def round_trip(client: GoogleClient, size: int) -> None:
    hasher = blake3()
    for part in pseudo_random(size):
        hasher.update(part)
    digest = hasher.digest()
    put = await client.call(PUT, *[chunk(part) for part in pseudo_random(size)], timeout=600)
    assert put.reply.digest == digest
    wanted = message("snix.castore.v1.ReadBlobRequest", digest=digest)
    read = await client.call(READ, wanted, timeout=600)
    assert read.status is StatusCode.OK
    assert blake3(b"".join(reply.data for reply in read.replies)).digest() == digest
    asked = message("snix.castore.v1.StatBlobRequest", digest=digest, send_chunks=True)
    chunks = (await client.call(STAT, asked)).reply.chunks
    assert sum(each.size for each in chunks) in (0, size)
    for each in chunks[:10]:
        # tvix asks for each before it reads it.
        known = message("snix.castore.v1.StatBlobRequest", digest=each.digest)
        assert (await client.call(STAT, known)).status is StatusCode.OK
        alone = message("snix.castore.v1.ReadBlobRequest", digest=each.digest)
        replies = (await client.call(READ, alone)).replies
        assert sum(len(reply.data) for reply in replies) == each.size


@pytest.mark.parametrize(
    "size", [0, 1, 1023, 1024, 1025, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 3 * KIB * KIB]
)
async def test_a_blob_comes_back_as_it_was_put(client: GoogleClient, size: int) -> None:
    await round_trip(client, size)


@pytest.mark.slow
async def test_a_blob_of_300_mb_comes_back_as_it_was_put(client: GoogleClient) -> None:
    await round_trip(client, 300_000_000)


async def test_a_large_put_that_is_refused_early_says_why() -> None:
    async with serving(access=Access.of("read")) as served, google_client(served.target) as client:
        answer = await client.call(PUT, *[chunk(bytes(KIB * KIB))] * 20)
        assert answer.status is StatusCode.PERMISSION_DENIED
        assert "writes are off" in answer.details
