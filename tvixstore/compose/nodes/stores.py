"""The nodes at a graph's leaves: what is kept on this machine, and what is asked over a network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tvixstore.compose.key_types import (
    LATER,
    BinaryCacheUrl,
    ConfigPath,
    GrpcUrl,
    Keys,
    PositiveDuration,
    Size,
)
from tvixstore.compose.model import Connection, Store
from tvixstore.compose.nodes.base import Node, WithContent
from tvixstore.compose.values import quote, split_url


class MemoryNode(Node):
    """In memory, as long as the process lives."""

    type: Literal["memory"] = "memory"


class MemoryPathInfoNode(MemoryNode, WithContent):
    pass


class LocalNode(Store, Node):
    """On this machine's disk. Nodes with the same path share one engine."""

    type: Literal["local"] = "local"
    path: ConfigPath


class LocalPathInfoNode(LocalNode, WithContent):
    """Path infos on this machine's disk, with the services that hold their content."""


def _object_store_url(value: object) -> str:
    example = 'write "file:///absolute/path" or "memory:///"'
    if not isinstance(value, str):
        raise ValueError(f"{quote(value)} is not a URL: {example}")
    parts = split_url(value)
    if parts.scheme not in ("file", "memory") and "://" in value:
        raise ValueError(f'the scheme "{parts.scheme}" {LATER}: {example}')
    if "://" not in value or parts.query or parts.fragment:
        raise ValueError(f"{quote(value)} is not a URL that this takes: {example}")
    if parts.scheme == "memory" and (parts.netloc or parts.path not in ("", "/")):
        raise ValueError(f'{quote(value)}: memory has no places: write "memory:///"')
    if parts.scheme == "file" and (parts.netloc not in ("", "localhost") or len(parts.path) < 2):
        raise ValueError(f'{quote(value)} names no folder: write "file:///absolute/path"')
    return value


def _object_store_options(value: object) -> object:
    if value:
        raise ValueError("has nothing in it that file:// and memory:// know: write {}")
    return value


class ObjectStoreNode(Node):
    """A bucket in the layout of tvix and snix, which may be shared with them."""

    type: Literal["objectstore"] = "objectstore"
    object_store_url: Annotated[str, BeforeValidator(_object_store_url)]
    object_store_options: Annotated[dict[str, str], BeforeValidator(_object_store_options)] = {}
    avg_chunk_size: Annotated[Size, Field(ge=4 << 10, le=2 << 20)] = 256 << 10


class GrpcNode(Node):
    """Another daemon: tvix's, snix's or one of ours."""

    type: Literal["grpc"] = "grpc"
    url: GrpcUrl
    # "auto" speaks to either, at the cost of one more request.
    protocol: Literal["auto", "tvix", "snix"] = "auto"
    timeout: PositiveDuration = 30.0
    # The token that it is shown.
    token_file: ConfigPath | None = None
    # Who may have signed its certificate, beside the system's authorities.
    ca_file: ConfigPath | None = None
    # Our own certificate and its key, where it lets in nobody without one.
    client_cert: ConfigPath | None = None
    client_key: ConfigPath | None = None


class GrpcPathInfoNode(GrpcNode, WithContent):
    pass


class NixNode(Connection, WithContent):
    """A binary cache that speaks HTTP, or a folder in the same form."""

    type: Literal["nix"] = "nix"
    base_url: BinaryCacheUrl
    # Absent: nothing is verified but hashes.
    public_keys: Keys | None = None


class LruNode(Node):
    """The path infos that were used last, in memory."""

    type: Literal["lru"] = "lru"
    capacity: Annotated[int, Field(ge=1, le=1 << 40)]
