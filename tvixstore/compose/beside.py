"""Tables beside content: in the store that the content is written to.

There they are counted as what refers to it. In another store they would keep nothing from being
collected, and they would outlive content that is in memory alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvixstore.compose.graph import ROOT
from tvixstore.compose.nodes import (
    CacheNode,
    FallbackNode,
    LocalNode,
    MemoryNode,
    Node,
    RaceNode,
    ReadOnlyNode,
)
from tvixstore.kv import KeyValue, MemoryKeyValue

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder
    from tvixstore.compose.nodes import Kind
    from tvixstore.compose.stores import Store
    from tvixstore.pathinfo.root_rows import Roots


@dataclass(frozen=True, slots=True)
class Beside:
    """A table, and whoever counts what its rows refer to, if anybody does."""

    table: KeyValue
    roots: Roots | None


def beside(builder: Builder, kind: Kind, name: str, state: Store | None) -> Beside:
    """The table `name` beside the content of the services of that kind, whoever asks for it.

    What is written to another machine, or to a bucket, has it in `state`.
    """
    leaf = written_to(builder.graph.of(kind), ROOT)
    node = builder.graph.of(kind).get(leaf) if leaf is not None else None
    if isinstance(node, MemoryNode) and leaf is not None:
        # It knows of what is in that memory, and goes with it.
        memory = builder.part_of(kind, leaf)
        return builder.share(("beside", name), lambda: Beside(MemoryKeyValue(), None), memory)
    store = builder.stores.at(node.path, node) if isinstance(node, LocalNode) else state
    if store is None:
        return builder.share(("beside", name), lambda: Beside(MemoryKeyValue(), None))
    return builder.share(
        ("beside", name), lambda: Beside(store.engine.table(name), store.references), store
    )


def written_to(nodes: Mapping[str, Node], name: str) -> str | None:
    """The leaf that what is put into `name` comes to; `None` if nothing can be put."""
    node = nodes.get(name)
    match node:
        case ReadOnlyNode():
            return None
        case CacheNode():
            return written_to(nodes, node.near)
        case FallbackNode() | RaceNode():
            leaves = [written_to(nodes, member) for member in node.members]
            return next((leaf for leaf in leaves if leaf is not None), None)
    inner = getattr(node, "inner", None)
    return written_to(nodes, inner) if isinstance(inner, str) else name
