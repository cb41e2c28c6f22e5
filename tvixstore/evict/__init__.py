"""Eviction: what was read longest ago goes where there is too much, and all that only it needed."""

from tvixstore.evict.candidates import Candidates
from tvixstore.evict.check import check
from tvixstore.evict.collector import Collector
from tvixstore.evict.edges import StoredEdges
from tvixstore.evict.evictor import Evictor
from tvixstore.evict.limits import Limits
from tvixstore.evict.pins import pinned_closures
from tvixstore.evict.rebuild import Rebuilt, rebuild, rebuild_now

__all__ = [
    "Candidates",
    "Collector",
    "Evictor",
    "Limits",
    "Rebuilt",
    "StoredEdges",
    "check",
    "pinned_closures",
    "rebuild",
    "rebuild_now",
]
