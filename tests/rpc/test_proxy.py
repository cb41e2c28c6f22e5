"""What daemons of ours ask each other: descriptions without a download, NARs without a fill."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from grpclib.const import Status

from tests.http.support import DescribedPaths, Store, description_of
from tests.rpc.raw import RawCall, RawClient, raw_client
from tests.rpc.support import Served, serving
from tvixstore.nar import NarIdentity
from tvixstore.rpc import methods
from tvixstore.rpc.messages import Describe, OpenNar
from tvixstore.streams import BytesStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(await Store.filled()) as served:
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[RawClient]:
    async with raw_client(served.address) as client:
        yield client


async def describe(client: RawClient, request: Describe) -> RawCall:
    return await client.call(methods.DESCRIBE.path(), methods.DESCRIBE.request.encode(request))


async def open_nar(client: RawClient, request: OpenNar) -> RawCall:
    return await client.call(methods.OPEN_NAR.path(), methods.OPEN_NAR.request.encode(request))


async def test_a_path_is_described_with_its_node_where_that_is_at_hand(
    served: Served, client: RawClient
) -> None:
    info = served.store.path.info
    for wanted in (None, info.nar_sha256):
        (reply,) = (await describe(client, Describe(info.store_path.hash, wanted))).messages
        assert methods.DESCRIBE.reply.decode(reply) == info


async def test_a_description_downloads_nothing() -> None:
    store = await Store.filled()
    # It fails whoever gets instead of describing.
    paths = DescribedPaths(description_of(store.path))
    async with serving(path_infos=paths) as served, raw_client(served.address) as client:
        (reply,) = (await describe(client, Describe(store.path.info.store_path.hash))).messages
        assert methods.DESCRIBE.reply.decode(reply) == paths.description
    assert paths.opened == []


async def test_another_path_or_nar_is_not_found(served: Served, client: RawClient) -> None:
    path_hash = served.store.path.info.store_path.hash
    for wanted in (Describe(b"\0" * 20), Describe(path_hash, b"\0" * 32)):
        assert (await describe(client, wanted)).status is Status.NOT_FOUND


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, None), (0, 0), (5, 10), (300_000, None), (2**63, None), (0, 2**63)],
)
async def test_a_nar_is_read_in_whole_or_in_part(
    served: Served, client: RawClient, offset: int, length: int | None
) -> None:
    info, nar = served.store.path.info, served.store.path.nar
    request = OpenNar(
        info.store_path.hash, NarIdentity(info.nar_size, info.nar_sha256), offset, length
    )
    call = await open_nar(client, request)
    assert call.status is Status.OK
    end = len(nar) if length is None else offset + length
    assert b"".join(map(methods.OPEN_NAR.reply.decode, call.messages)) == nar[offset:end]


async def test_a_nar_of_another_hash_or_size_is_not_to_be_had(
    served: Served, client: RawClient
) -> None:
    info = served.store.path.info
    right = NarIdentity(info.nar_size, info.nar_sha256)
    for wrong in (replace(right, size=1), replace(right, sha256=b"\0" * 32)):
        call = await open_nar(client, OpenNar(info.store_path.hash, wrong))
        assert call.status is Status.NOT_FOUND


async def test_large_pieces_are_cut_into_messages_that_everybody_takes() -> None:
    store = await Store.filled()
    paths = DescribedPaths(description_of(store.path), BytesStream(b"x" * 1_000_000, b"y"))
    info = store.path.info
    async with serving(path_infos=paths) as served, raw_client(served.address) as client:
        request = OpenNar(info.store_path.hash, NarIdentity(info.nar_size, info.nar_sha256))
        call = await open_nar(client, request)
        pieces = [methods.OPEN_NAR.reply.decode(each) for each in call.messages]
        assert [len(piece) for piece in pieces] == [262_144] * 3 + [213_568, 1]
