"""Peers over the front door: in memory, and over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from grpclib.testing import ChannelFor

from tests.pathinfo.samples import KEYS
from tvixstore.access import Access
from tvixstore.blob import BlobService, MemoryBlobService
from tvixstore.directory import DirectoryService, MemoryDirectoryService
from tvixstore.kv import MemoryKeyValue
from tvixstore.metrics import Metrics
from tvixstore.nar import NarIdentities
from tvixstore.pathinfo import MemoryPathInfoService, PathInfoService
from tvixstore.pathinfo.nix import Fills
from tvixstore.pools import Pools
from tvixstore.rpc.client import Peer
from tvixstore.rpc.codec import WireCodec
from tvixstore.rpc.server import GrpcFront, serve, services
from tvixstore.tree import Content


@asynccontextmanager
async def front(
    blobs: BlobService | None = None,
    directories: DirectoryService | None = None,
    path_infos: PathInfoService | None = None,
) -> AsyncIterator[GrpcFront]:
    """A front door over services, in memory if they are not given, where anything may be put."""
    content = Content(blobs or MemoryBlobService(), directories or MemoryDirectoryService())
    pools = Pools(files=1, cpu=1, dns=1)
    nars = NarIdentities(content, MemoryKeyValue())
    try:
        yield GrpcFront(
            path_infos=path_infos or MemoryPathInfoService(content, KEYS),
            content=content,
            nars=nars,
            metrics=Metrics(),
            pools=pools,
            access=Access.of("read", "write"),
        )
    finally:
        await nars.aclose()
        pools.close()


@asynccontextmanager
async def in_memory(
    front: GrpcFront, only: str | None = None, **settings: Any
) -> AsyncIterator[Peer]:
    """A peer that reaches `front` without a socket, over one connection.

    With `only` (`tvix`, `snix`) it is a daemon of those, which has no other names and no proxy.
    """
    served = [
        service
        for service in services(front)
        if only is None or all(path.startswith(f"/{only}.") for path in service.handlers)
    ]
    async with ChannelFor(served, codec=WireCodec()) as channel:
        yield Peer("memory", lambda: channel, connections=1, **settings)


@asynccontextmanager
async def over_socket(front: GrpcFront, **settings: Any) -> AsyncIterator[Peer]:
    """A peer that reaches `front` over TCP, on loopback."""
    server = await serve(front, "127.0.0.1:0", 5.0)
    try:
        async with peer_at(f"grpc+http://{server.addresses[0]}", **settings) as peer:
            yield peer
    finally:
        await server.aclose()


@asynccontextmanager
async def peer_at(url: str, **settings: Any) -> AsyncIterator[Peer]:
    peer = Peer.at(url, **settings)
    try:
        yield peer
    finally:
        await peer.aclose()


@asynccontextmanager
async def fills_in(folder: Path) -> AsyncIterator[Fills]:
    """The table of fills of a composition that has only this; its spool is in `folder`."""
    pools = Pools(files=2, cpu=2, dns=1)
    fills = Fills(folder, pools, Metrics())
    try:
        yield fills
    finally:
        await fills.aclose()
        pools.close()
