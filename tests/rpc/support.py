"""A front door over memory services, an independent client for it, and peers that misbehave."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.http.support import Store
from tvixstore.access import Access
from tvixstore.kv.memory import MemoryKeyValue
from tvixstore.metrics import Metrics
from tvixstore.nar import NarIdentities
from tvixstore.pools import Pools
from tvixstore.rpc.server import GrpcFront, GrpcServer, serve

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


@dataclass
class Served:
    """A store that is served; what it is made of is open to tests."""

    store: Store
    front: GrpcFront
    server: GrpcServer
    table: MemoryKeyValue = field(default_factory=MemoryKeyValue)

    @property
    def address(self) -> str:
        return self.server.addresses[0]

    @property
    def target(self) -> str:
        """As grpcio wants it."""
        return self.address

    def counted(self, route: str, status: str, answer: str) -> float:
        labels = {"front": "grpc", "route": route, "status": status, "answer": answer}
        value = self.front.metrics.registry.get_sample_value("tvixstore_requests_total", labels)
        return value or 0.0


@asynccontextmanager
async def front_over(store: Store, **settings: Any) -> AsyncIterator[GrpcFront]:
    """What a composer does: makes and closes what a front needs beside the services."""
    pools = Pools(files=1, cpu=1, dns=1)
    table = settings.pop("table", None) or MemoryKeyValue()
    content = settings.pop("content", store.content)
    nars = NarIdentities(content, table)
    settings.setdefault("path_infos", store.path_infos)
    # Without another word, everybody may read and put.
    settings.setdefault("access", Access.of("read", "write"))
    try:
        yield GrpcFront(content=content, nars=nars, metrics=Metrics(), pools=pools, **settings)
    finally:
        await nars.aclose()
        pools.close()


@asynccontextmanager
async def serving(
    store: Store | None = None,
    address: str = "127.0.0.1:0",
    drain_timeout: float = 5.0,
    tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    store = store or Store()
    async with front_over(store, **settings) as front:
        server = await serve(front, address, drain_timeout, tls)
        try:
            yield Served(store, front, server)
        finally:
            await server.aclose()
