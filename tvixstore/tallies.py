"""Counters and histograms of the hot paths: added to in well under a microsecond.

prometheus_client takes a lock and walks the buckets for each observation, some 2 µs; a warm narinfo
is observed three times. These are plain numbers, which become Prometheus' families when scraped.
They are for one thread, the loop's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Count:
    """One number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount


class Spread:
    """How many observations fell up to each of `bounds`, and what they add up to."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        # The last one is for what is beyond all bounds.
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Counts(Collector):
    """The counters called `name`, by the values of their labels."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._name, self._help, self._labels = name, help_text, labels
        self._children: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: object) -> Count:
        """The counter of those values; to be kept by whoever counts often."""
        return self._children.setdefault(tuple(map(str, values)), Count())

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for values, count in self._children.items():
            family.add_metric(values, count.value)
        yield family


class Spreads(Collector):
    """The histograms called `name`, by the values of their labels."""

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._help, self._labels = name, help_text, labels
        self._bounds = bounds
        self._bound_names = [*map(floatToGoString, bounds), "+Inf"]
        self._children: dict[tuple[str, ...], Spread] = {}
        registry.register(self)

    def labels(self, *values: object) -> Spread:
        """The histogram of those values; to be kept by whoever observes often."""
        return self._children.setdefault(tuple(map(str, values)), Spread(self._bounds))

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for values, spread in self._children.items():
            buckets = zip(self._bound_names, accumulate(spread.counts), strict=True)
            family.add_metric(values, list(buckets), spread.total)
        yield family
