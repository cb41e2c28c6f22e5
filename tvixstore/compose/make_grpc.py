"""What makes services of nodes that are other daemons: one peer an address, whatever is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvixstore.blob import BlobService
from tvixstore.compose.health import UpstreamHealth
from tvixstore.compose.nodes import GrpcNode, GrpcPathInfoNode
from tvixstore.compose.parts import files_of
from tvixstore.directory import DirectoryService
from tvixstore.pathinfo import PathInfoService
from tvixstore.rpc.client import (
    GrpcBlobService,
    GrpcDirectoryService,
    GrpcPathInfoService,
    Peer,
)

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


def grpc_blobs(builder: Builder, name: str, node: GrpcNode) -> BlobService:
    return GrpcBlobService(_peer(builder, node))


def grpc_directories(builder: Builder, name: str, node: GrpcNode) -> DirectoryService:
    return GrpcDirectoryService(_peer(builder, node))


def grpc_path_infos(builder: Builder, name: str, node: GrpcPathInfoNode) -> PathInfoService:
    content = builder.content(node.blob_service, node.directory_service)
    watch_health(builder, name, node.url)
    return GrpcPathInfoService(_peer(builder, node), content, builder.fills)


def watch_health(builder: Builder, name: str, url: str) -> None:
    """Has it noted how the upstream of that name is, as long as it is the same place."""

    def make() -> UpstreamHealth:
        health = UpstreamHealth(name, 1, builder.metrics)
        # Unless something above it makes more attempts, which says so after this.
        builder.live(lambda _: health.expect(1))
        return health

    builder.tell("health", name, builder.share(("health", name, url), make))


def _peer(builder: Builder, node: GrpcNode) -> Peer:
    def make() -> Peer:
        peer = Peer.at(
            node.url,
            protocol=node.protocol,
            timeout=node.timeout,
            pools=builder.pools,
            token_file=node.token_file,
            ca_file=node.ca_file,
            client_cert=node.client_cert,
            client_key=node.client_key,
        )
        builder.closing_upstreams.push_async_callback(peer.aclose)
        if peer.wait_connect:
            builder.connecting.append(peer)
        return peer

    # Nodes that are to ask it differently have a peer each.
    keys = ("url", "protocol", "timeout", "token_file", "ca_file", "client_cert", "client_key")
    settings = (getattr(node, key) for key in keys)
    return builder.share(("peer", *settings, *files_of(node)), make)
