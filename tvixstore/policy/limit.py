"""How much one may ask of somebody: so many calls at a time, and so many bytes a second.

A permit is for whoever works for the caller right now. A stream holds one while it is open, and its
reader may be waiting for something that waits for a permit itself: two tiers that share a member,
or somebody who copies within one store. So a stream whose reader has been elsewhere for a moment
*lends* its permit; nobody is working for it just then, and whoever waits goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from tvixstore.activity import Waiting
from tvixstore.log import Logger
from tvixstore.policy.tracing import Tell, spell, untold
from tvixstore.streams import ByteStream

# Seconds for which nobody reads from a stream before its permit is lent.
_PATIENCE = 1.0
# Bytes that may come at once, after a pause: what comes in a quarter of a second, or this.
_BURST_SECONDS = 0.25
_LEAST_BURST = 64 << 10

log = Logger("tvixstore.policy.limit")


class Permit:
    """Leave to make use of somebody, until `release`."""

    def __init__(self, permits: Permits) -> None:
        self._permits = permits
        # Since when its holder has not made use of it, in the loop's time.
        self.idle_since: float | None = None
        self.lent = False

    def work(self) -> None:
        """Its holder makes use of it, or does so again."""
        self.idle_since = None
        # Whoever it was lent to goes on: for that long, there is one more.
        self.lent = False

    def rest(self) -> None:
        """Its holder is elsewhere for now."""
        self.idle_since = asyncio.get_running_loop().time()
        self._permits.settle()

    def release(self) -> None:
        """Gives it back. May be called again."""
        self._permits.give_back(self)


@dataclass(eq=False)
class Permits:
    """`count` permits, given in the order in which they were asked for. `name` is for the log."""

    count: int
    name: str = ""
    patience: float = _PATIENCE
    _held: set[Permit] = field(default_factory=set, init=False, repr=False)
    _waiting: deque[asyncio.Future[Permit]] = field(default_factory=deque, init=False, repr=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False, repr=False)
    # The most that were in use at once, and how often one was lent.
    peak: int = field(default=0, init=False)
    loans: int = field(default=0, init=False)

    @property
    def in_use(self) -> int:
        return sum(not permit.lent for permit in self._held)

    async def acquire(self) -> Permit:
        if not self._waiting and self.in_use < self.count:
            return self._give()
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.settle()
        try:
            with Waiting("turn", "", self.name, "waiting"):
                return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give_back(future.result())
            raise

    def give_back(self, permit: Permit) -> None:
        self._held.discard(permit)
        self.settle()

    def settle(self) -> None:
        """Serves those who wait, by what is free or can be lent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
            elif self.in_use < self.count:
                self._waiting.popleft().set_result(self._give())
            elif not self._lend():
                return

    def _give(self) -> Permit:
        permit = Permit(self)
        self._held.add(permit)
        self.peak = max(self.peak, self.in_use)
        return permit

    def _lend(self) -> bool:
        """Lends the permit that has been idle for longest, or waits until one has been for long."""
        idle = [permit for permit in self._held if permit.idle_since is not None]
        idle = [permit for permit in idle if not permit.lent]
        if not idle:
            return False
        loop = asyncio.get_running_loop()
        longest = min(idle, key=lambda permit: permit.idle_since or 0.0)
        due = (longest.idle_since or 0.0) + self.patience
        if loop.time() < due:
            self._timer = loop.call_at(due, self.settle)
            return False
        longest.lent = True
        self.loans += 1
        log.info("limit.lent", node=self.name, loans=self.loans)
        return True


@dataclass(eq=False)
class TokenBucket:
    """`rate` bytes a second, and a short burst after a pause."""

    rate: float
    _free_at: float = field(default=float("-inf"), init=False, repr=False)

    async def pay(self, size: int) -> None:
        """Waits until `size` bytes, which came or are to go, are within the rate."""
        loop = asyncio.get_running_loop()
        burst = max(_BURST_SECONDS, _LEAST_BURST / self.rate)
        begin = max(self._free_at, loop.time() - burst)
        self._free_at = begin + size / self.rate
        if (pause := self._free_at - loop.time()) > 0:
            await asyncio.sleep(pause)


@dataclass(eq=False)
class Limit:
    """What of the two there is."""

    permits: Permits | None = None
    bucket: TokenBucket | None = None

    @classmethod
    def of(cls, concurrency: int | None, rate: int | None, name: str = "") -> Limit:
        return cls(
            None if concurrency is None else Permits(concurrency, name),
            None if rate is None else TokenBucket(rate),
        )

    async def acquire(self, tell: Tell = untold) -> Permit | None:
        if self.permits is None:
            return None
        time = asyncio.get_running_loop().time
        began = time()
        permit = await self.permits.acquire()
        if (waited := time() - began) > 0:
            tell("limit.waited", f"waited {spell(waited)} for its turn", waited)
        return permit

    @asynccontextmanager
    async def held(self, tell: Tell = untold) -> AsyncIterator[None]:
        """For one short call."""
        permit = await self.acquire(tell)
        try:
            yield
        finally:
            if permit is not None:
                permit.release()

    async def pay(self, size: int) -> None:
        if self.bucket is not None:
            await self.bucket.pay(size)


class LimitedStream(ByteStream):
    """`inner` at the rate of `limit`, whose `permit` it holds until it is closed."""

    def __init__(self, inner: ByteStream, limit: Limit, permit: Permit | None) -> None:
        self._inner = inner
        self._limit = limit
        self._permit = permit

    async def __anext__(self) -> bytes:
        with using(self._permit):
            part = await self._inner.__anext__()
            await self._limit.pay(len(part))
            return part

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            if self._permit is not None:
                self._permit.release()


@contextmanager
def using(permit: Permit | None) -> Iterator[None]:
    """One call of what holds `permit` for longer."""
    if permit is None:
        yield
        return
    permit.work()
    try:
        yield
    finally:
        permit.rest()


async def limited(
    limit: Limit, opening: Callable[[], Awaitable[ByteStream | None]], tell: Tell = untold
) -> ByteStream | None:
    """The stream that `opening` gives, under `limit` from its opening to its closing."""
    permit = await limit.acquire(tell)
    try:
        stream = await opening()
    except BaseException:
        if permit is not None:
            permit.release()
        raise
    if stream is None:
        if permit is not None:
            permit.release()
        return None
    if permit is not None:
        permit.rest()
    return LimitedStream(stream, limit, permit)
