"""One upstream per scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvixstore.errors import ConfigError
from tvixstore.pathinfo.nix.file_upstream import FileUpstream
from tvixstore.pathinfo.nix.http_upstream import HttpUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tvixstore.pathinfo.nix.settings import UpstreamSettings
    from tvixstore.pathinfo.nix.upstream import Upstream
    from tvixstore.pools import Pools

TRANSPORTS: dict[str, Callable[[UpstreamSettings, Pools], Upstream]] = {
    "http": HttpUpstream,
    "https": HttpUpstream,
    "file": FileUpstream,
}


def open_upstream(settings: UpstreamSettings, pools: Pools) -> Upstream:
    """The cache at `settings.url`; connects to nothing yet. Raises `ConfigError`."""
    scheme = settings.url.partition(":")[0].lower()
    if scheme not in TRANSPORTS:
        known = ", ".join(TRANSPORTS)
        raise ConfigError(f"{settings.name}: no cache can be reached by {scheme}:, only {known}")
    return TRANSPORTS[scheme](settings, pools)
