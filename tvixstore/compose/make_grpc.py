"""What makes services of nodes that are other daemons: one peer an address, whatever is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvixstore.blob import BlobService
from tvixstore.compose.health import UpstreamHealth
from tvixstore.compose.nodes import GrpcNode, GrpcPathInfoNode
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
    builder.health[name] = UpstreamHealth(name, 1, builder.metrics)
    return GrpcPathInfoService(_peer(builder, node), content, builder.fills)


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
    return builder.share(("peer", *(getattr(node, key) for key in keys)), make)
