"""Connections over transports that are no sockets: in memory, and with peers that went silent."""

from __future__ import annotations

import asyncio

import pytest
from grpclib.client import UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.testing import ChannelFor
from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.http.support import Store
from tests.rpc.support import front_over
from tests.support.virtual_clock import virtual_clock
from tvixstore.castore import Digest
from tvixstore.rpc import methods
from tvixstore.rpc.codec import WireCodec
from tvixstore.rpc.messages import StatBlob
from tvixstore.rpc.server.connections import Connections
from tvixstore.rpc.server.services import services


async def test_the_services_work_in_grpclibs_own_server_in_memory() -> None:
    store = await Store.filled()
    info = store.path.info
    async with (
        front_over(store) as front,
        ChannelFor(services(front), codec=WireCodec()) as channel,
    ):
        get, listing, stat = methods.GET_PATH_INFO, methods.LIST_PATH_INFOS, methods.STAT_BLOB
        got = UnaryUnaryMethod(channel, get.path("snix"), get.request, get.reply)  # type: ignore[arg-type, var-annotated]
        assert await got(info.store_path.hash) == info
        listed = UnaryStreamMethod(channel, listing.path(), listing.request, listing.reply)  # type: ignore[arg-type, var-annotated]
        assert await listed(None) == [info]
        absent = UnaryUnaryMethod(channel, stat.path(), stat.request, stat.reply)  # type: ignore[arg-type, var-annotated]
        with pytest.raises(GRPCError) as refused:
            await absent(StatBlob(Digest.of(b"absent")))
        assert refused.value.status is Status.NOT_FOUND


class Wire(asyncio.Transport):
    """Takes what is written, and answers pings if it is `alive`."""

    def __init__(self, alive: bool) -> None:
        super().__init__()
        self.protocol: asyncio.Protocol | None = None
        self.closed = asyncio.Event()
        self._alive = alive
        self._peer = H2Connection(H2Configuration())
        self._peer.initiate_connection()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._peer.receive_data(bytes(data))
        if self._alive and self.protocol is not None:
            asyncio.get_running_loop().call_soon(
                self.protocol.data_received, self._peer.data_to_send()
            )

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


@virtual_clock
async def test_a_peer_that_went_silent_is_hung_up_on() -> None:
    connections = Connections([], 10)
    wire = Wire(alive=False)
    wire.protocol = connections()
    wire.protocol.connection_made(wire)
    began = asyncio.get_running_loop().time()
    await wire.closed.wait()
    assert asyncio.get_running_loop().time() - began == 80
    await connections.close()
    assert not connections.open


@virtual_clock
async def test_a_peer_that_answers_stays_connected_however_idle() -> None:
    connections = Connections([], 10)
    wire = Wire(alive=True)
    wire.protocol = connections()
    wire.protocol.connection_made(wire)
    await asyncio.sleep(3600)
    assert not wire.closed.is_set()
    await connections.close()
    assert wire.closed.is_set()
