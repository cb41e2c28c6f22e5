"""What has hurt other stores, of puts over gRPC; docs/testing.md has the table of all of it."""

from __future__ import annotations

import asyncio

import pytest
from grpclib.const import Status

from tests.blob.filling_up import FillsUp
from tests.directory.samples import LEAF, MIDDLE, OTHER
from tests.http.support import Store
from tests.rpc.raw import RawClient, framed, raw_client
from tests.rpc.support import Served, serving
from tvixstore.castore import Digest
from tvixstore.rpc import methods
from tvixstore.rpc.messages import StatBlob

PART = bytes(range(256)) * 1000
WHOLE = PART * 2


def part(data: bytes) -> bytes:
    return framed(methods.PUT_BLOB.request.encode(data))


async def given_up(served: Served, route: str) -> None:
    """Returns once a call whose client had left was given up."""
    async with asyncio.timeout(10):
        while not served.counted(route, "CANCELLED", "cancelled"):
            for _ in range(10):
                await asyncio.sleep(0)


async def has(client: RawClient, digest: Digest) -> bool:
    stat = methods.STAT_BLOB
    call = await client.call(stat.path(), stat.request.encode(StatBlob(digest)))
    return call.status is Status.OK


@pytest.mark.parametrize("leaver", ["first", "second"])
async def test_who_leaves_a_put_does_not_hurt_another_one_of_the_same_blob(leaver: str) -> None:
    async with serving() as served, raw_client(served.address) as one:
        async with raw_client(served.address) as other:
            clients = [other, one] if leaver == "first" else [one, other]
            numbers = {}
            for client in clients:
                numbers[client] = client.begin(methods.PUT_BLOB.path())
                client.send(numbers[client], part(PART))
                await client.heard()
            other.h2.reset_stream(numbers[other])
            other.flush()
            await given_up(served, "castore.v1.BlobService/Put")
        assert not await has(one, Digest.of(PART))
        one.send(numbers[one], part(PART), end=True)
        assert (await one.ended(numbers[one])).status is Status.OK
        assert await has(one, Digest.of(WHOLE)) and not await has(one, Digest.of(PART))


async def test_a_closure_whose_client_leaves_is_not_at_its_end() -> None:
    put = methods.PUT_DIRECTORY
    async with serving() as served, raw_client(served.address) as client:
        number = client.begin(put.path())
        # What has come is a closure by itself, as far as anybody can see.
        for each in (LEAF, OTHER, MIDDLE):
            client.send(number, framed(put.request.encode(each)))
        await client.heard()
        client.h2.reset_stream(number)
        client.flush()
        await given_up(served, "castore.v1.DirectoryService/Put")
        assert not served.store.directories.directories


async def test_a_store_that_fills_up_in_mid_put_says_so_and_keeps_nothing() -> None:
    blobs = FillsUp()
    store = Store(blobs)
    before = dict(blobs.blobs)
    async with serving(store) as served, raw_client(served.address) as client:
        number = client.begin(methods.PUT_BLOB.path())
        await client.send_all(number, part(PART) * 8)
        assert (await client.ended(number)).status is Status.RESOURCE_EXHAUSTED
        assert blobs.room < 0 and blobs.blobs == before
        blobs.room = 1 << 30
        number = client.begin(methods.PUT_BLOB.path())
        await client.send_all(number, part(PART) * 8)
        assert (await client.ended(number)).status is Status.OK
        assert await has(client, Digest.of(PART * 8))
