"""A composition as a graph of named nodes, one set of names a kind of service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tvixstore.compose.nodes import Kind, Node, RetryNode

ROOT = "root"


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by name. Each kind has one called `root`, and is seen from its `top`."""

    blobs: Mapping[str, Node]
    directories: Mapping[str, Node]
    path_infos: Mapping[str, Node]
    # The path infos that the front doors see: the root, or what `[daemon]` puts on top of it.
    served: str = ROOT

    def top(self, kind: Kind) -> str:
        """The name of the node of that kind that everything else hangs on."""
        return self.served if kind == "path_infos" else ROOT

    def of(self, kind: Kind) -> Mapping[str, Node]:
        """The nodes of that kind."""
        return {
            "blobs": self.blobs,
            "directories": self.directories,
            "path_infos": self.path_infos,
        }[kind]

    def repeats(self, kind: Kind, name: str) -> bool:
        """Whether the node of that name, or one that it wraps, asks again what failed."""
        nodes, seen = self.of(kind), set[str]()
        while name in nodes and name not in seen:
            seen.add(name)
            if isinstance(nodes[name], RetryNode):
                return True
            name = getattr(nodes[name], "inner", "")
        return False

    def nodes(self) -> Iterator[tuple[Kind, str, Node]]:
        """All nodes, with their kinds and names."""
        for kind in KINDS:
            for name, node in self.of(kind).items():
                yield kind, name, node

    def reachable(self) -> set[tuple[Kind, str]]:
        """The nodes that anything asked of a root may come to."""
        reached: set[tuple[Kind, str]] = set()
        ahead: list[tuple[Kind, str]] = [(kind, self.top(kind)) for kind in KINDS]
        while ahead:
            kind, name = place = ahead.pop()
            node = self.of(kind).get(name)
            if node is None or place in reached:
                continue
            reached.add(place)
            ahead += [(kind, neighbour) for _, neighbour in node.neighbours()]
            ahead += [(other, neighbour) for _, other, neighbour in node.content()]
        return reached


# The order in which they are told: what others are built over comes first.
KINDS: tuple[Kind, ...] = ("blobs", "directories", "path_infos")
