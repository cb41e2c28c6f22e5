"""How the upstreams are: for `/readyz`, for `tvixstore_upstream_up`, and for the log.

An upstream is down when as many attempts in a row failed as one lookup makes, or when its breaker
opened, and up again with the first answer. Its trouble is logged when that changes, or when it says
something that is rejected, and summed up once a minute from then on: an upstream that is down for a
night, or whose key nobody trusts, costs a line a minute, not a line a request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tvixstore.errors import Incomplete, Skipped, StorageFull
from tvixstore.http import UpstreamStatus
from tvixstore.log import Logger
from tvixstore.metrics import Metrics

log = Logger("tvixstore.upstreams")

SUMMARY_EVERY = 60.0

# Unknown, and not for the upstream's fault.
_NOT_ITS_FAULT = (StorageFull, Incomplete, Skipped)


@dataclass(eq=False)
class UpstreamHealth:
    """One upstream, told of every attempt's outcome, and of its breaker's changes."""

    name: str
    # Failures in a row that make it count as down.
    attempts: int
    metrics: Metrics
    # Unix seconds, for people to read.
    now: Callable[[], float] = time.time
    up: bool = field(default=True, init=False)
    since: float = field(init=False)
    last_error: str | None = field(default=None, init=False)
    _failures_in_a_row: int = field(default=0, init=False)
    # Since the last summary.
    _failed: int = field(default=0, init=False)
    _rejected: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.since = self.now()
        # Whether the gauge of that name is of this one: of two at one name, the old one drains.
        self._shown = False

    def expect(self, attempts: int) -> None:
        """From now on one lookup makes so many attempts."""
        self.attempts = attempts

    def show(self) -> None:
        """It is asked, and metrics have it."""
        self._shown = True
        self._tell()

    def retire(self) -> None:
        """It is asked no more, though what was asked before goes on; metrics have it no longer."""
        if self._shown:
            self._shown = False
            self.metrics.upstream_up.remove(self.name)
        self.sum_up()

    def observe(self, outcome: str, error: BaseException | None) -> None:
        """One attempt, with its outcome as metrics have it."""
        if outcome in ("present", "absent"):
            self._failures_in_a_row = 0
            self._change(True, "it answers again")
        elif outcome == "rejected":
            # It answered, and what it said was wrong: that it lies does not make it down.
            self._rejected += 1
            self.last_error = str(error)
            if self._rejected == 1:
                log.warning("upstream.rejected", node=self.name, reason=self.last_error)
        elif outcome == "unknown" and not isinstance(error, _NOT_ITS_FAULT):
            self._failed += 1
            self._failures_in_a_row += 1
            self.last_error = str(error) or type(error).__name__
            if self._failures_in_a_row >= self.attempts:
                self._change(False, self.last_error)

    def breaker_changed(self, is_open: bool, reason: str) -> None:
        """Its breaker opened or closed."""
        if is_open:
            self.last_error = reason
        self._change(not is_open, reason)

    def status(self) -> UpstreamStatus:
        return UpstreamStatus(self.name, self.up, self.since, self.last_error)

    def sum_up(self) -> None:
        """Logs the trouble there was since the last time, if any."""
        if self._failed or self._rejected:
            log.warning(
                "upstream.trouble",
                node=self.name,
                up=self.up,
                failed=self._failed,
                rejected=self._rejected,
                reason=self.last_error,
            )
            self._failed = self._rejected = 0

    def _change(self, up: bool, reason: str) -> None:
        if up == self.up:
            return
        now = self.now()
        after = round(now - self.since, 1)
        self.up, self.since = up, now
        self._tell()
        if up:
            log.info("upstream.up", node=self.name, down_for=after)
        else:
            log.warning("upstream.down", node=self.name, reason=reason)

    def _tell(self) -> None:
        if self._shown:
            self.metrics.upstream_up.labels(self.name).set(int(self.up))


async def sum_up(upstreams: Callable[[], Iterable[UpstreamHealth]]) -> None:
    """Sums up the trouble of all `upstreams` once a minute, until it is cancelled."""
    while True:
        await asyncio.sleep(SUMMARY_EVERY)
        for upstream in upstreams():
            upstream.sum_up()
