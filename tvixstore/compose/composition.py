"""A running composition: everything that a graph needs to work, opened and closed in order."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from tvixstore import __version__
from tvixstore.castore import SizeRule
from tvixstore.compose.build import Builder
from tvixstore.compose.config import Config
from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.health import UpstreamHealth, sum_up
from tvixstore.compose.lower import lower
from tvixstore.compose.nodes import LocalNode, NixNode
from tvixstore.compose.stores import Stores
from tvixstore.http import UpstreamStatus
from tvixstore.kv import KeyValue, LmdbEngine, MemoryKeyValue, StateDirectory
from tvixstore.metrics import Metrics
from tvixstore.nar import NarIdentities
from tvixstore.pathinfo import PathInfoService, RememberedAnswers
from tvixstore.pathinfo.nix import Fills
from tvixstore.policy.tasks import end
from tvixstore.pools import Pools
from tvixstore.tree import Content


class Composition:
    """What `config` stands for, running. Made by `open`; whoever has it closes it."""

    def __init__(
        self,
        path_infos: PathInfoService,
        content: Content,
        metrics: Metrics,
        state: StateDirectory | None,
        nars: NarIdentities,
        pools: Pools,
        upstreams: list[UpstreamHealth],
        closing: AsyncExitStack,
        forget_absences: Callable[[], None] = lambda: None,
    ) -> None:
        self.path_infos = path_infos
        self.content = content
        self.metrics = metrics
        # None of its own: nothing in it needs to be kept.
        self.state = state
        # What the NARs of trees in `content` are known by.
        self.nars = nars
        self.pools = pools
        self._upstreams = upstreams
        self._closing = closing
        # Has every node forget what it remembers as absent.
        self.forget_absences = forget_absences

    @classmethod
    async def open(cls, config: Config, *, embedded: bool = False) -> Composition:
        """Opens the state and builds the services; asks no upstream anything.

        The daemon has a state in any case; `embedded`, only where a node has something to keep.

        Raises `ConfigError`, one line a mistake, for what cannot be used: the state directory, a
        file that a substituter names; and `Unavailable` where a peer is to be waited for and is not
        there.
        """
        async with AsyncExitStack() as closing:
            metrics = Metrics()
            metrics.build_info.labels(__version__, platform.python_version()).set(1)
            pools = Pools()
            closing.callback(pools.close)
            stores = Stores(pools, metrics)
            closing.push_async_callback(stores.aclose)
            graph = lower(config)
            state, engine, guard = None, None, None
            if not embedded or needs_state(config, graph):
                store = stores.at(config.daemon.state, config.store)
                state, engine, guard = store.state, store.engine, store.guard
                spool = state.spool
            else:
                spool = Path(closing.enter_context(TemporaryDirectory(prefix="tvixstore-")))
            remembered = RememberedAnswers(_table(engine, "remembered"))
            closing.push_async_callback(remembered.aclose)
            fills = Fills(
                spool,
                pools,
                metrics,
                admission=guard,
                max_downloads=config.daemon.max_downloads,
                verify_ahead=config.daemon.verify_ahead,
                sizes=SizeRule(config.daemon.directory_sizes),
            )
            # Closed from the last to the first: no new fills, then none, then no connections.
            closing_upstreams = await closing.enter_async_context(AsyncExitStack())
            closing.push_async_callback(fills.aclose)
            closing_services = await closing.enter_async_context(AsyncExitStack())
            builder = Builder(
                config,
                graph,
                pools=pools,
                metrics=metrics,
                stores=stores,
                remembered=remembered,
                calculated=_table(engine, "calculated"),
                spool=spool,
                fills=fills,
                closing_upstreams=closing_upstreams,
                closing_services=closing_services,
            )
            path_infos = builder.path_infos(ROOT)
            content = builder.content()
            nars = builder.nars()
            for peer in builder.connecting:
                await peer.connect()
            upstreams = list(builder.health.values())
            summing = asyncio.create_task(sum_up(upstreams), name="sum up upstreams")
            closing.push_async_callback(end, [summing])
            return cls(
                path_infos,
                content,
                metrics,
                state,
                nars,
                pools,
                upstreams,
                closing.pop_all(),
                builder.forget_absences,
            )

    def __repr__(self) -> str:
        return repr(self.path_infos)

    def trouble(self) -> str | None:
        """Why it cannot serve any more, if it cannot, for `/readyz`."""
        return None if self.state is None else self.state.trouble()

    def upstream_statuses(self) -> list[UpstreamStatus]:
        """How each substituter is, for `/readyz`."""
        return [upstream.status() for upstream in self._upstreams]

    async def aclose(self) -> None:
        """Cancels fills, writes what waits, closes connections and the state."""
        await self._closing.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def needs_state(config: Config, graph: Graph) -> bool:
    """Whether anything in `graph` keeps something in the daemon's state."""
    return config.graph is None or any(
        isinstance(node, NixNode)
        or (isinstance(node, LocalNode) and node.path.resolve() == config.daemon.state.resolve())
        for _, _, node in graph.nodes()
    )


def _table(engine: LmdbEngine | None, name: str) -> KeyValue:
    return MemoryKeyValue() if engine is None else engine.table(name)
