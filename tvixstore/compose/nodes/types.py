"""What `type =` may say, a kind of service each, and what is said of other words."""

from __future__ import annotations

from tvixstore.compose.key_types import LATER
from tvixstore.compose.nodes.base import Kind, Node
from tvixstore.compose.nodes.members import CacheNode, FallbackNode, MirrorNode, RaceNode, ShardNode
from tvixstore.compose.nodes.policies import (
    BreakerNode,
    ChaosNode,
    KeyfileSigningNode,
    LimitNode,
    NegativeNode,
    ReadOnlyNode,
    RetryNode,
    TimeoutNode,
    VerifyNode,
    VerifyPathInfoNode,
)
from tvixstore.compose.nodes.stores import (
    GrpcNode,
    GrpcPathInfoNode,
    LocalNode,
    LocalPathInfoNode,
    LruNode,
    MemoryNode,
    MemoryPathInfoNode,
    NixNode,
    ObjectStoreNode,
)

_ANYWHERE: dict[str, type[Node]] = {
    "memory": MemoryNode,
    "local": LocalNode,
    "grpc": GrpcNode,
    "cache": CacheNode,
    "race": RaceNode,
    "fallback": FallbackNode,
    "verify": VerifyNode,
    "readonly": ReadOnlyNode,
    "timeout": TimeoutNode,
    "retry": RetryNode,
    "breaker": BreakerNode,
    "negative": NegativeNode,
    "limit": LimitNode,
    "mirror": MirrorNode,
    "shard": ShardNode,
    "chaos": ChaosNode,
}
# One row a `type =` that a table may have, a kind of service each. `optional`, `names`, `nothing`,
# `countersigning` and `signature-required` are not among them: only lowering makes those.
NODE_TYPES: dict[Kind, dict[str, type[Node]]] = {
    "blobs": {**_ANYWHERE, "combined": CacheNode, "objectstore": ObjectStoreNode},
    "directories": _ANYWHERE,
    "path_infos": {
        **_ANYWHERE,
        "memory": MemoryPathInfoNode,
        "local": LocalPathInfoNode,
        "grpc": GrpcPathInfoNode,
        "verify": VerifyPathInfoNode,
        "nix": NixNode,
        "lru": LruNode,
        "keyfile-signing": KeyfileSigningNode,
    },
}

_LOCAL_INSTEAD = 'is not ours: write type = "local" and path = "./state" instead'
# What is to be said of types that are documented, here or upstream, and that we do not have.
REFUSED_TYPES: dict[Kind, dict[str, str]] = {
    "blobs": {},
    "directories": {
        "redb": _LOCAL_INSTEAD,
        "bigtable": _LOCAL_INSTEAD,
        "objectstore": (
            f'{LATER} for directories: write type = "local" and path = "./state" instead'
        ),
    },
    "path_infos": {
        "redb": _LOCAL_INSTEAD,
        "bigtable": _LOCAL_INSTEAD,
    },
}
