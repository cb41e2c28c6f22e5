"""When an upstream counts as down, what is logged of it, and what is not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from tests.support.virtual_clock import virtual_clock
from tvixstore.compose.health import UpstreamHealth, sum_up
from tvixstore.errors import CorruptData, StorageFull, Unavailable
from tvixstore.metrics import Metrics
from tvixstore.policy.tasks import end

REFUSED = Unavailable("connection refused")


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def health(metrics: Metrics, clock: Clock) -> UpstreamHealth:
    health = UpstreamHealth("mirror", 3, metrics, clock)
    health.show()
    return health


class Events(logging.Handler):
    """What was logged: events with their fields."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, object]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.getMessage(), vars(record)["fields"]))


@pytest.fixture
def events() -> Iterator[Events]:
    logger = logging.getLogger("tvixstore.upstreams")
    handler = Events()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def gauge(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("tvixstore_upstream_up", {"node": "mirror"})


def test_it_is_up_until_a_whole_lookup_failed(
    health: UpstreamHealth, metrics: Metrics, clock: Clock
) -> None:
    health.observe("unknown", REFUSED)
    health.observe("unknown", REFUSED)
    assert (health.up, gauge(metrics)) == (True, 1)
    clock.time = 1010
    health.observe("unknown", REFUSED)
    assert (health.up, gauge(metrics)) == (False, 0)
    assert (health.since, health.last_error) == (1010, "connection refused")


def test_any_answer_brings_it_up(health: UpstreamHealth, metrics: Metrics) -> None:
    health.breaker_changed(True, "no answer within 5 s")
    assert (health.up, gauge(metrics)) == (False, 0)
    health.observe("absent", None)
    assert (health.up, gauge(metrics)) == (True, 1)
    assert health.status().last_error == "no answer within 5 s"


def test_answers_in_between_keep_it_up(health: UpstreamHealth) -> None:
    for _ in range(10):
        health.observe("unknown", REFUSED)
        health.observe("unknown", REFUSED)
        health.observe("present", None)
    assert health.up


def test_neither_lies_nor_our_own_trouble_nor_cancelling_take_it_down(
    health: UpstreamHealth,
) -> None:
    for _ in range(10):
        health.observe("rejected", CorruptData("wrong hash"))
        health.observe("unknown", StorageFull("no room"))
        health.observe("cancelled", asyncio.CancelledError())
    assert health.up
    assert health.last_error == "wrong hash"


def test_its_changes_are_logged_and_nothing_between(
    health: UpstreamHealth, clock: Clock, events: Events
) -> None:
    for _ in range(100):
        health.observe("unknown", REFUSED)
    clock.time += 60
    health.observe("present", None)
    assert events.seen == [
        ("upstream.down", {"node": "mirror", "reason": "connection refused"}),
        ("upstream.up", {"node": "mirror", "down_for": 60}),
    ]


@virtual_clock
async def test_trouble_is_summed_up_once_a_minute(health: UpstreamHealth, events: Events) -> None:
    summing = asyncio.create_task(sum_up(lambda: [health]))
    for _ in range(29):
        health.observe("unknown", REFUSED)
        health.observe("rejected", CorruptData("wrong hash"))
        await asyncio.sleep(2)
    await asyncio.sleep(120)
    await end([summing])
    rejected = [fields for event, fields in events.seen if event == "upstream.rejected"]
    assert rejected == [{"node": "mirror", "reason": "wrong hash"}]
    sums = [fields for event, fields in events.seen if event == "upstream.trouble"]
    assert [(fields["failed"], fields["rejected"]) for fields in sums] == [(29, 29)]
