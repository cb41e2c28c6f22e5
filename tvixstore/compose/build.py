"""From a graph to running services.

A node finds its neighbours by name through the builder; each name is built once, and a name met
again on the way down is a circle. What is built is a part (`parts.py`), and is closed with it by
whoever owns that, never by what wraps it. What another graph was built of is taken over as far as
it is the same in this one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from tvixstore.blob import BlobService
from tvixstore.blob.arrivals import AnnouncingBlobService
from tvixstore.blob.metered import MeteredBlobService
from tvixstore.castore import Digest
from tvixstore.compose.config import Config
from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.health import UpstreamHealth
from tvixstore.compose.make_blobs import BLOB_MAKERS
from tvixstore.compose.make_directories import DIRECTORY_MAKERS
from tvixstore.compose.make_path_infos import PATH_INFO_MAKERS
from tvixstore.compose.model import Daemon
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
from tvixstore.compose.parts import NODE, Part, node_key, of_node
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
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.negative import Arrivals
from tvixstore.pools import Pools
from tvixstore.rpc.client import Peer
from tvixstore.tree import Content

Service = TypeVar("Service")
Makers = Mapping[type[Node], Callable[["Builder", str, Any], Service]]

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

    def forget(self) -> None:
        """Has everybody who remembers that something was absent forget it."""
        self.blobs.forget()
        self.directories.forget()
        self.path_infos.forget()


class Builder:
    """Builds the services of one graph, over resources that its owner has and closes.

    What of `before`, the parts of other graphs, is unchanged in this one is taken over. The owner
    closes what is in `made`, also if building fails.
    """

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
        # What messages call the compose file.
        self.file = config.name
        self.graph = graph
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
        # Peers that are to be there from the start.
        self.connecting: list[Peer] = []
        self.arriving = arriving or Arriving()
        self.blobs_arriving = self.arriving.blobs
        self.directories_arriving = self.arriving.directories
        self.path_infos_arriving = self.arriving.path_infos
        self._daemon = config.daemon
        # The parts of this graph, those made for it, and what was asked for from outside.
        self.parts: dict[Hashable, Part] = {}
        self.made: list[Part] = []
        self.tops: list[Part] = []
        self._before: dict[Hashable, list[Part]] = {}
        for part in before:
            self._before.setdefault(part.key, []).append(part)
        # Parts of before that are known to be others here.
        self._changed: set[Part] = set()
        # Those being made: each is built over the next.
        self._making: list[Part] = []
        self.blobs: Names[BlobService] = Names(
            "blobservices", graph.blobs, self._blobs, config.name
        )
        self.directories: Names[DirectoryService] = Names(
            "directoryservices", graph.directories, self._directories, config.name
        )
        self.path_infos: Names[PathInfoService] = Names(
            "pathinfoservices", graph.path_infos, self._path_infos, config.name
        )

    @property
    def daemon(self) -> Daemon:
        """What `[daemon]` says. A part that is being made is of the keys that it looks at."""
        return cast("Daemon", _Looked(self)) if self._making else self._daemon

    @property
    def closing_services(self) -> AsyncExitStack:
        """Closed with what is being made, when nobody asks it anything any more."""
        return self._making[-1].services

    @property
    def closing_upstreams(self) -> AsyncExitStack:
        """Closed after that, when no download needs it any more: connections."""
        return self._making[-1].upstreams

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

    def share(self, key: Hashable, make: Callable[[], Service], made_of: object = None) -> Service:
        """The service that was made for `key` before, of the same, or else a new one."""
        service: Service = self._part(key, made_of, make).service
        return service

    def shared(self, key: Hashable) -> Any | None:
        """The service that was made for `key`, if one was."""
        part = self.parts.get(key)
        return None if part is None else part.service

    def ask(self, question: Callable[[Builder], Service]) -> Service:
        """The answer to `question` about this graph. A part being made is another one where the
        answer is."""
        with self._as_owner():
            answer = question(self)
        if self._making:
            self._making[-1].asked.append((question, answer))
        return answer

    def tell(self, table: str, name: str, value: object) -> None:
        """Enters `value` in `health`, `upstreams` or `breakers`, as long as what is being made is
        part of a graph."""
        self._making[-1].told.append((table, name, value))
        getattr(self, table)[name] = value

    def live(self, change: Callable[[Builder], None]) -> None:
        """Has `change` called when this graph takes effect, and when any other does of which what
        is being made is a part: for what it is told and does not have to be another one for."""
        self._making[-1].live.append(change)

    def take_effect(self, parts: Collection[Part]) -> None:
        """This is the graph that counts from now on, made of `parts`."""
        # In the order in which they are built over each other.
        for part in self.parts.values():
            if part in parts:
                for change in part.live:
                    change(self)

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

    def wrapped(self, kind: Kind, name: str) -> list[tuple[str, Node]]:
        """The node of that name, and those that it wraps, as long as each wraps just one."""
        found: list[tuple[str, Node]] = []
        nodes = self.graph.of(kind)
        while name in nodes and name not in dict(found):
            found.append((name, nodes[name]))
            name = getattr(nodes[name], "inner", "")
        return found

    def part_of(self, kind: Kind, name: str) -> Part | None:
        """The part that the node of that name is, once it is built."""
        return self.parts.get(node_key(kind, name))

    def _blobs(self, name: str, node: Node) -> BlobService:
        def make() -> BlobService:
            service = self._make("blobs", BLOB_MAKERS, name, node)
            if isinstance(node, _ELSEWHERE):
                service = MeteredBlobService(service, self.metrics.node("blob", name))
            if isinstance(node, _LEAVES) and self._remembers_absence("blobs"):
                return AnnouncingBlobService(service, self.blobs_arriving)
            return service

        return self._node("blobs", name, node, make)

    def _directories(self, name: str, node: Node) -> DirectoryService:
        def make() -> DirectoryService:
            service = self._make("directories", DIRECTORY_MAKERS, name, node)
            if isinstance(node, _ELSEWHERE):
                service = MeteredDirectoryService(service, self.metrics.node("directory", name))
            if isinstance(node, _LEAVES) and self._remembers_absence("directories"):
                return AnnouncingDirectoryService(service, self.directories_arriving)
            return service

        return self._node("directories", name, node, make)

    def _path_infos(self, name: str, node: Node) -> PathInfoService:
        return self._node("path_infos", name, node, lambda: self._path_info_node(name, node))

    def _path_info_node(self, name: str, node: Node) -> PathInfoService:
        service = self._make("path_infos", PATH_INFO_MAKERS, name, node)
        status = self.health[name].observe if name in self.health else None
        # Nobody puts into a binary cache.
        takes_puts = isinstance(node, _LEAVES) and not isinstance(node, NixNode)
        if takes_puts and self._remembers_absence("path_infos"):
            service = AnnouncingPathInfoService(service, self.path_infos_arriving)
        # Everything together is `root` to whoever reads metrics, whatever is on top of it; a root
        # that is a leaf is counted as one, and not twice.
        whole = self.ask(lambda builder: builder.is_whole(name))
        if whole or isinstance(node, _LEAVES):
            meter = self.metrics.node("pathinfo", ROOT if whole else name)
            return MeteredPathInfoService(service, meter, status)
        return service

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

    def _node(self, kind: Kind, name: str, node: Node, make: Callable[[], Service]) -> Service:
        service: Service = self._part(node_key(kind, name), of_node(node), make).service
        return service

    def _part(self, key: Hashable, made_of: object, make: Callable[[], Any]) -> Part:
        part = self.parts.get(key)
        if part is None or part.made_of != made_of:
            part = self._taken_over(key, made_of) or self._new(key, made_of, make)
        if self._making:
            self._making[-1].over.append(part)
        else:
            self.tops.append(part)
        return part

    def _taken_over(self, key: Hashable, made_of: object) -> Part | None:
        for part in self._before.get(key, ()):
            if part.made_of == made_of and self._again(part) is part:
                return part
        return None

    def _again(self, part: Part) -> Part | None:
        """`part` of another graph as a part of this one too, if it is unchanged."""
        if (here := self.parts.get(part.key)) is not None:
            return here
        if part in self._changed or not self._is_unchanged(part):
            self._changed.add(part)
            return None
        self.parts[part.key] = part
        for table, name, value in part.told:
            getattr(self, table)[name] = value
        return part

    def _is_unchanged(self, part: Part) -> bool:
        # What is shared is made of what is in its key, or in the node that asks for it.
        match part.key:
            case (str(what), kind, str(name)) if what == NODE:
                node = self.graph.of(cast("Kind", kind)).get(name)
                if node is None or of_node(node) != part.made_of:
                    return False
        with self._as_owner():
            if any(question(self) != answer for question, answer in part.asked):
                return False
        return all(self._again(each) is each for each in part.over)

    def _new(self, key: Hashable, made_of: object, make: Callable[[], Any]) -> Part:
        part = Part(key, made_of)
        self.made.append(part)
        self._making.append(part)
        try:
            part.service = make()
        finally:
            self._making.pop()
        self.parts[key] = part
        return part

    @contextmanager
    def _as_owner(self) -> Iterator[None]:
        """What is asked meanwhile, no part asks."""
        making, self._making = self._making, []
        try:
            yield
        finally:
            self._making = making


class _Looked:
    """`[daemon]` for a part that is being made, which is noted to depend on what it looks at."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def __getattr__(self, key: str) -> Any:
        return self._builder.ask(lambda builder: getattr(builder.daemon, key))


def _trusted_keys(builder: Builder) -> list[PublicKey]:
    keys = [
        key
        for node in builder.graph.path_infos.values()
        if isinstance(node, NixNode | VerifyPathInfoNode)
        for key in node.public_keys or ()
    ]
    return [*builder.daemon.public_keys, *builder.daemon.require_signature, *keys]
