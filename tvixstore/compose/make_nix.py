"""What makes a service of a node that is a binary cache; its connections outlive some changes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tvixstore.compose.make_grpc import watch_health
from tvixstore.compose.nodes import NixNode
from tvixstore.compose.parts import files_of
from tvixstore.nix import KeyRing
from tvixstore.pathinfo import PathInfoService
from tvixstore.pathinfo.nix import NixPathInfoService, Upstream, UpstreamSettings
from tvixstore.pathinfo.nix.transports import open_upstream
from tvixstore.policy.limit import TokenBucket

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


def nix_path_infos(builder: Builder, name: str, node: NixNode) -> PathInfoService:
    settings = UpstreamSettings(
        url=node.base_url,
        name=name,
        timeout=node.timeout,
        connect_timeout=node.connect_timeout,
        stall_timeout=node.stall_timeout,
        max_connections=node.max_connections,
        netrc_file=node.netrc_file,
        token_file=node.token_file,
        ca_file=node.ca_file,
        proxy=node.proxy,
    )

    def connect() -> Upstream:
        upstream = open_upstream(settings, builder.pools)
        builder.closing_upstreams.push_async_callback(upstream.aclose)
        return upstream

    # What does not concern the connection leaves it alone: keys, TTLs, where the content goes.
    upstream = builder.share(("upstream", settings, *files_of(node)), connect)
    builder.tell("upstreams", name, upstream)
    service = NixPathInfoService(
        upstream=upstream,
        content=builder.content(node.blob_service, node.directory_service),
        fills=builder.fills,
        remembered=builder.remembered,
        key=_remembered_as(node.base_url),
        keys=None if node.public_keys is None else KeyRing(node.public_keys),
        retries=node.retries,
        bucket=_bucket(builder, name, node.rate),
        narinfo_ttl=builder.daemon.narinfo_ttl,
        negative_ttl=builder.daemon.negative_ttl,
    )
    builder.closing_services.push_async_callback(service.aclose)
    watch_health(builder, name, node.base_url)
    return service


def _bucket(builder: Builder, name: str, rate: int | None) -> TokenBucket | None:
    return None if rate is None else builder.share(("rate", name, rate), lambda: TokenBucket(rate))


def _remembered_as(url: str) -> bytes:
    """What its answers are kept under: the same as long as it is the same place."""
    place = urlsplit(url)
    without_user = f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path.rstrip('/')}"
    return hashlib.sha256(without_user.encode()).digest()[:16]
