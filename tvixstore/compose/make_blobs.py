"""What makes a blob service of each type of node."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    NothingNode,
    ObjectStoreNode,
    RaceNode,
    ReadOnlyNode,
    RetryNode,
    ShardNode,
    TimeoutNode,
    VerifyNode,
)

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


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


def _shard(builder: Builder, name: str, node: ShardNode) -> BlobService:
    members = [builder.blobs(member) for member in node.members]
    return ShardBlobService(
        members,
        node.members,
        placement_of(builder, "blobs", name, node),
        builder.spool,
        builder.pools,
    )


_making: Making[BlobService] = Making("blobs", "blob", lambda builder: builder.blobs)

# One row a node type.
BLOB_MAKERS: Makers[BlobService] = {
    MemoryNode: _making.alone(MemoryBlobService),
    LocalNode: _local,
    ObjectStoreNode: _objectstore,
    GrpcNode: grpc_blobs,
    CacheNode: _cache,
    RaceNode: _making.among_by(RacingBlobService, hedging_of),
    FallbackNode: _making.among(FallbackBlobService),
    VerifyNode: _making.around(VerifyBlobService),
    ReadOnlyNode: _making.around(ReadOnlyBlobService),
    TimeoutNode: _making.around_by(TimeoutBlobService, timeout_of),
    RetryNode: _making.around_by(RetryBlobService, retry_of),
    BreakerNode: _making.around_by(BreakerBlobService, breaker_of),
    NegativeNode: _making.around_by(NegativeBlobService, absences_of),
    LimitNode: _making.around_by(LimitBlobService, limit_of),
    MirrorNode: _making.mirror(MirrorBlobService),
    ShardNode: _shard,
    ChaosNode: _making.around_by(ChaosBlobService, chaos_of),
    NothingNode: _making.alone(NoBlobs),
}
