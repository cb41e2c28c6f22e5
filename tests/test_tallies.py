"""Counters and histograms of our own read as Prometheus' own do."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tvixstore.tallies import Counts, Spreads

BOUNDS = (0.5, 1, 2.5)


def test_they_are_scraped_as_the_librarys_own_are() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = Counts("calls", "Calls", ["node"], ours)
    spreads = Spreads("seconds", "Seconds", ["node"], BOUNDS, ours)
    counter = Counter("calls", "Calls", ["node"], registry=theirs)
    histogram = Histogram("seconds", "Seconds", ["node"], buckets=BOUNDS, registry=theirs)
    for seconds in (0, 0.5, 0.51, 1, 2, 2.5, 9):
        for node in ("near", 'f"a\nr'):
            counts.labels(node).inc()
            counter.labels(node).inc()
            spreads.labels(node).observe(seconds)
            histogram.labels(node).observe(seconds)
    counts.labels("near").inc(0.5)
    counter.labels("near").inc(0.5)

    assert lines_of(ours) == lines_of(theirs)


def test_the_same_labels_are_the_same_counter() -> None:
    counts = Counts("calls", "Calls", ["status"], CollectorRegistry())
    assert counts.labels(200) is counts.labels("200")


def lines_of(registry: CollectorRegistry) -> list[str]:
    """Without when each child was made, which ours do not tell."""
    text = generate_latest(registry).decode()
    return [line for line in text.splitlines() if "_created" not in line]
