"""From a graph to running services.

A node finds its neighbours by name through the builder; each name is built once, and a name met
again on the way down is a circle. What is built is a part (`parts.py`), and is closed with it by
whoever owns that, never by what wraps it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tvixstore.blob import BlobService
from tvixstore.blob.arrivals import AnnouncingBlobService
from tvixstore.blob.metered import MeteredBlobService
from tvixstore.castore import Digest
from tvixstore.compose.assembly import Assembly
from tvixstore.compose.config import Config
from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.health import UpstreamHealth
from tvixstore.compose.make_blobs import BLOB_MAKERS
from tvixstore.compose.make_directories import DIRECTORY_MAKERS
from tvixstore.compose.make_path_infos import PATH_INFO_MAKERS
from tvixstore.compose.making import Makers
from tvixstore.compose.names import Names
from tvixstore.compose.nodes import (
    BreakerNode,
    ChaosNode,
    CountersigningNode,
    GrpcNode,
    KeyfileSigningNode,
    Kind,
    LimitNode,
    LocalNode,
    MemoryNode,
    NamesNode,
    NegativeNode,
    NixNode,
    Node,
    ObjectStoreNode,
    OptionalNode,
    RetryNode,
    SignatureRequiredNode,
    TimeoutNode,
    VerifyPathInfoNode,
)
from tvixstore.compose.parts import Part
from tvixstore.compose.plugin import find_node_type
from tvixstore.compose.stores import Stores
from tvixstore.directory import DirectoryService
from tvixstore.directory.arrivals import AnnouncingDirectoryService
from tvixstore.directory.metered import MeteredDirectoryService
from tvixstore.kv import KeyValue
from tvixstore.metrics import Metrics
from tvixstore.nar import NarIdentities
from tvixstore.nix import KeyRing, PublicKey
from tvixstore.pathinfo import PathInfoService, RememberedAnswers
from tvixstore.pathinfo.arrivals import AnnouncingPathInfoService
from tvixstore.pathinfo.metered import MeteredPathInfoService
from tvixstore.pathinfo.nix import Fills, Upstream
from tvixstore.pathinfo.traced import TracedPathInfoService
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.carrying import Carrying
from tvixstore.policy.negative import Arrivals
from tvixstore.policy.tracing import Label
from tvixstore.pools import Pools
from tvixstore.rpc.client import Peer
from tvixstore.tree import Content

Service = TypeVar("Service")

_POLICIES = (
    TimeoutNode,
    RetryNode,
    BreakerNode,
    OptionalNode,
    NegativeNode,
    LimitNode,
    ChaosNode,
    NamesNode,
    VerifyPathInfoNode,
    KeyfileSigningNode,
    CountersigningNode,
    SignatureRequiredNode,
)
# What of blobs and Directories is counted. Not what is in the local store: a NAR is rendered from
# tens of thousands of them a second, each call of which would take a tenth longer.
_ELSEWHERE = (ObjectStoreNode, GrpcNode)
_LEAVES = (LocalNode, MemoryNode, ObjectStoreNode, NixNode, GrpcNode)


class Arriving:
    """Who remembers that something was absent hears here that it has come."""

    def __init__(self) -> None:
        self.blobs: Arrivals[Digest] = Arrivals()
        self.directories: Arrivals[Digest] = Arrivals()
        self.path_infos: Arrivals[bytes] = Arrivals()

    def of(self, kind: Kind) -> Arrivals[Any]:
        arrivals: dict[Kind, Arrivals[Any]] = {
            "blobs": self.blobs,
            "directories": self.directories,
            "path_infos": self.path_infos,
        }
        return arrivals[kind]

    def forget(self, path_hashes: Collection[bytes] = ()) -> int:
        """Has everybody who remembers that something was absent forget it; how much that was.

        With `path_hashes` no path infos but theirs. What they are made of nobody can know yet, so
        that this is all blobs and Directories in any case.
        """
        infos = self.path_infos
        count = infos.announce(path_hashes) if path_hashes else infos.forget()
        return count + self.blobs.forget() + self.directories.forget()


class Builder(Assembly):
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
        calculated: KeyValue,
        spool: Path,
        fills: Fills,
        arriving: Arriving | None = None,
        before: Sequence[Part] = (),
    ) -> None:
        super().__init__(config.daemon, graph, before)
        # What messages call the compose file.
        self.file = config.name
        self.pools = pools
        self.metrics = metrics
        self.stores = stores
        self.remembered = remembered
        self._calculated = calculated
        # Where what is on its way waits.
        self.spool = spool
        self.fills = fills
        self.health: dict[str, UpstreamHealth] = {}
        # What guards and reaches the binary caches, by node, for their other files.
        self.upstreams: dict[str, Upstream] = {}
        self.breakers: dict[str, Breaker] = {}
        self.carrying: dict[str, Carrying] = {}
        # Peers that are to be there from the start.
        self.connecting: list[Peer] = []
        self.arriving = arriving or Arriving()
        self.blobs: Names[BlobService] = Names(
            "blobservices", graph.blobs, self._blobs, config.name
        )
        self.directories: Names[DirectoryService] = Names(
            "directoryservices", graph.directories, self._directories, config.name
        )
        self.path_infos: Names[PathInfoService] = Names(
            "pathinfoservices", graph.path_infos, self._path_infos, config.name
        )

    def content(self, blob_service: str = ROOT, directory_service: str = ROOT) -> Content:
        return Content(
            self.blobs(blob_service), self.directories(directory_service), self.stores.holds
        )

    def nars(self, blob_service: str = ROOT, directory_service: str = ROOT) -> NarIdentities:
        """What the NARs of trees there are known by; all of them share what is remembered."""

        def make() -> NarIdentities:
            content = self.content(blob_service, directory_service)
            nars = NarIdentities(content, self._calculated)
            self.closing_services.push_async_callback(nars.aclose)
            return nars

        return self.share(("nars", blob_service, directory_service), make)

    def trusted_keys(self) -> KeyRing:
        """The keys that the signatures of any upstream, or of what is put, are checked with."""
        return KeyRing(self.ask(_trusted_keys))

    def upstream_below(self, name: str) -> UpstreamHealth | None:
        """The upstream that the wrappers from `name` on down are around, if it is one."""
        node = self.graph.path_infos.get(name)
        while isinstance(node, _POLICIES):
            name = node.inner
            node = self.graph.path_infos.get(name)
        return self.health.get(name)

    def _blobs(self, name: str, node: Node) -> BlobService:
        def make() -> BlobService:
            service = self._make("blobs", BLOB_MAKERS, name, node)
            if isinstance(node, _ELSEWHERE):
                service = MeteredBlobService(service, self.metrics.node("blob", name))
            if isinstance(node, _LEAVES) and self._remembers_absence("blobs"):
                return AnnouncingBlobService(service, self.arriving.blobs)
            return service

        return self.node("blobs", name, node, make)

    def _directories(self, name: str, node: Node) -> DirectoryService:
        def make() -> DirectoryService:
            service = self._make("directories", DIRECTORY_MAKERS, name, node)
            if isinstance(node, _ELSEWHERE):
                service = MeteredDirectoryService(service, self.metrics.node("directory", name))
            if isinstance(node, _LEAVES) and self._remembers_absence("directories"):
                return AnnouncingDirectoryService(service, self.arriving.directories)
            return service

        return self.node("directories", name, node, make)

    def _path_infos(self, name: str, node: Node) -> PathInfoService:
        return self.node("path_infos", name, node, lambda: self._path_info_node(name, node))

    def _path_info_node(self, name: str, node: Node) -> PathInfoService:
        service = self._make("path_infos", PATH_INFO_MAKERS, name, node)
        status = self.health[name].observe if name in self.health else None
        # Nobody puts into a binary cache.
        takes_puts = isinstance(node, _LEAVES) and not isinstance(node, NixNode)
        if takes_puts and self._remembers_absence("path_infos"):
            service = AnnouncingPathInfoService(service, self.arriving.path_infos)
        label = Label(name, node.type)
        # Everything together is `root` to whoever reads metrics, whatever is on top of it; a root
        # that is a leaf is counted as one, and not twice.
        whole = self.ask(lambda builder: builder.is_whole(name))
        if whole or isinstance(node, _LEAVES):
            meter = self.metrics.node("pathinfo", ROOT if whole else name)
            return MeteredPathInfoService(service, meter, status, label=label, on_top=whole)
        return TracedPathInfoService(service, label)

    def is_whole(self, name: str) -> bool:
        """Whether the path infos of that name are all there are, and more than one leaf."""
        return name == self.graph.served and not isinstance(self.graph.path_infos[ROOT], _LEAVES)

    def _remembers_absence(self, kind: Kind) -> bool:
        return self.ask(
            lambda builder: any(
                isinstance(node, NegativeNode) for node in builder.graph.of(kind).values()
            )
        )

    def _make(self, kind: Kind, makers: Makers[Service], name: str, node: Node) -> Service:
        make = makers.get(type(node))
        if make is None:
            found = find_node_type(node.type)
            make = None if found is None else found.maker(kind)
        assert make is not None, "the loader lets no other nodes through"
        return make(self, name, node)


def _trusted_keys(builder: Builder) -> list[PublicKey]:
    keys = [
        key
        for node in builder.graph.path_infos.values()
        if isinstance(node, NixNode | VerifyPathInfoNode)
        for key in node.public_keys or ()
    ]
    return [*builder.daemon.public_keys, *builder.daemon.require_signature, *keys]
