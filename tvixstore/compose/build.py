"""From a graph to running services: the only place that knows every concrete class.

A node finds its neighbours by name through the builder; each name is built once, and a name met
again on the way down is a circle. What is built is closed by whoever owns the builder's `closing`
stacks, never by what wraps it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from tvixstore.blob import BlobService, LocalBlobService
from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.health import UpstreamHealth
from tvixstore.compose.model import Config
from tvixstore.compose.names import Names
from tvixstore.compose.nodes import (
    BreakerNode,
    CacheNode,
    FallbackNode,
    LocalNode,
    LocalPathInfoNode,
    NegativeNode,
    NixNode,
    Node,
    OptionalNode,
    RaceNode,
    RetryNode,
    TimeoutNode,
)
from tvixstore.compose.stores import Stores
from tvixstore.directory import DirectoryService, LocalDirectoryService
from tvixstore.metrics import Metrics
from tvixstore.nix import KeyRing
from tvixstore.pathinfo import LocalPathInfoService, PathInfoService, RememberedAnswers
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.cached import CachedPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.metered import MeteredPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.pathinfo.nix import Fills, NixPathInfoService, UpstreamSettings
from tvixstore.pathinfo.nix.transports import open_upstream
from tvixstore.pathinfo.optional import OptionalPathInfoService
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.retry import Retry
from tvixstore.pools import Pools
from tvixstore.tree import Content

PATH_INFOS = "pathinfo"


class Builder:
    """Builds the services of one graph, over resources that its owner has and closes."""

    def __init__(
        self,
        config: Config,
        graph: Graph,
        *,
        pools: Pools,
        metrics: Metrics,
        stores: Stores,
        remembered: RememberedAnswers,
        fills: Fills,
        closing_upstreams: AsyncExitStack,
        closing_services: AsyncExitStack,
    ) -> None:
        self.daemon = config.daemon
        self.pools = pools
        self.metrics = metrics
        self.stores = stores
        self.remembered = remembered
        self.fills = fills
        self.closing_upstreams = closing_upstreams
        self.closing_services = closing_services
        self.health: dict[str, UpstreamHealth] = {}
        self.graph = graph
        self.blobs = Names("blobservices", graph.blobs, self._blobs, config.name)
        self.directories = Names(
            "directoryservices", graph.directories, self._directories, config.name
        )
        self.path_infos = Names("pathinfoservices", graph.path_infos, self._path_infos, config.name)

    def content(self, blob_service: str = ROOT, directory_service: str = ROOT) -> Content:
        return Content(self.blobs(blob_service), self.directories(directory_service))

    def trusted_keys(self) -> KeyRing:
        """The keys that any upstream's signatures are checked with."""
        keys = [
            key
            for node in self.graph.path_infos.values()
            if isinstance(node, NixNode)
            for key in node.public_keys or ()
        ]
        return KeyRing([*self.daemon.public_keys, *keys])

    def upstream_below(self, name: str) -> UpstreamHealth | None:
        """The upstream that the wrappers from `name` on down are around, if it is one."""
        node = self.graph.path_infos.get(name)
        while isinstance(node, TimeoutNode | RetryNode | BreakerNode | OptionalNode | NegativeNode):
            name = node.inner
            node = self.graph.path_infos.get(name)
        return self.health.get(name)

    def _blobs(self, name: str, node: LocalNode) -> BlobService:
        store = self.stores.at(node.path, node)
        return LocalBlobService(
            store.engine.table("blobs"),
            store.engine.table("chunks"),
            node.path,
            self.pools,
            chunk_size=node.chunk_size,
            compression=node.compression,
            durability=node.durability,
            guard=store.guard,
            metrics=self.metrics,
        )

    def _directories(self, name: str, node: LocalNode) -> DirectoryService:
        return LocalDirectoryService(self.stores.at(node.path, node).engine.table("directories"))

    def _path_infos(self, name: str, node: Node) -> PathInfoService:
        service = _MAKERS[type(node)](self, name, node)
        status = self.health[name].observe if name in self.health else None
        if name == ROOT or isinstance(node, LocalPathInfoNode | NixNode):
            return MeteredPathInfoService(service, self.metrics.node(PATH_INFOS, name), status)
        return service


