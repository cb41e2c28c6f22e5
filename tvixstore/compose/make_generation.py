"""Making a generation: the services of a graph, and what goes with them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tvixstore.castore import SizeRule
from tvixstore.compose.beside import beside
from tvixstore.compose.build import Builder
from tvixstore.compose.config import Config
from tvixstore.compose.generation import Generation
from tvixstore.compose.graph import Graph
from tvixstore.compose.make_extras import make_extras
from tvixstore.compose.model import Store as StoreSettings
from tvixstore.compose.nodes import LocalNode
from tvixstore.compose.parts import below
from tvixstore.compose.stores import Store
from tvixstore.evict import check, rebuild
from tvixstore.http import Inbox
from tvixstore.nix import KeyRing
from tvixstore.pathinfo import PathInfoService
from tvixstore.pathinfo.receiving import Receiver
from tvixstore.pathinfo.uploads import Uploads
from tvixstore.policy.tasks import end
from tvixstore.pools import Pools
from tvixstore.upkeep import Holdings, LocalUpkeep, Upkeep


def make_generation(builder: Builder, config: Config, own: Store | None) -> Generation:
    """What `builder` makes of its graph, which `config` stands for; `own` is the daemon's state."""
    graph, daemon = builder.graph, config.daemon
    path_infos = builder.path_infos(graph.served)
    content, nars = builder.content(), builder.nars()
    # What was uploaded, and extras, have content that no path refers to.
    kept = beside(builder, "directories", "uploads", own)

    def keep_uploads() -> Uploads:
        uploads = Uploads(kept.table, kept.roots)
        builder.closing_services.push_async_callback(uploads.aclose)
        sweeping = asyncio.create_task(uploads.keep_sweeping(), name="sweep uploads")
        builder.closing_services.push_async_callback(end, [sweeping])
        return uploads

    uploads = builder.share("uploads", keep_uploads, kept)
    required = KeyRing(daemon.require_signature) if daemon.require_signature else None

    def receive() -> Receiver:
        sizes = SizeRule(builder.daemon.directory_sizes)
        activity = builder.fills.activity
        return Receiver(builder.content(), builder.pools, builder.spool, sizes, activity)

    # How much it takes at a time goes for old requests and new ones together.
    inbox = Inbox(builder.share("receiver", receive), uploads, required)
    extras = make_extras(builder, beside(builder, "blobs", "extras", own))
    places = {path.resolve() for path, _ in stores_of(graph)}
    if own is not None:
        places.add(own.state.path.resolve())
    return Generation(
        config,
        graph,
        path_infos,
        content,
        nars,
        inbox,
        extras,
        None if own is None else _upkeep(builder, path_infos, own),
        dict(builder.health),
        places,
        below(builder.tops),
    )


def stores_of(graph: Graph) -> list[tuple[Path, StoreSettings]]:
    """Where the nodes that can be reached keep things, and what is said of that."""
    reachable = graph.reachable()
    return [
        (node.path, node)
        for kind, name, node in graph.nodes()
        if isinstance(node, LocalNode) and (kind, name) in reachable
    ]


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
