"""The gRPC front door: the services of tvix and snix, and what daemons of ours ask each other."""

from tvixstore.rpc.server.front import GrpcFront, Limits
from tvixstore.rpc.server.server import GrpcServer, serve
from tvixstore.rpc.server.services import services

__all__ = ["GrpcFront", "GrpcServer", "Limits", "serve", "services"]
