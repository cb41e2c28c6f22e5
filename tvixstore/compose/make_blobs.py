"""What makes a blob service of each type of node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tvixstore.blob import BlobService, LocalBlobService, MemoryBlobService
from tvixstore.blob.cached import CachedBlobService
from tvixstore.blob.fallback import FallbackBlobService
from tvixstore.blob.objectstore import ObjectStoreBlobService
from tvixstore.blob.racing import RacingBlobService
from tvixstore.blob.readonly import ReadOnlyBlobService
from tvixstore.blob.verify import VerifyBlobService
from tvixstore.compose.make_grpc import grpc_blobs
from tvixstore.compose.nodes import (
    CacheNode,
    FallbackNode,
    GrpcNode,
    LocalNode,
    MemoryNode,
    Node,
    ObjectStoreNode,
    RaceNode,
    ReadOnlyNode,
    VerifyNode,
)

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
        return service

    return builder.share(("blobs", node.path.resolve()), make)


def _objectstore(builder: Builder, name: str, node: ObjectStoreNode) -> BlobService:
    return ObjectStoreBlobService.at(node.object_store_url, builder.pools, node.avg_chunk_size)


def _cache(builder: Builder, name: str, node: CacheNode) -> BlobService:
    near, far = builder.blobs(node.near), builder.blobs(node.far)
    service = CachedBlobService(
        near, far, builder.spool, builder.pools, builder.metrics, builder.stores.holds
    )
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _race(builder: Builder, name: str, node: RaceNode) -> BlobService:
    members = [builder.blobs(member) for member in node.members]
    return RacingBlobService(members, node.members, node.hedge)


def _fallback(builder: Builder, name: str, node: FallbackNode) -> BlobService:
    return FallbackBlobService([builder.blobs(member) for member in node.members], node.members)


def _verify(builder: Builder, name: str, node: VerifyNode) -> BlobService:
    return VerifyBlobService(builder.blobs(node.inner))


def _readonly(builder: Builder, name: str, node: ReadOnlyNode) -> BlobService:
    return ReadOnlyBlobService(builder.blobs(node.inner))


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
}
