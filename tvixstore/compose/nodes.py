"""The node types of a composition: one model each, as `type = …` names them.

The short form is lowered to these, and there is no other way to build anything.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tvixstore.compose.model import (
    ConfigPath,
    Connection,
    Duration,
    HedgeDelay,
    Keys,
    NodeName,
    PositiveCount,
    PositiveDuration,
    Section,
    Store,
    SubstituterUrl,
)

# A reference to a node of the same kind, except where a key says which kind.
Reference = str


class Node(Section):
    """A node of the graph; `type` says which, and its other keys are its own."""

    # The keys whose values name other nodes of the same kind, in the order they are shown.
    references: ClassVar[tuple[str, ...]] = ()

    def neighbours(self) -> list[tuple[str, Reference]]:
        """Key and name of each node of the same kind that this one is built over."""
        found: list[tuple[str, Reference]] = []
        for key in self.references:
            value = getattr(self, key)
            names = (value,) if isinstance(value, str) else value
            found.extend((key, name) for name in names)
        return found


class LocalNode(Store, Node):
    """On this machine's disk. Nodes with the same path share one engine."""

    type: Literal["local"] = "local"
    path: ConfigPath


class LocalPathInfoNode(LocalNode):
    """Path infos on this machine's disk, with the services that hold their content."""

    blob_service: Reference = "root"
    directory_service: Reference = "root"


class CacheNode(Node):
    """Asks `near`, then `far`, and keeps in `near` what `far` had."""

    references: ClassVar[tuple[str, ...]] = ("near", "far")

    type: Literal["cache"] = "cache"
    near: Reference
    far: Reference


class RaceNode(Node):
    """Asks the members together, each `hedge` after the one before; the first right answer wins."""

    references: ClassVar[tuple[str, ...]] = ("members",)

    type: Literal["race"] = "race"
    members: Annotated[tuple[Reference, ...], Field(strict=False, min_length=1)]
    hedge: HedgeDelay = 0.0


class FallbackNode(Node):
    """Asks the members in order."""

    references: ClassVar[tuple[str, ...]] = ("members",)

    type: Literal["fallback"] = "fallback"
    members: Annotated[tuple[Reference, ...], Field(strict=False, min_length=1)]


class NixNode(Connection, Node):
    """A binary cache that speaks HTTP, or a folder in the same form."""

    type: Literal["nix"] = "nix"
    base_url: SubstituterUrl
    # Absent: nothing is verified but hashes.
    public_keys: Keys | None = None
    blob_service: Reference = "root"
    directory_service: Reference = "root"


class TimeoutNode(Node):
    """Bounds short calls, and the wait for a stream's first item; never a stream."""

    references: ClassVar[tuple[str, ...]] = ("inner",)
    later: ClassVar[frozenset[str]] = frozenset({"overall"})

    type: Literal["timeout"] = "timeout"
    inner: Reference
    attempt: PositiveDuration = 5.0


class RetryNode(Node):
    """Asks again where an answer could not be had."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["retry"] = "retry"
    inner: Reference
    attempts: PositiveCount = 3
    min_delay: Duration = 0.1
    max_delay: Duration = 2.0


class BreakerNode(Node):
    """Asks nothing for a while of what failed several times in a row."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["breaker"] = "breaker"
    inner: Reference
    failures: PositiveCount = 5
    open: PositiveDuration = 30.0


class OptionalNode(Node):
    """Stands for a breaker's node that may be down without failing a lookup over HTTP."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["optional"] = "optional"
    inner: Reference
    # What responses call it.
    name: NodeName


class NegativeNode(Node):
    """Remembers for a while what was absent."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["negative"] = "negative"
    inner: Reference
    ttl: Duration = 60.0
    capacity: PositiveCount = 100_000


# One row a `type =` that has a table of its own, a kind of service each.
BLOB_NODES: dict[str, type[Node]] = {"local": LocalNode}
DIRECTORY_NODES: dict[str, type[Node]] = {"local": LocalNode}
PATH_INFO_NODES: dict[str, type[Node]] = {
    "local": LocalPathInfoNode,
    "nix": NixNode,
    "cache": CacheNode,
    "race": RaceNode,
    "fallback": FallbackNode,
    "timeout": TimeoutNode,
    "retry": RetryNode,
    "breaker": BreakerNode,
    "optional": OptionalNode,
    "negative": NegativeNode,
}
