"""What makes a directory service of each type of node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvixstore.compose.make_grpc import grpc_directories
from tvixstore.compose.make_policies import (
    absences_of,
    breaker_of,
    chaos_of,
    hedging_of,
    limit_of,
    placement_of,
    retry_of,
    timeout_of,
)
from tvixstore.compose.making import Makers, Making
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

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


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


_making: Making[DirectoryService] = Making(
    "directories", "directory", lambda builder: builder.directories
)

# One row a node type.
DIRECTORY_MAKERS: Makers[DirectoryService] = {
    MemoryNode: _making.alone(MemoryDirectoryService),
    LocalNode: _local,
    GrpcNode: grpc_directories,
    CacheNode: _cache,
    RaceNode: _making.among_by(RacingDirectoryService, hedging_of),
    FallbackNode: _making.among(FallbackDirectoryService),
    VerifyNode: _making.around(VerifyDirectoryService),
    ReadOnlyNode: _making.around(ReadOnlyDirectoryService),
    TimeoutNode: _making.around_by(TimeoutDirectoryService, timeout_of),
    RetryNode: _making.around_by(RetryDirectoryService, retry_of),
    BreakerNode: _making.around_by(BreakerDirectoryService, breaker_of),
    NegativeNode: _making.around_by(NegativeDirectoryService, absences_of),
    LimitNode: _making.around_by(LimitDirectoryService, limit_of),
    MirrorNode: _making.mirror(MirrorDirectoryService),
    ShardNode: _making.among_by(ShardDirectoryService, placement_of),
    ChaosNode: _making.around_by(ChaosDirectoryService, chaos_of),
    NothingNode: _making.alone(NoDirectories),
}
