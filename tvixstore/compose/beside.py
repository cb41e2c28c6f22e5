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
    from tvixstore.compose.stores import Store, Stores
    from tvixstore.pathinfo.root_rows import Roots


@dataclass(frozen=True, slots=True)
class Beside:
    """A table, and whoever counts what its rows refer to, if anybody does."""

    table: KeyValue
    roots: Roots | None


def beside(nodes: Mapping[str, Node], name: str, stores: Stores, state: Store | None) -> Beside:
    """The table `name` beside the content of the services `nodes`.

    What is written to another machine, or to a bucket, has it in `state`.
    """
    node = _written_to(nodes, ROOT)
    if isinstance(node, MemoryNode):
        return Beside(MemoryKeyValue(), None)
    store = stores.at(node.path, node) if isinstance(node, LocalNode) else state
    if store is None:
        return Beside(MemoryKeyValue(), None)
    return Beside(store.engine.table(name), store.references)


def _written_to(nodes: Mapping[str, Node], name: str) -> Node | None:
    """The leaf that what is put into `name` comes to; `None` if nothing can be put."""
    node = nodes.get(name)
    match node:
        case ReadOnlyNode():
            return None
        case CacheNode():
            return _written_to(nodes, node.near)
        case FallbackNode() | RaceNode():
            leaves = [_written_to(nodes, member) for member in node.members]
            return next((leaf for leaf in leaves if leaf is not None), None)
    inner = getattr(node, "inner", None)
    return _written_to(nodes, inner) if isinstance(inner, str) else node
