"""Many small blobs in one call, from clients that lie, break off or never end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from grpclib.const import Status

from tests.blob.filling_up import FillsUp
from tests.http.support import Store
from tests.rpc.client.support import front, in_memory
from tests.rpc.raw import RawClient, framed, raw_client
from tests.rpc.support import serving
from tests.rpc.test_put_scenarios import given_up, has
from tests.rpc.test_server import EMPTY, STAT
from tvixstore.access import Access
from tvixstore.castore import Digest
from tvixstore.castore.message import bytes_field
from tvixstore.rpc import methods
from tvixstore.rpc.client import GrpcBlobService
from tvixstore.rpc.messages import BLOB_BATCH, BLOB_DIGESTS
from tvixstore.rpc.server import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PUT = methods.PUT_BLOBS.path()
LACKING = methods.LACKING_BLOBS.path()
# So small that a reply names ten digests.
SMALL = Limits(message_bytes=345)


@pytest.fixture
async def client() -> AsyncIterator[RawClient]:
    async with serving() as served, raw_client(served.address) as client:
        yield client


@pytest.mark.parametrize("length", [0, 31, 33])
async def test_a_digest_of_another_length_is_refused(client: RawClient, length: int) -> None:
    call = await client.call(LACKING, bytes_field(1, b"x" * length))
    assert call.status is Status.INVALID_ARGUMENT
    assert "expected 32" in call.headers["grpc-message"]


async def test_nothing_is_lacking_of_nothing_and_a_digest_asked_twice_is_named_once(
    client: RawClient,
) -> None:
    digest = Digest.of(b"absent")
    for asked, lacking in ([], []), ([digest, digest], [digest]):
        (reply,) = (await client.call(LACKING, BLOB_DIGESTS.encode(asked))).messages
        assert BLOB_DIGESTS.decode(reply) == lacking


async def test_a_blob_that_comes_twice_and_an_empty_one_are_named_as_they_came(
    client: RawClient,
) -> None:
    blobs = [b"twice", b"", b"twice"]
    (reply,) = (await client.call(PUT, BLOB_BATCH.encode(blobs))).messages
    assert BLOB_DIGESTS.decode(reply) == [Digest.of(data) for data in blobs]


async def test_who_sends_blobs_for_ever_is_refused_once_no_reply_could_name_them() -> None:
    # The sender does not end its call: only the refusal does.
    async with serving(limits=SMALL) as served, raw_client(served.address) as client:
        number = client.begin(PUT)
        for _ in range(3):
            client.send(number, framed(BLOB_BATCH.encode([b""] * 4)))
        call = await client.ended(number)
        assert call.status is Status.RESOURCE_EXHAUSTED
        assert "at most 10 in a call" in call.headers["grpc-message"]


@pytest.mark.parametrize(
    ("path", "field"), [(PUT, b"\x0a\0"), (LACKING, b"\x78\0"), (STAT, b"\x78\0")]
)
async def test_a_message_of_countless_tiny_fields_is_refused_and_holds_nobody_up(
    client: RawClient, path: str, field: bytes
) -> None:
    # It takes a tenth of a second to take apart; read where it came in, it would be refused first.
    number = client.begin(path)
    await client.send_all(number, framed(field * 125_001))
    assert (await client.call(STAT, EMPTY)).status is Status.OK
    assert client.calls[number].status is None
    call = await client.ended(number)
    assert call.status is Status.INVALID_ARGUMENT
    assert "has more than 125000 fields" in call.headers["grpc-message"]


async def test_a_message_of_bytes_with_much_beside_them_is_refused(client: RawClient) -> None:
    for method in (methods.PUT_BLOB, methods.PUT_BLOBS):
        field = b"\x78\0" * 17
        call = await client.call(method.path(), field)
        assert (call.status is Status.OK) is (method is methods.PUT_BLOBS)


async def test_as_many_blobs_as_a_reply_can_name_are_taken() -> None:
    async with serving(limits=SMALL) as served, raw_client(served.address) as client:
        (reply,) = (await client.call(PUT, BLOB_BATCH.encode([b""] * 10))).messages
        assert len(BLOB_DIGESTS.decode(reply)) == 10


async def test_who_breaks_off_within_a_blob_leaves_nothing_of_it() -> None:
    store = Store()
    async with serving(store) as served, raw_client(served.address) as client:
        number = client.begin(PUT)
        client.send(number, framed(BLOB_BATCH.encode([b"whole"])))
        client.send(number, framed(BLOB_BATCH.encode([b"half" * 100]))[:50])
        client.flush()
        await client.heard()
        client.h2.reset_stream(number)
        client.flush()
        # Its call is over, with its task and all that it had read.
        await given_up(served, "v1.Blobs/Put")
        assert not served.front.activity.requests["grpc"]()
        # The connection still serves, and what was cut short is not there.
        asked = BLOB_DIGESTS.encode([Digest.of(b"half" * 100)])
        (reply,) = (await client.call(LACKING, asked)).messages
        assert BLOB_DIGESTS.decode(reply) == [Digest.of(b"half" * 100)]


@pytest.mark.parametrize("path", [PUT, LACKING])
async def test_who_may_only_read_neither_puts_blobs_nor_holds_any(path: str) -> None:
    store = Store()
    digest = Digest.of(b"data")
    request = BLOB_BATCH.encode([b"data"]) if path == PUT else BLOB_DIGESTS.encode([digest])
    async with (
        serving(store, access=Access.of("read")) as served,
        raw_client(served.address) as client,
    ):
        call = await client.call(path, request)
        assert call.status in (Status.UNAUTHENTICATED, Status.PERMISSION_DENIED)
        assert not await store.content.blobs.has(digest)


async def test_who_stalls_within_a_batch_is_left() -> None:
    async with (
        serving(limits=Limits(stall=0.05)) as served,
        raw_client(served.address) as client,
    ):
        number = client.begin(PUT)
        client.send(number, framed(BLOB_BATCH.encode([b"whole"])))
        client.send(number, framed(BLOB_BATCH.encode([b"half" * 100]))[:50])
        call = await client.ended(number)
        assert call.status is Status.DEADLINE_EXCEEDED
        assert "the client sent nothing for 0.05 s" in call.headers["grpc-message"]
        assert not await has(client, Digest.of(b"half" * 100))


async def test_a_batch_above_the_limit_is_refused_before_it_is_read(client: RawClient) -> None:
    number = client.begin(PUT)
    client.send(number, framed(BLOB_BATCH.encode([b"whole"])))
    client.send(number, b"\0" + (4 * 1024 * 1024 + 1).to_bytes(4, "big"))
    call = await client.ended(number)
    assert call.status is Status.RESOURCE_EXHAUSTED
    assert "message 1 is 4194305 bytes long" in call.headers["grpc-message"]


async def test_a_store_that_fills_up_within_a_batch_says_so() -> None:
    blobs = FillsUp()
    async with serving(Store(blobs)) as served, raw_client(served.address) as client:
        batch = BLOB_BATCH.encode([b"%d" % number * 50_000 for number in range(8)])
        for room, status in ((100, Status.RESOURCE_EXHAUSTED), (1 << 30, Status.OK)):
            blobs.room = room
            number = client.begin(PUT)
            await client.send_all(number, framed(batch))
            assert (await client.ended(number)).status is status


async def test_more_tiny_blobs_than_a_reply_can_name_go_in_several_calls() -> None:
    blobs = [b"x"] * 150_000
    async with front() as door, in_memory(door) as peer:
        assert len(await GrpcBlobService(peer).put_many(blobs)) == len(blobs)
