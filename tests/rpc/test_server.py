"""Where the door listens, whom it refuses, and how calls and the server itself come to an end."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from grpclib.const import Status

from tests.http.support import (
    DescribedPaths,
    FailingPaths,
    ScriptedStream,
    Store,
    StuckPaths,
    description_of,
)
from tests.rpc.raw import framed, raw_client
from tests.rpc.support import serving
from tvixstore.access import Access
from tvixstore.blob import BlobWriter, MemoryBlobService
from tvixstore.castore import Digest
from tvixstore.errors import (
    CorruptData,
    Incomplete,
    InvalidData,
    ReadOnly,
    Skipped,
    StorageFull,
    StoreError,
    Unavailable,
    Unsupported,
)
from tvixstore.nar import NarIdentity
from tvixstore.rpc import methods
from tvixstore.rpc.messages import NAR_DATA, Describe, OpenNar, StatBlob
from tvixstore.tree import Content

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tvixstore.pathinfo import PathInfo

GET = methods.GET_PATH_INFO.path()
WANTED = methods.GET_PATH_INFO.request.encode(b"\xff" * 20)
STAT = methods.STAT_BLOB.path()
EMPTY = methods.STAT_BLOB.request.encode(StatBlob(Digest.of(b"")))


async def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "grpc"
    async with serving(address=f"unix:{path}") as served:
        assert served.server.addresses == [f"unix:{path}"]
        async with raw_client(served.address) as client:
            assert (await client.call(STAT, EMPTY)).status is Status.OK
    assert not path.exists()


async def test_a_door_that_is_off_listens_nowhere() -> None:
    async with serving(address="off") as served:
        assert served.server.addresses == []
        await served.server.drain()


@pytest.mark.parametrize(
    "method",
    [methods.PUT_BLOB, methods.PUT_DIRECTORY, methods.PUT_PATH_INFO],
    ids=lambda method: method.path(),
)
async def test_without_writes_a_put_is_refused_before_anything_is_sent(
    method: methods.Method[object, object],
) -> None:
    async with serving(access=Access.of("read")) as served, raw_client(served.address) as client:
        call = await client.ended(client.begin(method.path()))
        assert call.status is Status.PERMISSION_DENIED
        assert (await client.call(STAT, EMPTY)).status is Status.OK


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidData("no"), Status.INVALID_ARGUMENT),
        (Unavailable("no"), Status.UNAVAILABLE),
        (Incomplete("no", b"\0" * 32), Status.UNAVAILABLE),
        (Skipped("no", ["far"], answered=True), Status.UNAVAILABLE),
        (StorageFull("no"), Status.RESOURCE_EXHAUSTED),
        (CorruptData("no"), Status.DATA_LOSS),
        (ReadOnly("no"), Status.PERMISSION_DENIED),
        (Unsupported("no"), Status.UNIMPLEMENTED),
        (StoreError("no"), Status.INTERNAL),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_each_error_has_its_status(error: StoreError, status: Status) -> None:
    async with (
        serving(path_infos=FailingPaths(error)) as served,
        raw_client(served.address) as client,
    ):
        call = await client.call(GET, WANTED)
        assert (call.status, call.headers["grpc-message"]) == (status, "no")


async def test_a_mistake_of_ours_is_internal_and_in_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = FailingPaths(RuntimeError("secret"))
    async with serving(path_infos=broken) as served, raw_client(served.address) as client:
        call = await client.call(GET, WANTED)
        assert call.status is Status.INTERNAL
        assert "secret" not in call.headers["grpc-message"]
    assert "secret" in caplog.text


async def test_messages_hide_secrets_and_stay_short() -> None:
    error = Unavailable(f"https://user:secret@host/x?token=secret {'long ' * 1000}")
    async with (
        serving(path_infos=FailingPaths(error)) as served,
        raw_client(served.address) as client,
    ):
        said = (await client.call(GET, WANTED)).headers["grpc-message"]
        assert "secret" not in said
        assert len(said) < 2000


async def test_calls_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tvixstore")
    async with serving(access_log=True) as served, raw_client(served.address) as client:
        await client.call(STAT, EMPTY)
        await client.call(methods.STAT_BLOB.path("snix"), EMPTY)
        await client.call(GET, WANTED)
        assert served.counted("castore.v1.BlobService/Stat", "OK", "present") == 2
        assert served.counted("store.v1.PathInfoService/Get", "NOT_FOUND", "absent") == 1
    lines = [vars(each)["fields"] for each in caplog.records if each.message == "request"]
    assert [line["status"] for line in lines] == ["OK", "OK", "NOT_FOUND"]
    json.dumps(lines)


async def test_a_deadline_ends_the_work_behind_the_call() -> None:
    stuck = StuckPaths()
    async with serving(path_infos=stuck) as served, raw_client(served.address) as client:
        describe = methods.DESCRIBE.request.encode(Describe(b"\1" * 20))
        call = await client.call(methods.DESCRIBE.path(), describe, grpc_timeout="50m")
        assert call.status is Status.DEADLINE_EXCEEDED
        assert stuck.cancelled.is_set()
        assert (await client.call(STAT, EMPTY)).status is Status.OK


@pytest.mark.parametrize("how", ["reset", "hang up"])
async def test_a_client_that_leaves_ends_the_work_behind_its_call(how: str) -> None:
    stuck = StuckPaths()
    async with serving(path_infos=stuck) as served, raw_client(served.address) as client:
        describe = methods.DESCRIBE.request.encode(Describe(b"\1" * 20))
        number = client.begin(methods.DESCRIBE.path())
        client.send(number, framed(describe), end=True)
        await stuck.asked.wait()
        if how == "reset":
            client.h2.reset_stream(number)
            client.flush()
        else:
            client.writer.transport.abort()
        await stuck.cancelled.wait()


class ScopedPaths(StuckPaths):
    """Cleans up within a cancel scope, as anyio's users do."""

    def __init__(self) -> None:
        super().__init__()
        self.cleaned = asyncio.Event()

    async def get(self, path_hash: bytes) -> PathInfo | None:
        self.asked.set()
        try:
            with anyio.move_on_after(3600):
                await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, 0)
            self.cleaned.set()
        return None


