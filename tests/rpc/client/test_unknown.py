"""Peers that say that they cannot, or say nothing: that is unknown, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from grpclib.const import Status

from tests.directory.samples import LEAF, ROOT
from tests.pathinfo.samples import add, memory_content
from tests.rpc.client.scripted import (
    Script,
    fails,
    says,
    scripted,
    stalls,
)
from tests.rpc.client.support import fills_in
from tvixstore.castore import Digest, Node
from tvixstore.errors import InvalidData, ReadOnly, Unavailable, Unsupported
from tvixstore.nar import NarIdentity
from tvixstore.policy.deadline import bounded
from tvixstore.policy.timeout import Hurried
from tvixstore.rpc.client import GrpcBlobService, GrpcDirectoryService, GrpcPathInfoService
from tvixstore.rpc.methods import (
    CALCULATE_NAR,
    DESCRIBE,
    GET_DIRECTORY,
    GET_PATH_INFO,
    LIST_PATH_INFOS,
    OPEN_NAR,
    PUT_BLOB,
    PUT_DIRECTORY,
    PUT_PATH_INFO,
    READ_BLOB,
    STAT_BLOB,
    Method,
)

HALF = 1 << 20
ONE, TWO = b"1" * HALF, b"2" * HALF
BLOB = Digest.of(ONE + TWO)
UNKNOWN = [status for status in Status if status not in (Status.OK, Status.NOT_FOUND)]


@pytest.mark.parametrize("status", UNKNOWN)
async def test_every_other_status_is_unknown_never_absent(status: Status, tmp_path: Path) -> None:
    methods = (STAT_BLOB, READ_BLOB, GET_DIRECTORY, GET_PATH_INFO, DESCRIBE, OPEN_NAR)
    error = Unsupported if status is Status.UNIMPLEMENTED else Unavailable
    script: Script = {method: fails(status) for method in methods}
    async with scripted(script) as (peer, _), fills_in(tmp_path) as fills:
        path_infos = GrpcPathInfoService(peer, memory_content(), fills)
        for call in (
            GrpcBlobService(peer).has(BLOB),
            GrpcBlobService(peer).read(BLOB),
            GrpcBlobService(peer).read(BLOB, 1),
            GrpcBlobService(peer).chunks(BLOB),
            GrpcDirectoryService(peer).get(ROOT.digest),
            path_infos.get(bytes(20)),
            path_infos.describe(bytes(20)),
        ):
            with pytest.raises(error):
                await call


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status.INVALID_ARGUMENT, InvalidData),
        (Status.PERMISSION_DENIED, ReadOnly),
        (Status.FAILED_PRECONDITION, Unavailable),
        (Status.NOT_FOUND, Unavailable),
        (Status.UNAVAILABLE, Unavailable),
        (Status.INTERNAL, Unavailable),
    ],
)
async def test_what_is_put_may_be_refused(
    status: Status, error: type[Exception], tmp_path: Path
) -> None:
    content = memory_content()
    sample = await add(content, "hello", b"hello")
    script: Script = {method: fails(status) for method in (PUT_BLOB, PUT_DIRECTORY, PUT_PATH_INFO)}
    script = {**script, STAT_BLOB: says([])}
    async with scripted(script) as (peer, _), fills_in(tmp_path) as fills:
        with pytest.raises(error):
            await GrpcBlobService(peer).put(b"small")
        with pytest.raises(error):
            await GrpcBlobService(peer).put(b"large" * HALF)
        with pytest.raises(error):
            await GrpcDirectoryService(peer).put(LEAF)
        with pytest.raises(error):
            await GrpcPathInfoService(peer, content, fills).put(sample.info)


async def test_a_peer_that_says_nothing_is_unknown_after_the_timeout(tmp_path: Path) -> None:
    left = asyncio.Event()
    methods = (STAT_BLOB, READ_BLOB, GET_DIRECTORY, DESCRIBE, LIST_PATH_INFOS)
    script: Script = {method: stalls(left=left) for method in methods}
    async with scripted(script, timeout=0.1) as (peer, _), fills_in(tmp_path) as fills:
        path_infos = GrpcPathInfoService(peer, memory_content(), fills)
        for call in (
            GrpcBlobService(peer).has(BLOB),
            GrpcBlobService(peer).open_read(BLOB, size=1),
            GrpcDirectoryService(peer).get(ROOT.digest),
            path_infos.describe(bytes(20)),
            anext(path_infos.list()),
        ):
            with pytest.raises(Unavailable, match="no answer within"):
                await call
            await left.wait()
            left.clear()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_caller_in_a_hurry_is_told_so() -> None:
    left = asyncio.Event()
    async with scripted({STAT_BLOB: stalls(left=left)}, timeout=30.0) as (peer, _):
        with bounded(0.1), pytest.raises(Hurried, match="before the caller's deadline"):
            await GrpcBlobService(peer).has(BLOB)
        await left.wait()


async def test_a_peer_that_stalls_in_mid_stream_is_unknown_after_the_timeout() -> None:
    left = asyncio.Event()
    script: Script = {READ_BLOB: stalls(ONE, left=left), GET_DIRECTORY: stalls(ROOT, left=left)}
    async with scripted(script, timeout=0.1) as (peer, _):
        stream = await GrpcBlobService(peer).open_read(BLOB, size=1)
        assert stream is not None
        async with stream:
            with pytest.raises(Unavailable, match="no answer within"):
                async for _part in stream:
                    pass
        await left.wait()


async def test_a_patient_call_waits_for_as_long_as_the_peer_is_there() -> None:
    began = asyncio.Event()
    calculated = asyncio.Event()
    node = (await add(memory_content(), "hello", b"hello")).info.node
    method: Method[Node, NarIdentity] = CALCULATE_NAR

    async def calculate(stream: object) -> None:
        began.set()
        await calculated.wait()
        await fails(Status.INVALID_ARGUMENT)(stream)  # type: ignore[arg-type]

    async with scripted({CALCULATE_NAR: calculate}, timeout=0.05) as (peer, _):
        work = peer.ask(method, node, patient=True)
        call: asyncio.Task[NarIdentity | None] = asyncio.create_task(work)
        await began.wait()
        await asyncio.wait([call], timeout=0.2)
        assert not call.done()
        calculated.set()
        with pytest.raises(InvalidData):
            await call
