"""What rules ask of a file: who is in it, what stands behind a name, and what that can do."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple
from urllib.parse import urlsplit

from tvixstore.compose.config import Config
from tvixstore.compose.graph import Graph
from tvixstore.compose.long import label_of
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.model import Substituter
from tvixstore.compose.nodes import (
    CacheNode,
    FallbackNode,
    GrpcNode,
    Kind,
    LocalNode,
    MirrorNode,
    NixNode,
    Node,
    NothingNode,
    ObjectStoreNode,
    RaceNode,
    ReadOnlyNode,
    RetryNode,
    ShardNode,
    TimeoutNode,
)


class Place(NamedTuple):
    """A node of the long form, and the graph around it."""

    graph: Graph
    kind: Kind
    name: str
    node: Node

    def says(self, key: str, text: str) -> Mistake:
        return Mistake(label_of(self.kind, self.name), key, text)

    def at(self, name: str) -> Place | None:
        """Another node of the same kind."""
        node = self.graph.of(self.kind).get(name)
        return None if node is None else Place(self.graph, self.kind, name, node)

    def chain(self) -> Iterator[Place]:
        """This node and those that it wraps, down to one that wraps none, or several."""
        place: Place | None = self
        seen: set[str] = set()
        while place is not None and place.name not in seen:
            seen.add(place.name)
            yield place
            place = place.at(getattr(place.node, "inner", ""))

    def below(self) -> Iterator[Place]:
        """The chain of what this node wraps, without itself."""
        chain = self.chain()
        next(chain)
        yield from chain

    def end(self) -> Node:
        """What all wrappers are around."""
        return list(self.chain())[-1].node


def substituters(config: Config) -> Iterator[tuple[str, Substituter]]:
    """Those that are enabled, with what messages call them."""
    for number, substituter in enumerate(config.substituters, 1):
        if substituter.enabled:
            yield f"[[substituters]] #{number} ({substituter.name})", substituter


def nodes(config: Config) -> Iterator[Place]:
    """The nodes of the long form."""
    if config.graph is not None:
        for kind, name, node in config.graph.nodes():
            yield Place(config.graph, kind, name, node)


def over_members(config: Config) -> Iterator[tuple[Place, list[Place]]]:
    """The nodes that have `members`, with these, as far as they are ours."""
    for place in nodes(config):
        if isinstance(place.node, RaceNode | FallbackNode | MirrorNode | ShardNode):
            found = [place.at(name) for name in place.node.members]
            yield place, [member for member in found if member is not None]


def home(node: Node) -> tuple[str, ...] | None:
    """Where a store keeps what it has, or `None` where no two can be the same."""
    if isinstance(node, NixNode):
        return "nix", node.base_url.rstrip("/"), node.proxy or ""
    if isinstance(node, GrpcNode):
        return "grpc", node.url
    if isinstance(node, LocalNode):
        return "local", str(node.path)
    if isinstance(node, ObjectStoreNode) and urlsplit(node.object_store_url).scheme == "file":
        return "objectstore", node.object_store_url
    return None


def patience(place: Place) -> float:
    """How many seconds a lookup there takes at most, as far as anything bounds it."""
    seconds, repeated = inf, False
    for below in reversed(list(place.chain())):
        node = below.node
        if isinstance(node, NixNode):
            seconds = node.timeout
        elif isinstance(node, RetryNode):
            repeated = True
            seconds = seconds * node.attempts + node.max_delay * (node.attempts - 1)
        elif isinstance(node, TimeoutNode):
            whole = node.overall if repeated and node.overall is not None else node.attempt
            seconds = min(seconds, whole)
    return seconds


def takes_writes(place: Place | None, known: dict[str, bool] | None = None) -> bool:
    """Whether what is put there can get anywhere. A third party's node is believed to take it."""
    known = {} if known is None else known
    if place is None:
        return True
    if place.name not in known:
        # Graphs have no circles; this keeps those that do from being followed for ever.
        known[place.name] = True
        known[place.name] = _takes_writes(place, known)
    return known[place.name]


def _takes_writes(place: Place, known: dict[str, bool]) -> bool:
    node = place.node
    if isinstance(node, ReadOnlyNode | NixNode | NothingNode):
        return False
    if isinstance(node, CacheNode):
        return takes_writes(place.at(node.near), known)
    if isinstance(node, RaceNode | FallbackNode | ShardNode | MirrorNode):
        able = sum(takes_writes(place.at(name), known) for name in node.members)
        return able >= (node.enough() if isinstance(node, MirrorNode) else 1)
    return takes_writes(place.at(getattr(node, "inner", "")), known)
