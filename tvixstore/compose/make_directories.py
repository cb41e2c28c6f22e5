"""What makes a directory service of each type of node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tvixstore.compose.make_grpc import grpc_directories
from tvixstore.compose.nodes import (
    CacheNode,
    FallbackNode,
    GrpcNode,
    LocalNode,
    MemoryNode,
    Node,
    RaceNode,
    ReadOnlyNode,
    VerifyNode,
)
from tvixstore.directory import DirectoryService, LocalDirectoryService, MemoryDirectoryService
from tvixstore.directory.cached import CachedDirectoryService
from tvixstore.directory.fallback import FallbackDirectoryService
from tvixstore.directory.racing import RacingDirectoryService
from tvixstore.directory.readonly import ReadOnlyDirectoryService
from tvixstore.directory.verify import VerifyDirectoryService

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


def _memory(builder: Builder, name: str, node: MemoryNode) -> DirectoryService:
    return MemoryDirectoryService()


def _local(builder: Builder, name: str, node: LocalNode) -> DirectoryService:
    store = builder.stores.at(node.path, node)

    def make() -> DirectoryService:
        service = LocalDirectoryService(
            store.engine.table("directories"), references=store.references
        )
        store.collector.on_freed(service.forget)
        return service

    return builder.share(("directories", node.path.resolve()), make)


def _cache(builder: Builder, name: str, node: CacheNode) -> DirectoryService:
    near, far = builder.directories(node.near), builder.directories(node.far)
    service = CachedDirectoryService(near, far, builder.metrics, builder.stores.holds)
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _race(builder: Builder, name: str, node: RaceNode) -> DirectoryService:
    members = [builder.directories(member) for member in node.members]
    return RacingDirectoryService(members, node.members, node.hedge)


def _fallback(builder: Builder, name: str, node: FallbackNode) -> DirectoryService:
    members = [builder.directories(member) for member in node.members]
    return FallbackDirectoryService(members, node.members)


def _verify(builder: Builder, name: str, node: VerifyNode) -> DirectoryService:
    return VerifyDirectoryService(builder.directories(node.inner))


def _readonly(builder: Builder, name: str, node: ReadOnlyNode) -> DirectoryService:
    return ReadOnlyDirectoryService(builder.directories(node.inner))


# One row a node type; the node that a maker gets is of that type.
DIRECTORY_MAKERS: Mapping[type[Node], Callable[[Builder, str, Any], DirectoryService]] = {
    MemoryNode: _memory,
    LocalNode: _local,
    GrpcNode: grpc_directories,
    CacheNode: _cache,
    RaceNode: _race,
    FallbackNode: _fallback,
    VerifyNode: _verify,
    ReadOnlyNode: _readonly,
}
