"""A circuit breaker: who failed several times in a row is left alone for a while.

Closed, calls go through. After `failures` failed ones in a row it opens: calls fail at once, for
`open_for` seconds. Then it is half open: one call, the probe, goes through and decides. Meanwhile
others still fail at once, so that nobody else waits for somebody who is down; a probe that takes
long, as a download may, is joined by another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tvixstore.activity import note
from tvixstore.errors import (
    CorruptData,
    Incomplete,
    Skipped,
    StorageFull,
    Unavailable,
    Untrusted,
)
from tvixstore.policy import hearsay
from tvixstore.policy.tasks import OUTRUN
from tvixstore.policy.timeout import Hurried
from tvixstore.policy.tracing import Tell, spell, untold

Result = TypeVar("Result")

# Unavailable for reasons that do not lie with whoever was asked.
_NEUTRAL = (Skipped, Incomplete, StorageFull)


@dataclass(eq=False)
class Breaker:
    """`failures` in a row open it for `open_for` seconds.

    `Unavailable` and `CorruptData` are failures, and so is a call that was cancelled, or came to
    its caller's deadline, after more than `slow` seconds: whoever hangs is mostly noticed by
    somebody else giving up. One given up sooner says nothing, unless it is the probe: that had to
    show that it is up again, and did not.
    Even so, a probe that lost a race (`OUTRUN`) within `slow` is no failure, and leaves the probing
    to the next: a member slower than the others would be kept out for ever, though well.
    Present and absent are successes, and so is what is `Untrusted`:
    a cache with paths that others have signed is as good as any for its own. What was answered from
    memory (`hearsay`) is neither. `on_change(is_open, reason)` hears of it opening and closing.
    """

    failures: int = 5
    open_for: float = 30.0
    slow: float = 3.0
    on_change: Callable[[bool, str], None] | None = field(default=None, repr=False)
    # The node that it is for.
    name: str = field(default="", repr=False)
    # Why the last failed call failed.
    reason: str = field(default="", init=False, repr=False)
    _in_a_row: int = field(default=0, init=False, repr=False)
    # In the loop's time: since when it has been failing, and when a probe may go.
    _since: float = field(default=0.0, init=False, repr=False)
    _probe_at: float | None = field(default=None, init=False, repr=False)
    # When the running probe was let through.
    _probing: float | None = field(default=None, init=False, repr=False)
    # When it last answered.
    _heard: float | None = field(default=None, init=False, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether the last word is that it is down: until a probe has succeeded."""
        return self._probe_at is not None

    @property
    def probe_is_due(self) -> bool:
        """Whether it is open, and the next call would be the probe."""
        now = asyncio.get_running_loop().time()
        return self._probe_at is not None and now >= self._probe_at and not self._is_probed(now)

    def heard_within(self, seconds: float) -> bool:
        """Whether there was an answer, and not from memory, in the last `seconds`."""
        now = asyncio.get_running_loop().time()
        return self._heard is not None and now - self._heard < seconds

    async def run(
        self,
        call: Callable[[], Awaitable[Result]],
        *,
        download: bool = False,
        tell: Tell = untold,
    ) -> Result:
        """What `call` returns or raises; raises `Unavailable` without calling while open.

        A `download` takes as long as it takes: that somebody no longer waits for it says nothing.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            is_probe = self._admit(started)
        except Unavailable as error:
            left = error.retry_after or 0.0
            until = f"for {spell(left)} more" if left else "while it is probed"
            tell("breaker.open", f"left alone {until}", left)
            raise
        if is_probe:
            tell("breaker.probe", f"the probe: {self._failing(started)}", None)
        was_open = self.is_open
        try:
            with hearsay.Call() as guarded:
                result = await call()
        except _NEUTRAL:
            raise
        except Untrusted:
            if not guarded.from_memory:
                self._succeeded(loop.time())
            raise
        except Hurried as error:
            waited = loop.time() - started
            if not guarded.from_memory and (is_probe or (waited > self.slow and not download)):
                self._failed(started, str(error), is_probe)
            raise
        except (Unavailable, CorruptData) as error:
            if not guarded.from_memory:
                self._failed(started, str(error), is_probe)
            raise
        except asyncio.CancelledError as cancelled:
            waited = loop.time() - started
            if waited > self.slow and not download:
                self._failed(started, f"no answer within {waited:.1f} s", is_probe)
            elif is_probe and self._probing == started and OUTRUN not in cancelled.args:
                self._failed(started, "the probe was given up before it had an answer", is_probe)
            raise
        else:
            if not guarded.from_memory:
                self._succeeded(loop.time())
            return result
        finally:
            if self.is_open is not was_open:
                self._tell_of_change(tell)
            if is_probe and self._probing == started:
                self._probing = None

    def broke(self, error: Exception) -> None:
        """A stream that a call had returned cannot go on: a failure like a call's."""
        if isinstance(error, Unavailable | CorruptData) and not isinstance(
            error, (*_NEUTRAL, Untrusted)
        ):
            self._failed(asyncio.get_running_loop().time(), str(error), False)

    def _admit(self, now: float) -> bool:
        """Whether the call is the probe; raises `Unavailable` if it may not go."""
        if self._probe_at is None:
            return False
        if now < self._probe_at or self._is_probed(now):
            reason = f"left alone, as {self._failing(now)}"
            note("breaker", self.name, "failed", reason)
            raise Unavailable(reason, retry_after=max(0.0, self._probe_at - now))
        self._probing = now
        return True

    def _is_probed(self, now: float) -> bool:
        return self._probing is not None and now - self._probing < self.slow

    def _failed(self, started: float, reason: str, is_probe: bool) -> None:
        self.reason = reason
        if self._in_a_row == 0:
            self._since = started
        self._in_a_row += 1
        now = asyncio.get_running_loop().time()
        # A probe that fails after another one has succeeded is a failure like any other.
        if is_probe and self._probe_at is not None:
            self._probe_at = now + self.open_for
        elif self._probe_at is None and self._in_a_row >= self.failures:
            self._probe_at = now + self.open_for
            if self.on_change is not None:
                self.on_change(True, reason)

    def _failing(self, now: float) -> str:
        return f"it has been failing for {now - self._since:.0f} s: {self.reason}"

    def _tell_of_change(self, tell: Tell) -> None:
        if self.is_open:
            times = "once" if self._in_a_row == 1 else f"{self._in_a_row} times in a row"
            text = f"from now on left alone for {spell(self.open_for)}: it failed {times}"
            tell("breaker.opened", text, self.open_for)
        else:
            tell("breaker.closed", "it is up again", None)

    def _succeeded(self, now: float) -> None:
        self._in_a_row = 0
        self._heard = now
        if self._probe_at is not None:
            self._probe_at = None
            if self.on_change is not None:
                self.on_change(False, self.reason)
