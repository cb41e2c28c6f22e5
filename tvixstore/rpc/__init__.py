"""gRPC: the services of tvix and snix, and one of our own, served to others and used of others."""

from tvixstore.rpc.server import GrpcFront, GrpcServer, Limits, serve

__all__ = ["GrpcFront", "GrpcServer", "Limits", "serve"]
