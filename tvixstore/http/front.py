"""The HTTP front door, as whoever composes it sees it: what it serves, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tvixstore.access import Access
from tvixstore.activity import Activity
from tvixstore.explain import Explanations
from tvixstore.extras import CachedExtras
from tvixstore.http.limits import Limits
from tvixstore.metrics import Metrics
from tvixstore.nix import KeyRing
from tvixstore.pathinfo import PathInfoService
from tvixstore.pathinfo.receiving import Receiver
from tvixstore.pathinfo.uploads import Uploads
from tvixstore.policy.uses import Uses
from tvixstore.pools import Pools
from tvixstore.tree import Content


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """One substituter, for `/readyz`; `since` in Unix seconds, `last_error` if there was one."""

    name: str
    up: bool
    since: float
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Inbox:
    """Where what is uploaded goes."""

    receiver: Receiver
    uploads: Uploads
    # One of these has to have signed a realisation that is put.
    required: KeyRing | None = None

    @property
    def pools(self) -> Pools:
        return self.receiver.pools


def _nothing() -> None:
    return None


def _no_upstreams() -> Sequence[UpstreamStatus]:
    return ()


@dataclass(eq=False)
class HttpFront:
    """A Nix binary cache over the services given; `serve` listens for it."""

    path_infos: PathInfoService
    content: Content
    metrics: Metrics
    # What nix-cache-info says; clients ask caches with lower ones first.
    priority: int = 30
    # Where what is put goes. Without it nothing is taken.
    inbox: Inbox | None = None
    # Realisations, build traces, logs and debug information.
    extras: CachedExtras | None = None
    # How narinfos say that NARs are compressed.
    nar_compression: Literal["none", "zstd"] = "none"
    # Where NARs are encoded; without any, in the loop.
    pools: Pools | None = None
    # Whether each request is logged.
    access_log: bool = False
    # What is under way, for those who watch.
    activity: Activity = field(default_factory=Activity)
    # What is told of requests afterwards; a daemon's front doors share one.
    explanations: Explanations = field(default_factory=Explanations)
    # Who may do what.
    access: Access = field(default_factory=lambda: Access.of("read"))
    limits: Limits = field(default_factory=Limits)
    status: Callable[[], Sequence[UpstreamStatus]] = _no_upstreams
    # Why this daemon cannot be used yet, or any more; `None` if it can.
    ready: Callable[[], str | None] = _nothing
    # Counts the requests that began while this was the front.
    uses: Uses = field(default_factory=Uses)
    # Called before `/metrics` is written, for gauges that are read rather than counted.
    refresh_metrics: Callable[[], None] = _nothing
