"""The node types of a composition: one model each, as `type = …` names them.

The short form is lowered to these, and there is no other way to build anything.
"""

from tvixstore.compose.nodes.base import Kind, Node, Reference, WithContent
from tvixstore.compose.nodes.lowered import (
    CountersigningNode,
    NamesNode,
    NothingNode,
    OptionalNode,
    SignatureRequiredNode,
)
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
from tvixstore.compose.nodes.types import NODE_TYPES, REFUSED_TYPES

__all__ = [
    "BreakerNode",
    "CacheNode",
    "ChaosNode",
    "CountersigningNode",
    "FallbackNode",
    "GrpcNode",
    "GrpcPathInfoNode",
    "KeyfileSigningNode",
    "Kind",
    "LimitNode",
    "LocalNode",
    "LocalPathInfoNode",
    "LruNode",
    "MemoryNode",
    "MemoryPathInfoNode",
    "MirrorNode",
    "NODE_TYPES",
    "NamesNode",
    "NegativeNode",
    "NixNode",
    "Node",
    "NothingNode",
    "ObjectStoreNode",
    "OptionalNode",
    "REFUSED_TYPES",
    "RaceNode",
    "ReadOnlyNode",
    "Reference",
    "RetryNode",
    "ShardNode",
    "SignatureRequiredNode",
    "TimeoutNode",
    "VerifyNode",
    "VerifyPathInfoNode",
    "WithContent",
]
