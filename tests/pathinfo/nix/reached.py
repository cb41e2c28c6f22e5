"""Upstreams as the tests of the transport reach them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tvixstore.nix import nixbase32
from tvixstore.pathinfo.nix.settings import UpstreamSettings
from tvixstore.pathinfo.nix.transports import open_upstream
from tvixstore.pools import Pools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tvixstore.pathinfo.nix.upstream import Upstream

HASH = bytes(range(20))
NARINFO = f"/{nixbase32.encode(HASH)}.narinfo"


@asynccontextmanager
async def reach(url: str, **settings: Any) -> AsyncIterator[Upstream]:
    """The upstream at `url`, by the environment's proxies only if `proxy=None` is asked for."""
    pools = Pools(files=2, cpu=1, dns=1)
    settings.setdefault("proxy", "")
    upstream = open_upstream(UpstreamSettings(url=url, name="cache", **settings), pools)
    try:
        yield upstream
    finally:
        await upstream.aclose()
        pools.close()


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and its causes: what a log with a traceback would show."""
    while error is not None:
        yield error
        error = error.__cause__