@pytest.mark.parametrize("how", ["reset", "hang up", "deadline"])
async def test_scopes_work_in_a_call_whose_client_left(how: str) -> None:
    # grpclib cancels its own task of the call, and never takes that back.
    scoped = ScopedPaths()
    async with serving(path_infos=scoped) as served, raw_client(served.address) as client:
        number = client.begin(GET, **({"grpc-timeout": "50m"} if how == "deadline" else {}))
        client.send(number, framed(WANTED), end=True)
        await scoped.asked.wait()
        if how == "reset":
            client.h2.reset_stream(number)
            client.flush()
        elif how == "hang up":
            client.writer.transport.abort()
        await scoped.cleaned.wait()


def nar_of(store: Store) -> bytes:
    info = store.path.info
    identity = NarIdentity(info.nar_size, info.nar_sha256)
    return methods.OPEN_NAR.request.encode(OpenNar(info.store_path.hash, identity))


async def test_a_nar_goes_out_as_it_comes_in_and_is_left_when_the_client_leaves() -> None:
    store, never = await Store.filled(), asyncio.Event()
    stream = ScriptedStream(b"first", never)
    paths = DescribedPaths(description_of(store.path), stream)
    async with serving(store, path_infos=paths) as served, raw_client(served.address) as client:
        number = client.begin(methods.OPEN_NAR.path())
        client.send(number, framed(nar_of(store)), end=True)
        call = client.calls[number]
        await client.until(lambda: call.messages == [NAR_DATA.encode(b"first")])
        client.h2.reset_stream(number)
        client.flush()
        await stream.closed.wait()


async def test_a_stream_that_breaks_ends_with_a_status_after_what_came() -> None:
    store = await Store.filled()
    stream = ScriptedStream(b"first", CorruptData("liar"))
    paths = DescribedPaths(description_of(store.path), stream)
    async with serving(store, path_infos=paths) as served, raw_client(served.address) as client:
        call = await client.call(methods.OPEN_NAR.path(), nar_of(store))
        assert call.status is Status.DATA_LOSS
        assert call.messages == [NAR_DATA.encode(b"first")]
        assert stream.closed.is_set()


class Gate(MemoryBlobService):
    """Its writers take nothing while it is shut, and say when they are let go of."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.aborted = asyncio.Event()

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return _Gated(self, await super().open_write(boundaries))


class _Gated(BlobWriter):
    def __init__(self, gate: Gate, inner: BlobWriter) -> None:
        self._gate = gate
        self._inner = inner

    async def write(self, data: bytes) -> None:
        self._gate.reached.set()
        await self._gate.opened.wait()
        await self._inner.write(data)

    async def close(self) -> Digest:
        return await self._inner.close()

    async def abort(self) -> None:
        await self._inner.abort()
        self._gate.aborted.set()


async def test_a_put_whose_client_leaves_leaves_nothing() -> None:
    gate, store = Gate(), Store()
    content = Content(gate, store.directories)
    async with serving(store, content=content) as served, raw_client(served.address) as client:
        number = client.begin(methods.PUT_BLOB.path())
        client.send(number, framed(methods.PUT_BLOB.request.encode(b"data")))
        await gate.reached.wait()
        client.h2.reset_stream(number)
        client.flush()
        await gate.aborted.wait()
    assert list(gate.blobs.values()) == [b""]


async def test_a_drain_lets_calls_end_and_refuses_new_ones() -> None:
    gate, store = Gate(), Store()
    content = Content(gate, store.directories)
    async with (
        serving(store, content=content) as served,
        raw_client(served.address) as busy,
        raw_client(served.address) as idle,
    ):
        number = busy.begin(methods.PUT_BLOB.path())
        busy.send(number, framed(methods.PUT_BLOB.request.encode(b"data")))
        await gate.reached.wait()
        draining = asyncio.create_task(served.server.drain())
        await idle.hung_up()
        assert idle.goodbye
        refused = await busy.call(STAT, EMPTY)
        assert refused.status is Status.UNAVAILABLE
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(served.address.rsplit(":", 1)[1]))
        assert not draining.done()
        gate.opened.set()
        busy.send(number, b"", end=True)
        assert (await busy.ended(number)).status is Status.OK
        await draining
        await busy.hung_up()
        assert busy.goodbye


async def test_a_drain_cancels_what_is_left_at_its_end() -> None:
    scoped = ScopedPaths()
    async with (
        serving(path_infos=scoped, drain_timeout=0.05) as served,
        raw_client(served.address) as client,
    ):
        number = client.begin(GET)
        client.send(number, framed(WANTED), end=True)
        await scoped.asked.wait()
        await served.server.drain()
        assert scoped.cleaned.is_set()
        assert (await client.ended(number)).status is Status.UNAVAILABLE


async def test_closing_without_a_drain_cancels_at_once_and_says_so() -> None:
    scoped = ScopedPaths()
    async with serving(path_infos=scoped) as served, raw_client(served.address) as client:
        number = client.begin(GET)
        client.send(number, framed(WANTED), end=True)
        await scoped.asked.wait()
        await served.server.aclose()
        assert scoped.cleaned.is_set()
        assert (await client.ended(number)).status is Status.UNAVAILABLE
        await client.hung_up()
        assert client.goodbye
