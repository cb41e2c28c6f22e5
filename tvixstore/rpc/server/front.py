"""The gRPC front door, as whoever composes it sees it: what it serves, and how much it bears."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from tvixstore.access import Access
from tvixstore.activity import Activity
from tvixstore.explain import Explanations
from tvixstore.listen import half_of_files
from tvixstore.metrics import Metrics
from tvixstore.nar import NarIdentities
from tvixstore.pathinfo import PathInfoService
from tvixstore.policy.uses import Uses
from tvixstore.pools import Pools
from tvixstore.rpc.codec import MAX_MESSAGE_BYTES
from tvixstore.tree import Content
from tvixstore.upkeep import Upkeep


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of us; more is RESOURCE_EXHAUSTED, before it is in memory."""

    message_bytes: int = MAX_MESSAGE_BYTES
    # Of a closure that is put, as it comes over the wire: it is held until it is whole.
    closure_bytes: int = 64 * 1024 * 1024
    # Seconds for which a client may neither send the next part of a message nor take one.
    stall: float = 300.0
    # Of all clients together.
    connections: int = field(default_factory=lambda: half_of_files() // 2)
    calls: int = 5000


@dataclass(eq=False)
class GrpcFront:
    """The services of tvix and snix, and our own, over those given; `serve` listens for it."""

    path_infos: PathInfoService
    content: Content
    # By which CalculateNAR answers, and what is put is checked; whoever made it closes it.
    nars: NarIdentities
    metrics: Metrics
    pools: Pools
    # Who may do what.
    access: Access = field(default_factory=lambda: Access.of("read"))
    # What operators ask of the store, if there is one.
    upkeep: Upkeep | None = None
    # Has absences of some paths, or all, forgotten; how many there were.
    forget_absences: Callable[[Collection[bytes]], Awaitable[int]] | None = None
    # What is under way, for those who watch.
    activity: Activity = field(default_factory=Activity)
    # Whether each call is logged.
    access_log: bool = False
    # What is told of requests afterwards; a daemon's front doors share one.
    explanations: Explanations = field(default_factory=Explanations)
    limits: Limits = field(default_factory=Limits)
    # Counts the calls that began while this was the front.
    uses: Uses = field(default_factory=Uses)
