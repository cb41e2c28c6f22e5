"""One thing that is under way, as whoever watches sees it.

It costs its doer next to nothing: how far it is is read, when somebody looks, from counters that
the doer has anyway, and rates are made then. What it is told of is the phases that it goes through.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias

Phase: TypeAlias = Literal[
    # Waits for a place among the downloads, or for a turn at a limit.
    "waiting",
    # Somebody was asked, and has not said anything yet.
    "asking",
    # Waits before the next attempt.
    "pausing",
    "connecting",
    "downloading",
    # Somebody sends it to us.
    "receiving",
    # Downloads, or goes on, without keeping it: the store takes nothing.
    "passing",
    "verifying",
    "ingesting",
    # The ends. `passed` was served and not kept; `left` is not waited for any more, and may go on.
    "done",
    "passed",
    "absent",
    "failed",
    "cancelled",
    "left",
]

ENDS: Final[frozenset[Phase]] = frozenset(
    ("done", "passed", "absent", "failed", "cancelled", "left")
)
# Bytes come in only then.
_MOVING: Final[frozenset[Phase]] = frozenset(("downloading", "receiving", "passing"))

# A rate is not made of less than so many seconds, and forgets what was so many seconds ago.
_LEAST: Final = 0.2
_SETTLES: Final = 3.0


class Measured(Protocol):
    """Whoever does a piece of work, and counts it."""

    def measured(self) -> tuple[int, int | None, int]:
        """Bytes done, of how many if that is known, and for how many who follow it."""


class Rate:
    """Bytes a second of what only grows, averaged over the last seconds or since the last look."""

    __slots__ = ("_at", "_done", "_rate")

    def __init__(self, now: float, done: int = 0) -> None:
        self._at = now
        self._done = done
        # None yet: the first one is not averaged with anything.
        self._rate: float | None = None

    def at(self, now: float, done: int) -> float:
        if (elapsed := now - self._at) >= _LEAST:
            fresh = (done - self._done) / elapsed
            old = fresh if self._rate is None else self._rate
            self._rate = old + (fresh - old) * (1 - math.exp(-elapsed / _SETTLES))
            self._at, self._done = now, done
        return self._rate or 0.0


class Work:
    """A piece of work, which `doer` counts; without one it has no bytes."""

    __slots__ = (
        "_doer",
        "_last",
        "_listeners",
        "_rate",
        "kind",
        "number",
        "on_end",
        "phase",
        "reason",
        "source",
        "started",
        "what",
    )

    def __init__(
        self,
        kind: str,
        what: str,
        source: str,
        doer: Measured | None = None,
        phase: Phase = "waiting",
    ) -> None:
        # nar, blob, closure or upload; of what only those hear who wait: lookup, turn, retry or
        # breaker.
        self.kind = kind
        # A store path, a digest, the name of a file.
        self.what = what
        # The node, or the upstream, that it comes from.
        self.source = source
        self.phase: Phase = phase
        # Why it is in that phase, where there is something to be said.
        self.reason: str | None = None
        # In the loop's time.
        self.started = asyncio.get_running_loop().time()
        # In the registry that it is in, which hears of its end.
        self.number = 0
        self.on_end: Callable[[Work], None] | None = None
        self._doer = doer
        self._last: tuple[int, int | None, int] = (0, None, 0)
        self._rate: Rate | None = None
        self._listeners: list[Callable[[Work], None]] | None = None

    @property
    def over(self) -> bool:
        return self.phase in ENDS

    def enter(self, phase: Phase, reason: str | None = None) -> None:
        """It is in `phase` from now on; an end is the last one."""
        if phase == self.phase or self.over:
            return
        self.phase, self.reason = phase, reason
        if self._rate is None and phase in _MOVING:
            self._rate = Rate(asyncio.get_running_loop().time(), self.measured()[0])
        if phase in ENDS:
            self._last, self._doer = self.measured(), None
            if self.on_end is not None:
                self.on_end(self)
        if self._listeners:
            for listener in tuple(self._listeners):
                listener(self)

    def measured(self) -> tuple[int, int | None, int]:
        """Bytes done, of how many if that is known, and for how many who follow it."""
        return self._last if self._doer is None else self._doer.measured()

    def rate(self, now: float) -> float:
        """Bytes a second."""
        return self.rate_of(now, self.measured()[0])

    def rate_of(self, now: float, done: int) -> float:
        """`rate`, for who has measured already how many bytes are `done`."""
        return 0.0 if self._rate is None else self._rate.at(now, done)

    def listen(self, listener: Callable[[Work], None]) -> None:
        """Has `listener` told of each phase from the next on."""
        if self._listeners is None:
            self._listeners = []
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[Work], None]) -> None:
        if self._listeners is not None and listener in self._listeners:
            self._listeners.remove(listener)
