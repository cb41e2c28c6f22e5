"""What makes a directory service of each type of node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tvixstore.compose.nodes import (
    LocalNode,
    MemoryNode,
    Node,
)
from tvixstore.directory import DirectoryService, LocalDirectoryService, MemoryDirectoryService

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


def _memory(builder: Builder, name: str, node: MemoryNode) -> DirectoryService:
    return MemoryDirectoryService()


def _local(builder: Builder, name: str, node: LocalNode) -> DirectoryService:
    store = builder.stores.at(node.path, node)
    return builder.share(
        ("directories", node.path.resolve()),
        lambda: LocalDirectoryService(store.engine.table("directories")),
    )


# One row a node type; the node that a maker gets is of that type.
DIRECTORY_MAKERS: Mapping[type[Node], Callable[[Builder, str, Any], DirectoryService]] = {
    MemoryNode: _memory,
    LocalNode: _local,
}
