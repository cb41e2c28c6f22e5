"""A running composition: everything that a graph needs to work, opened and closed in order."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from tvixstore import __version__
from tvixstore.activity import Activity
from tvixstore.castore import SizeRule
from tvixstore.compose.beside import beside
from tvixstore.compose.build import Builder
from tvixstore.compose.config import Config
from tvixstore.compose.counting import home, why_uncounted
from tvixstore.compose.graph import Graph
from tvixstore.compose.health import UpstreamHealth, sum_up
from tvixstore.compose.lower import lower
from tvixstore.compose.make_extras import make_extras
from tvixstore.compose.nodes import LocalNode, NixNode
from tvixstore.compose.stores import Store, Stores
from tvixstore.evict import check, rebuild
from tvixstore.extras import CachedExtras
from tvixstore.http import Inbox, UpstreamStatus
from tvixstore.kv import KeyValue, LmdbEngine, MemoryKeyValue, StateDirectory
from tvixstore.metrics import Metrics
from tvixstore.nar import NarIdentities
from tvixstore.nix import KeyRing
from tvixstore.pathinfo import PathInfoService, RememberedAnswers
from tvixstore.pathinfo.nix import Fills
from tvixstore.pathinfo.receiving import Receiver
from tvixstore.pathinfo.uploads import Uploads
from tvixstore.policy.tasks import end
from tvixstore.pools import Pools
from tvixstore.tree import Content
from tvixstore.upkeep import Holdings, LocalUpkeep, Upkeep


class Composition:
    """What `config` stands for, running. Made by `open`; whoever has it closes it."""

    def __init__(
        self,
        path_infos: PathInfoService,
        content: Content,
        metrics: Metrics,
        state: StateDirectory | None,
        nars: NarIdentities,
        inbox: Inbox,
        extras: CachedExtras,
        pools: Pools,
        upstreams: list[UpstreamHealth],
        upkeep: Upkeep | None,
        activity: Activity,
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
        # Where what is uploaded over HTTP goes.
        self.inbox = inbox
        # Realisations, logs and the like, its own and its substituters'.
        self.extras = extras
        self.pools = pools
        # Of what is kept in `state`.
        self.upkeep = upkeep
        # What is under way in it.
        self.activity = activity
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
            graph = lower(config)
            # Uploads and extras are kept beside their content, where that is counted.
            rows = home(graph) or config.daemon.state
            stores = Stores(pools, metrics, partial(why_uncounted, graph, rows=rows))
            closing.push_async_callback(stores.aclose)
            state, engine, guard, store = None, None, None, None
            if not embedded or needs_state(config, graph):
                store = stores.at(config.daemon.state, config.store)
                state, engine, guard = store.state, store.engine, store.guard
                spool = state.spool
            else:
                spool = Path(closing.enter_context(TemporaryDirectory(prefix="tvixstore-")))
            remembered = RememberedAnswers(_table(engine, "remembered"))
            closing.push_async_callback(remembered.aclose)
            activity = Activity()
            fills = Fills(
                spool,
                pools,
                metrics,
                admission=guard,
                max_downloads=config.daemon.max_downloads,
                verify_ahead=config.daemon.verify_ahead,
                sizes=SizeRule(config.daemon.directory_sizes),
                activity=activity,
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
            path_infos = builder.path_infos(graph.served)
            content = builder.content()
            nars = builder.nars()
            sizes = SizeRule(config.daemon.directory_sizes)
            required = config.daemon.require_signature
            # What was uploaded, and extras, have content that no path refers to.
            kept = beside(graph.directories, "uploads", stores, store)
            uploads = Uploads(kept.table, kept.roots)
            closing.push_async_callback(uploads.aclose)
            inbox = Inbox(
                Receiver(content, pools, spool, sizes, activity),
                uploads,
                KeyRing(required) if required else None,
            )
            extras = make_extras(builder, beside(graph.blobs, "extras", stores, store))
            upkeep = None if store is None else _upkeep(builder, path_infos, store)
            for peer in builder.connecting:
                await peer.connect()
            upstreams = list(builder.health.values())
            activity.upstreams = lambda: upstreams
            summing = asyncio.create_task(sum_up(upstreams), name="sum up upstreams")
            sweeping = asyncio.create_task(uploads.keep_sweeping(), name="sweep uploads")
            closing.push_async_callback(end, [summing, sweeping])
            return cls(
                path_infos,
                content,
                metrics,
                state,
                nars,
                inbox,
                extras,
                pools,
                upstreams,
                upkeep,
                activity,
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


class _Accounts:
    """What eviction counted in one store."""

    def __init__(self, store: Store, pools: Pools) -> None:
        self._store = store
        self._pools = pools

    async def check(self) -> list[str]:
        # Files are looked at by whoever goes through the chunks.
        return await check(self._store.references, None, self._pools)

    async def rebuild(self) -> object:
        return await rebuild(self._store.references)


def _upkeep(builder: Builder, root: PathInfoService, store: Store) -> Upkeep:
    """Upkeep of what `builder` has built over the daemon's state."""
    path = builder.daemon.state
    place = path.resolve()
    holdings = Holdings(
        path,
        builder.pools,
        root,
        builder.nars(),
        store.engine.table,
        blobs=builder.shared(("blobs", place)),
        directories=builder.shared(("directories", place)),
        path_infos=builder.shared(("path infos", place)),
        accounts=_Accounts(store, builder.pools),
        holds=builder.stores.holds,
    )
    return LocalUpkeep(holdings)


def _table(engine: LmdbEngine | None, name: str) -> KeyValue:
    return MemoryKeyValue() if engine is None else engine.table(name)
