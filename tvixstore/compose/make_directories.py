"""What makes a directory service of each type of node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tvixstore.compose.make_grpc import grpc_directories
from tvixstore.compose.make_policies import (
    breaker_of,
    chaos_of,
    hedging_of,
    limit_of,
    placement_of,
    retry_of,
    timeout_of,
)
from tvixstore.compose.nodes import (
    BreakerNode,
    CacheNode,
    ChaosNode,
    FallbackNode,
    GrpcNode,
    LimitNode,
    LocalNode,
    MemoryNode,
    MirrorNode,
    NegativeNode,
    Node,
    NothingNode,
    RaceNode,
    ReadOnlyNode,
    RetryNode,
    ShardNode,
    TimeoutNode,
    VerifyNode,
)
from tvixstore.directory import DirectoryService, LocalDirectoryService, MemoryDirectoryService
from tvixstore.directory.breaker import BreakerDirectoryService
from tvixstore.directory.cached import CachedDirectoryService
from tvixstore.directory.chaos import ChaosDirectoryService
from tvixstore.directory.fallback import FallbackDirectoryService
from tvixstore.directory.limit import LimitDirectoryService
from tvixstore.directory.mirror import MirrorDirectoryService
from tvixstore.directory.negative import NegativeDirectoryService
from tvixstore.directory.nothing import NoDirectories
from tvixstore.directory.racing import RacingDirectoryService
from tvixstore.directory.readonly import ReadOnlyDirectoryService
from tvixstore.directory.retry import RetryDirectoryService
from tvixstore.directory.shard import ShardDirectoryService
from tvixstore.directory.timeout import TimeoutDirectoryService
from tvixstore.directory.verify import VerifyDirectoryService
from tvixstore.policy.negative import Absences

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
        builder.closing_services.callback(store.collector.no_longer, service.forget)
        return service

    return builder.share(("directories", node.path.resolve()), make)


def _cache(builder: Builder, name: str, node: CacheNode) -> DirectoryService:
    near, far = builder.directories(node.near), builder.directories(node.far)
    service = CachedDirectoryService(
        near, far, builder.metrics, builder.stores.holds, node.far, builder.fills.activity
    )
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _race(builder: Builder, name: str, node: RaceNode) -> DirectoryService:
    members = [builder.directories(member) for member in node.members]
    return RacingDirectoryService(
        members, node.members, hedging_of(builder, "directories", name, node)
    )


def _fallback(builder: Builder, name: str, node: FallbackNode) -> DirectoryService:
    members = [builder.directories(member) for member in node.members]
    return FallbackDirectoryService(members, node.members)


def _verify(builder: Builder, name: str, node: VerifyNode) -> DirectoryService:
    return VerifyDirectoryService(builder.directories(node.inner))


def _readonly(builder: Builder, name: str, node: ReadOnlyNode) -> DirectoryService:
    return ReadOnlyDirectoryService(builder.directories(node.inner))


def _timeout(builder: Builder, name: str, node: TimeoutNode) -> DirectoryService:
    timeout = timeout_of(builder, "directories", node)
    return TimeoutDirectoryService(builder.directories(node.inner), timeout)


def _retry(builder: Builder, name: str, node: RetryNode) -> DirectoryService:
    return RetryDirectoryService(builder.directories(node.inner), retry_of(name, node))


def _breaker(builder: Builder, name: str, node: BreakerNode) -> DirectoryService:
    breaker = breaker_of(builder, "directories", name, node)
    return BreakerDirectoryService(builder.directories(node.inner), breaker)


def _negative(builder: Builder, name: str, node: NegativeNode) -> DirectoryService:
    inner = builder.directories(node.inner)
    service = NegativeDirectoryService(inner, Absences(node.ttl, node.capacity))
    builder.directories_arriving.subscribe(service.absences)
    builder.closing_services.callback(builder.directories_arriving.unsubscribe, service.absences)
    return service


def _limit(builder: Builder, name: str, node: LimitNode) -> DirectoryService:
    return LimitDirectoryService(
        builder.directories(node.inner), limit_of(builder, "directories", name, node)
    )


def _mirror(builder: Builder, name: str, node: MirrorNode) -> DirectoryService:
    service = MirrorDirectoryService(
        [builder.directories(member) for member in node.members],
        node.members,
        node.enough(),
        node.repair,
        builder.metrics.repairs_of("directory", name),
    )
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _shard(builder: Builder, name: str, node: ShardNode) -> DirectoryService:
    members = [builder.directories(member) for member in node.members]
    return ShardDirectoryService(members, node.members, placement_of(node))


def _chaos(builder: Builder, name: str, node: ChaosNode) -> DirectoryService:
    chaos = chaos_of("directories", name, node)
    return ChaosDirectoryService(builder.directories(node.inner), chaos)


def _nothing(builder: Builder, name: str, node: NothingNode) -> DirectoryService:
    return NoDirectories()


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
    TimeoutNode: _timeout,
    RetryNode: _retry,
    BreakerNode: _breaker,
    NegativeNode: _negative,
    LimitNode: _limit,
    MirrorNode: _mirror,
    ShardNode: _shard,
    ChaosNode: _chaos,
    NothingNode: _nothing,
}
