"""A builder over a composition's text, for tests that want to see nodes other than the roots."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tvixstore.compose import load_text, lower
from tvixstore.compose.build import Builder
from tvixstore.compose.parts import close_services, close_upstreams
from tvixstore.compose.stores import Stores
from tvixstore.kv import MemoryKeyValue
from tvixstore.metrics import Metrics
from tvixstore.pathinfo import RememberedAnswers
from tvixstore.pathinfo.nix import Fills
from tvixstore.pools import Pools


@asynccontextmanager
async def building(text: str, folder: Path) -> AsyncIterator[Builder]:
    """Builds nodes of `text` as they are asked for, and closes them."""
    config = load_text(text, "compose.toml", folder, {})
    async with AsyncExitStack() as closing:
        pools, metrics = Pools(files=2, cpu=1, dns=1), Metrics()
        closing.callback(pools.close)
        stores = Stores(pools, metrics, lambda path: None)
        closing.push_async_callback(stores.aclose)
        remembered = RememberedAnswers(MemoryKeyValue())
        closing.push_async_callback(remembered.aclose)
        fills = Fills(folder, pools, metrics)
        builder = Builder(
            config,
            lower(config),
            pools=pools,
            metrics=metrics,
            stores=stores,
            remembered=remembered,
            calculated=MemoryKeyValue(),
            spool=folder,
            fills=fills,
        )
        closing.push_async_callback(close_upstreams, builder.made)
        closing.push_async_callback(fills.aclose)
        closing.push_async_callback(close_services, builder.made)
        yield builder
