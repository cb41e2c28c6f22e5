"""What makes a blob service of each type of node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tvixstore.blob import BlobService, LocalBlobService, MemoryBlobService
from tvixstore.blob.breaker import BreakerBlobService
from tvixstore.blob.cached import CachedBlobService
from tvixstore.blob.chaos import ChaosBlobService
from tvixstore.blob.fallback import FallbackBlobService
from tvixstore.blob.limit import LimitBlobService
from tvixstore.blob.mirror import MirrorBlobService
from tvixstore.blob.negative import NegativeBlobService
from tvixstore.blob.nothing import NoBlobs
from tvixstore.blob.objectstore import ObjectStoreBlobService
from tvixstore.blob.racing import RacingBlobService
from tvixstore.blob.readonly import ReadOnlyBlobService
from tvixstore.blob.retry import RetryBlobService
from tvixstore.blob.shard import ShardBlobService
from tvixstore.blob.timeout import TimeoutBlobService
from tvixstore.blob.verify import VerifyBlobService
from tvixstore.compose.make_grpc import grpc_blobs
from tvixstore.compose.make_policies import (
    breaker_of,
    chaos_of,
    hedging_of,
    limit_of,
    placement_of,
    retry_of,
    timeout_of,
)
from tvixstore.compose.model import Store
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
    ObjectStoreNode,
    RaceNode,
    ReadOnlyNode,
    RetryNode,
    ShardNode,
    TimeoutNode,
    VerifyNode,
)
from tvixstore.policy.negative import Absences

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


def _memory(builder: Builder, name: str, node: MemoryNode) -> BlobService:
    return MemoryBlobService()


def _local(builder: Builder, name: str, node: LocalNode) -> BlobService:
    store = builder.stores.at(node.path, node)

    def make() -> BlobService:
        service = LocalBlobService(
            store.engine.table("blobs"),
            store.engine.table("chunks"),
            node.path,
            builder.pools,
            chunk_size=node.chunk_size,
            compression=node.compression,
            durability=node.durability,
            guard=store.guard,
            metrics=builder.metrics,
            references=store.references,
        )
        builder.stores.sweep(store, service.sweep)
        # What is written from now on is cut and compressed as the file says from now on.
        builder.live(lambda builder: _write_as(service, builder.stores.settings(node.path)))
        return service

    return builder.share(("blobs", node.path.resolve()), make)


def _write_as(service: LocalBlobService, settings: Store) -> None:
    service.write_as(settings.chunk_size, settings.compression)


def _objectstore(builder: Builder, name: str, node: ObjectStoreNode) -> BlobService:
    return ObjectStoreBlobService.at(node.object_store_url, builder.pools, node.avg_chunk_size)


def _cache(builder: Builder, name: str, node: CacheNode) -> BlobService:
    near, far = builder.blobs(node.near), builder.blobs(node.far)
    service = CachedBlobService(
        near,
        far,
        builder.spool,
        builder.pools,
        builder.metrics,
        builder.stores.holds,
        node.far,
        builder.fills.activity,
    )
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _race(builder: Builder, name: str, node: RaceNode) -> BlobService:
    members = [builder.blobs(member) for member in node.members]
    return RacingBlobService(members, node.members, hedging_of(builder, "blobs", name, node))


def _fallback(builder: Builder, name: str, node: FallbackNode) -> BlobService:
    return FallbackBlobService([builder.blobs(member) for member in node.members], node.members)


def _verify(builder: Builder, name: str, node: VerifyNode) -> BlobService:
    return VerifyBlobService(builder.blobs(node.inner))


def _readonly(builder: Builder, name: str, node: ReadOnlyNode) -> BlobService:
    return ReadOnlyBlobService(builder.blobs(node.inner))


def _timeout(builder: Builder, name: str, node: TimeoutNode) -> BlobService:
    return TimeoutBlobService(builder.blobs(node.inner), timeout_of(builder, "blobs", node))


def _retry(builder: Builder, name: str, node: RetryNode) -> BlobService:
    return RetryBlobService(builder.blobs(node.inner), retry_of(name, node))


def _breaker(builder: Builder, name: str, node: BreakerNode) -> BlobService:
    return BreakerBlobService(builder.blobs(node.inner), breaker_of(builder, "blobs", name, node))


def _negative(builder: Builder, name: str, node: NegativeNode) -> BlobService:
    service = NegativeBlobService(builder.blobs(node.inner), Absences(node.ttl, node.capacity))
    builder.blobs_arriving.subscribe(service.absences)
    builder.closing_services.callback(builder.blobs_arriving.unsubscribe, service.absences)
    return service


def _limit(builder: Builder, name: str, node: LimitNode) -> BlobService:
    return LimitBlobService(builder.blobs(node.inner), limit_of(builder, "blobs", name, node))


def _mirror(builder: Builder, name: str, node: MirrorNode) -> BlobService:
    service = MirrorBlobService(
        [builder.blobs(member) for member in node.members],
        node.members,
        node.enough(),
        node.repair,
        builder.metrics.repairs_of("blob", name),
    )
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _shard(builder: Builder, name: str, node: ShardNode) -> BlobService:
    members = [builder.blobs(member) for member in node.members]
    return ShardBlobService(members, node.members, placement_of(node), builder.spool, builder.pools)


def _chaos(builder: Builder, name: str, node: ChaosNode) -> BlobService:
    return ChaosBlobService(builder.blobs(node.inner), chaos_of("blobs", name, node))


def _nothing(builder: Builder, name: str, node: NothingNode) -> BlobService:
    return NoBlobs()


# One row a node type; the node that a maker gets is of that type.
BLOB_MAKERS: Mapping[type[Node], Callable[[Builder, str, Any], BlobService]] = {
    MemoryNode: _memory,
    LocalNode: _local,
    ObjectStoreNode: _objectstore,
    GrpcNode: grpc_blobs,
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