def _local(builder: Builder, name: str, node: LocalPathInfoNode) -> PathInfoService:
    engine = builder.stores.at(node.path, node).engine
    service = LocalPathInfoService(
        engine.table("pathinfos"),
        builder.content(node.blob_service, node.directory_service),
        access=engine.table("access"),
        keys=builder.trusted_keys(),
    )
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _nix(builder: Builder, name: str, node: NixNode) -> PathInfoService:
    settings = UpstreamSettings(
        url=node.base_url,
        name=name,
        timeout=node.timeout,
        connect_timeout=node.connect_timeout,
        stall_timeout=node.stall_timeout,
        max_connections=node.max_connections,
        netrc_file=node.netrc_file,
        token_file=node.token_file,
        ca_file=node.ca_file,
        proxy=node.proxy,
    )
    upstream = open_upstream(settings, builder.pools)
    builder.closing_upstreams.push_async_callback(upstream.aclose)
    service = NixPathInfoService(
        upstream=upstream,
        content=builder.content(node.blob_service, node.directory_service),
        fills=builder.fills,
        remembered=builder.remembered,
        key=_remembered_as(node.base_url),
        keys=None if node.public_keys is None else KeyRing(node.public_keys),
        retries=node.retries,
        narinfo_ttl=builder.daemon.narinfo_ttl,
        negative_ttl=builder.daemon.negative_ttl,
    )
    builder.closing_services.push_async_callback(service.aclose)
    builder.health[name] = UpstreamHealth(name, 1, builder.metrics)
    return service


def _remembered_as(url: str) -> bytes:
    """What its answers are kept under: the same as long as it is the same place."""
    place = urlsplit(url)
    without_user = f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path.rstrip('/')}"
    return hashlib.sha256(without_user.encode()).digest()[:16]


def _cache(builder: Builder, name: str, node: CacheNode) -> PathInfoService:
    service = CachedPathInfoService(
        builder.path_infos(node.near),
        builder.path_infos(node.far),
        builder.metrics.node(PATH_INFOS, name),
    )
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _shown(members: Sequence[str]) -> list[str]:
    """What members are called in logs and errors: `mirror`, not `mirror/breaker`."""
    return [member.partition("/")[0] for member in members]


def _race(builder: Builder, name: str, node: RaceNode) -> PathInfoService:
    members = [builder.path_infos(member) for member in node.members]
    return RacingPathInfoService(members, _shown(node.members), node.hedge)


def _fallback(builder: Builder, name: str, node: FallbackNode) -> PathInfoService:
    members = [builder.path_infos(member) for member in node.members]
    return FallbackPathInfoService(members, _shown(node.members), builder.daemon.lookup_timeout)


def _timeout(builder: Builder, name: str, node: TimeoutNode) -> PathInfoService:
    return TimeoutPathInfoService(builder.path_infos(node.inner), node.attempt)


def _retry(builder: Builder, name: str, node: RetryNode) -> PathInfoService:
    inner = builder.path_infos(node.inner)
    if (health := builder.upstream_below(node.inner)) is not None:
        health.attempts = node.attempts
    return RetryPathInfoService(inner, Retry(node.attempts, node.min_delay, node.max_delay))


def _breaker(builder: Builder, name: str, node: BreakerNode) -> PathInfoService:
    inner = builder.path_infos(node.inner)
    health = builder.upstream_below(node.inner)
    on_change = None if health is None else health.breaker_changed
    return BreakerPathInfoService(inner, Breaker(node.failures, node.open, on_change=on_change))


def _optional(builder: Builder, name: str, node: OptionalNode) -> PathInfoService:
    inner = builder.path_infos(node.inner)
    assert isinstance(inner, BreakerPathInfoService), "only lowering makes these, over a breaker"
    return OptionalPathInfoService(inner, node.name, inner.breaker)


def _negative(builder: Builder, name: str, node: NegativeNode) -> PathInfoService:
    return NegativePathInfoService(builder.path_infos(node.inner), node.ttl, node.capacity)


# One row a node type; the node that a maker gets is of that type.
_MAKERS: dict[type[Node], Callable[[Builder, str, Any], PathInfoService]] = {
    LocalPathInfoNode: _local,
    NixNode: _nix,
    CacheNode: _cache,
    RaceNode: _race,
    FallbackNode: _fallback,
    TimeoutNode: _timeout,
    RetryNode: _retry,
    BreakerNode: _breaker,
    OptionalNode: _optional,
    NegativeNode: _negative,
}
