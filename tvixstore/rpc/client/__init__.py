"""Other daemons as tiers: a peer, and its three services."""

from tvixstore.rpc.client.activity import watch
from tvixstore.rpc.client.admin import GrpcUpkeep
from tvixstore.rpc.client.blobs import GrpcBlobService
from tvixstore.rpc.client.directories import GrpcDirectoryService
from tvixstore.rpc.client.insight import explain
from tvixstore.rpc.client.path_infos import GrpcPathInfoService
from tvixstore.rpc.client.peer import Peer

__all__ = [
    "GrpcBlobService",
    "GrpcDirectoryService",
    "GrpcPathInfoService",
    "GrpcUpkeep",
    "Peer",
    "watch",
    "explain",
]
