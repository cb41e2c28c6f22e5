"""What operators scrape: every metric that the package counts, under its fixed name.

One `Metrics` belongs to one composition (its own registry), so that several can live in a process.
Label children are bound once and kept: a call then costs well under a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from tvixstore.tallies import Count, Counts, Spread, Spreads

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class NodeMeter:
    """Calls of one node of the composition: how many, how they ended, how long, how much."""

    def __init__(self, metrics: Metrics, service: str, node: str) -> None:
        self._calls = metrics.node_calls
        self._seconds = metrics.node_seconds
        self.service = service
        self.node = node
        self._labels = (service, node)
        self._bound_calls: dict[tuple[str, str], Count] = {}
        self._bound_seconds: dict[str, Spread] = {}
        self.bytes = metrics.node_bytes.labels(service, node)

    def observe(self, call: str, outcome: str, seconds: float) -> None:
        """One finished call; outcome: present, absent, unknown, rejected or cancelled."""
        counter = self._bound_calls.get((call, outcome))
        if counter is None:
            counter = self._calls.labels(*self._labels, call, outcome)
            self._bound_calls[call, outcome] = counter
        counter.inc()
        histogram = self._bound_seconds.get(call)
        if histogram is None:
            histogram = self._bound_seconds[call] = self._seconds.labels(*self._labels, call)
        histogram.observe(seconds)


class FrontMeter:
    """Requests of one front door: how many, how they ended, how long they took, what they sent."""

    def __init__(self, metrics: Metrics, front: str) -> None:
        self._front = front
        self._requests = metrics.requests
        self._seconds = metrics.request_seconds
        self._bytes = metrics.response_bytes.labels(front)
        self._bound_requests: dict[tuple[str, int | str, str], Count] = {}
        self._bound_seconds: dict[str, Spread] = {}

    def observe(
        self, route: str, status: int | str, outcome: str, seconds: float, sent: int
    ) -> None:
        """One finished request; `sent` counts the bytes of its body."""
        counter = self._bound_requests.get((route, status, outcome))
        if counter is None:
            counter = self._requests.labels(self._front, route, status, outcome)
            self._bound_requests[route, status, outcome] = counter
        counter.inc()
        histogram = self._bound_seconds.get(route)
        if histogram is None:
            histogram = self._bound_seconds[route] = self._seconds.labels(self._front, route)
        histogram.observe(seconds)
        if sent:
            self._bytes.inc(sent)


class Metrics:
    """The registry of one composition, with all of its metrics."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counts(
            "tvixstore_requests",
            "Requests answered at a front door",
            ["front", "route", "status", "answer"],
            registry,
        )
        self.request_seconds = Spreads(
            "tvixstore_request_seconds",
            "Seconds from a request's arrival to its last byte",
            ["front", "route"],
            _SECONDS,
            registry,
        )
        self.response_bytes = Counts(
            "tvixstore_response_bytes", "Body bytes sent", ["front"], registry
        )
        self.node_calls = Counts(
            "tvixstore_node_calls",
            "Calls of a node; outcome: present, absent, unknown, rejected, cancelled",
            ["service", "node", "call", "outcome"],
            registry,
        )
        self.node_seconds = Spreads(
            "tvixstore_node_seconds",
            "Seconds until a node answered",
            ["service", "node", "call"],
            _SECONDS,
            registry,
        )
        self.node_bytes = Counts(
            "tvixstore_node_bytes",
            "Bytes that a node delivered",
            ["service", "node"],
            registry,
        )
        self.upstream_up = Gauge(
            "tvixstore_upstream_up",
            "1 while an upstream answers, 0 while it does not",
            ["node"],
            registry=registry,
        )
        self.fills = Counter(
            "tvixstore_fills",
            "Finished fills; outcome: done, passed, failed, cancelled",
            ["outcome"],
            registry=registry,
        )
        self.fills_running = Gauge("tvixstore_fills_running", "Fills under way", registry=registry)
        self.store_bytes = Gauge(
            "tvixstore_store_bytes", "Bytes on disk, by kind", ["kind"], registry=registry
        )
        self.store_free_bytes = Gauge(
            "tvixstore_store_free_bytes", "Bytes free on the state's file system", registry=registry
        )
        self.chunks_dropped = Counter(
            "tvixstore_chunks_dropped",
            "Chunks found corrupt or missing on disk, dropped to be fetched again",
            registry=registry,
        )
        self.repairs = Counts(
            "tvixstore_repairs",
            "What a mirror's member lacked; outcome: done, failed, dropped",
            ["service", "node", "outcome"],
            registry,
        )
        self.evictions = Counter("tvixstore_evictions", "Paths evicted", registry=registry)
        self.evicted_bytes = Counter(
            "tvixstore_evicted_bytes",
            "Bytes of chunks, Directories and lists freed because nothing refers to them any more",
            registry=registry,
        )
        self.reloads = Counter(
            "tvixstore_reloads",
            "Times that the compose file was read again; outcome: done, unchanged, failed",
            ["outcome"],
            registry=registry,
        )
        self.draining = Gauge(
            "tvixstore_compositions_draining",
            "Compositions before the present one that requests or fills still use",
            registry=registry,
        )
        self.build_info = Gauge(
            "tvixstore_build_info", "Always 1", ["version", "python"], registry=registry
        )

    def repairs_of(self, service: str, node: str) -> Callable[[str], None]:
        """What counts the repairs of a mirror, by outcome: done, failed or dropped."""
        return lambda outcome: self.repairs.labels(service, node, outcome).inc()

    def node(self, service: str, node: str) -> NodeMeter:
        return NodeMeter(self, service, node)
