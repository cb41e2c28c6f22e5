"""A composition that others ask by gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tvixstore.compose.composition import Composition
from tvixstore.compose.config import Config
from tvixstore.rpc.server import GrpcFront, serve


@asynccontextmanager
async def served(config: Config) -> AsyncIterator[tuple[Composition, str]]:
    """The composition, and where it answers."""
    async with await Composition.open(config) as composition:
        front = GrpcFront(
            composition.path_infos,
            composition.content,
            composition.nars,
            composition.metrics,
            composition.pools,
        )
        server = await serve(front, "127.0.0.1:0", 1.0)
        try:
            yield composition, server.addresses[0]
        finally:
            await server.aclose()
