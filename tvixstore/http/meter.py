"""Requests of the HTTP front door, counted: label children are bound once and kept."""

from __future__ import annotations

from tvixstore.metrics import Metrics
from tvixstore.tallies import Count, Spread

_FRONT = "http"


class Meter:
    """How many requests, how they ended, how long they took and what they sent."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.requests
        self._seconds = metrics.request_seconds
        self._bytes = metrics.response_bytes.labels(_FRONT)
        self._bound_requests: dict[tuple[str, int, str], Count] = {}
        self._bound_seconds: dict[str, Spread] = {}

    def observe(self, route: str, status: int, outcome: str, seconds: float, sent: int) -> None:
        """One finished request; `sent` counts the bytes of its body."""
        counter = self._bound_requests.get((route, status, outcome))
        if counter is None:
            counter = self._requests.labels(_FRONT, route, status, outcome)
            self._bound_requests[route, status, outcome] = counter
        counter.inc()
        histogram = self._bound_seconds.get(route)
        if histogram is None:
            histogram = self._bound_seconds[route] = self._seconds.labels(_FRONT, route)
        histogram.observe(seconds)
        if sent:
            self._bytes.inc(sent)
