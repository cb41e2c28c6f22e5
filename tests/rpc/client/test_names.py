"""Where peers are, and by which names they are asked for what."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.pathinfo.samples import add, memory_content
from tests.rpc.client.scripted import Script, fails, says, scripted, stalls
from tests.rpc.client.support import fills_in, front, in_memory
from tvixstore.castore import Digest, FileNode
from tvixstore.errors import ConfigError, CorruptData, Unsupported
from tvixstore.rpc.client import GrpcBlobService, GrpcPathInfoService
from tvixstore.rpc.client.address import Target
from tvixstore.rpc.methods import (
    BLOBS_AT_HAND,
    DESCRIBE,
    GET_PATH_INFO,
    LACKING_BLOBS,
    OPEN_NAR,
    PUT_BLOBS,
    STAT_BLOB,
)

if TYPE_CHECKING:
    from grpclib.server import Stream

DATA = b"some data"
DIGEST = Digest.of(DATA)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("grpc+http://office.example:8000", Target("office.example", 8000)),
        ("grpc+http://office.example", Target("office.example", 80)),
        ("grpc+https://office.example", Target("office.example", 443, tls=True)),
        ("grpc+http://[::1]:8000", Target("::1", 8000)),
        ("grpc+unix:///run/a%20b.sock", Target(path="/run/a b.sock")),
        (
            "grpc+unix:///run/tvix.sock?wait-connect=1",
            Target(path="/run/tvix.sock", wait_connect=True),
        ),
        ("grpc+http://h:1?wait-connect=0", Target("h", 1)),
    ],
)
def test_an_url_says_where_the_peer_is(url: str, target: Target) -> None:
    assert Target.parse(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "http://office.example",
        "grpc+http://office.example/",
        "grpc+http://office.example/path",
        "grpc+http://",
        "grpc+http://office.example:99999",
        "grpc+unix://host/path",
        "grpc+unix:///",
        "grpc+http://h?wait-connect=2",
        "grpc+http://h?else=1",
        "grpc+http://user@h",
    ],
)
def test_an_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Target.parse(url)


@pytest.mark.parametrize("only", ["tvix", "snix"])
async def test_auto_finds_out_by_which_name_and_remembers_it(only: str) -> None:
    async with front() as door, in_memory(door, only) as peer:
        service = GrpcBlobService(peer)
        async with await service.open_write() as writer:
            await writer.write(DATA)
            await writer.close()
        assert await service.read(DIGEST) == DATA
    wrong = "snix" if only == "tvix" else "tvix"
    async with front() as door, in_memory(door, only, protocol=wrong) as peer:
        with pytest.raises(Unsupported):
            await GrpcBlobService(peer).has(DIGEST)


async def test_a_name_that_was_right_is_the_only_one_asked_by() -> None:
    async with scripted({STAT_BLOB: says([])}) as (peer, daemon):
        for _ in range(3):
            assert await GrpcBlobService(peer).has(DIGEST)
        assert daemon.calls == [STAT_BLOB.path("tvix")] * 3


async def test_a_proxy_that_is_not_there_is_asked_once_a_connection(tmp_path: Path) -> None:
    content = memory_content()
    sample = await add(content, "hello", b"hello " * 1000)
    script: Script = {
        DESCRIBE: fails(Status.UNIMPLEMENTED),
        OPEN_NAR: fails(Status.UNIMPLEMENTED),
        GET_PATH_INFO: says(sample.info),
    }
    async with scripted(script) as (peer, daemon), fills_in(tmp_path) as fills:
        service = GrpcPathInfoService(peer, content, fills)
        for _ in range(3):
            assert await service.describe(sample.key) == sample.info
            stream = await service.open_nar(sample.info)
            assert stream is not None
            assert await stream.read_all() == sample.nar
        assert daemon.calls.count(DESCRIBE.path()) == 1
        assert daemon.calls.count(OPEN_NAR.path()) == 1


async def test_many_small_blobs_go_in_a_call_and_are_looked_for_in_another() -> None:
    blobs = [b"%d" % number for number in range(3000)]
    digests = [Digest.of(data) for data in blobs]
    script: Script = {LACKING_BLOBS: says(digests[:2]), PUT_BLOBS: says(digests)}
    async with scripted(script) as (peer, daemon):
        service = GrpcBlobService(peer)
        assert await service.lacking(digests) == set(digests[:2])
        assert await service.put_many(blobs) == digests
        assert daemon.calls == [LACKING_BLOBS.path()] * 2 + [PUT_BLOBS.path()]


async def test_small_blobs_at_hand_come_in_a_call_and_are_held_against_what_was_asked_for() -> None:
    blobs = [b"one", b"other", b""]
    files = [FileNode(Digest.of(data), len(data)) for data in blobs]
    absent = FileNode(DIGEST, len(DATA))
    async with scripted({BLOBS_AT_HAND: says([b"other"], [b"one"])}) as (peer, daemon):
        assert await GrpcBlobService(peer).at_hand([*files, absent]) == [*blobs, None]
        assert daemon.calls == [BLOBS_AT_HAND.path()]
    for answer in ([b"else"], [b"one", b"other", b"one"]):
        async with scripted({BLOBS_AT_HAND: says(answer)}) as (peer, _):
            with pytest.raises(CorruptData, match="sent blobs that were not asked for"):
                await GrpcBlobService(peer).at_hand(files)


async def test_a_daemon_that_says_nothing_more_often_than_it_was_asked_is_left() -> None:
    async with scripted({BLOBS_AT_HAND: stalls([], [], [])}) as (peer, _):
        with pytest.raises(CorruptData, match="sent more replies than it was asked for blobs"):
            await GrpcBlobService(peer).at_hand([FileNode(DIGEST, len(DATA))])


async def test_what_came_before_a_call_broke_is_at_hand() -> None:
    files = [FileNode(Digest.of(data), len(data)) for data in (b"one", b"other")]

    async def breaking(stream: Stream[Any, Any]) -> None:
        await says([b"one"])(stream)
        raise GRPCError(Status.UNAVAILABLE, "going down")

    async with scripted({BLOBS_AT_HAND: breaking}) as (peer, _):
        assert await GrpcBlobService(peer).at_hand(files) == [b"one", None]


async def test_a_daemon_that_has_nothing_at_hand_is_asked_once_a_connection() -> None:
    async with scripted({BLOBS_AT_HAND: fails(Status.UNIMPLEMENTED)}) as (peer, daemon):
        for _ in range(3):
            assert await GrpcBlobService(peer).at_hand([FileNode(DIGEST, len(DATA))]) == [None]
        assert daemon.calls == [BLOBS_AT_HAND.path()]


async def test_a_daemon_that_stores_something_else_than_was_sent_is_found_out() -> None:
    async with scripted({PUT_BLOBS: says([DIGEST])}) as (peer, _):
        for blobs in ([b"other"], [DATA, DATA]):
            with pytest.raises(CorruptData, match="stored other blobs than were sent"):
                await GrpcBlobService(peer).put_many(blobs)


@pytest.mark.parametrize("only", [None, "tvix", "snix"])
async def test_blobs_of_any_size_are_put_together_whoever_the_daemon_is(only: str | None) -> None:
    blobs = [b"", DATA, bytes(1 << 20), DATA, bytes((1 << 20) + 1), *[bytes(400_000)] * 30]
    digests = [Digest.of(data) for data in blobs]
    async with front() as door, in_memory(door, only) as peer:
        service = GrpcBlobService(peer)
        assert await service.lacking(digests) == set(digests[1:])
        assert await service.put_many(blobs) == digests
        assert await service.lacking(digests) == set()
        assert [await door.content.blobs.read(digest) for digest in digests] == blobs


async def test_describing_and_opening_a_nar_asks_for_no_path_info(tmp_path: Path) -> None:
    sample = await add(memory_content(), "hello", b"hello " * 1000)
    script: Script = {DESCRIBE: says(sample.info), OPEN_NAR: says(sample.nar)}
    async with scripted(script) as (peer, daemon), fills_in(tmp_path) as fills:
        service = GrpcPathInfoService(peer, memory_content(), fills)
        description = await service.describe(sample.key)
        assert description is not None
        stream = await service.open_nar(description)
        assert stream is not None
        assert await stream.read_all() == sample.nar
        assert daemon.calls == [DESCRIBE.path(), OPEN_NAR.path()]


async def test_what_a_peer_cannot_list_is_unsupported(tmp_path: Path) -> None:
    async with scripted({}) as (peer, _), fills_in(tmp_path) as fills:
        with pytest.raises(Unsupported):
            async with aclosing(GrpcPathInfoService(peer, memory_content(), fills).list()) as infos:
                assert [info async for info in infos]


async def test_the_peer_calculates_nars_if_it_can(tmp_path: Path) -> None:
    content = memory_content()
    sample = await add(content, "hello", {b"a": b"hello"})
    async with (
        front(content.blobs, content.directories) as door,
        in_memory(door) as peer,
        fills_in(tmp_path) as fills,
    ):
        identity = await GrpcPathInfoService(peer, content, fills).calculate_nar(sample.info.node)
        assert identity is not None
        assert (identity.sha256, identity.size) == (sample.info.nar_sha256, len(sample.nar))
    async with scripted({}) as (peer, _), fills_in(tmp_path) as fills:
        service = GrpcPathInfoService(peer, content, fills)
        assert await service.calculate_nar(sample.info.node) is None
